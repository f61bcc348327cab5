// quire's file FILE.verity beside FILE: a header of 64 KiB with the descriptor and a signature, then the hash tree, so
// that its blocks of any size are aligned. Pure encoding: no I/O and no trust. The checksum finds flipped bits, and no
// forgery: what a file is worth, its digest tells, and who vouches for that, the signature.
//
//   byte  0  "QUIREVTY"                          24  size of the tree, le64
//         8  version, le32: 1                    32  the descriptor, 256 bytes
//        12  size of the signature, le32        288  the signature, zeros after it
//        16  where the tree begins, le64      65504  SHA-256 of all bytes before it
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quire/result.h"
#include "verity/descriptor.h"
#include "verity/merkle_tree.h"

namespace quire::verity {

inline constexpr char kSidecarSuffix[] = ".verity";
inline constexpr std::size_t kSidecarHeaderSize = 65536;  // the tree begins here

struct Sidecar {
  Descriptor descriptor;
  std::vector<std::uint8_t> signature;  // empty: unsigned
};

// The header's bytes. EMSGSIZE: the signature is too long; ENOPKG, ENOMEM.
Result<std::vector<char>> encode_sidecar(const Sidecar& sidecar);

// From the first kSidecarHeaderSize bytes of a sidecar file (fewer, if it is shorter), its size and its file's.
// EBADMSG: not what encode_sidecar made, or of another file. ENOPKG, ENOMEM.
Result<Sidecar> decode_sidecar(std::span<const char> header, std::uint64_t sidecar_size, std::uint64_t data_size);

}  // namespace quire::verity
