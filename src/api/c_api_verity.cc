// The C API of fs-verity: structs of any age copied in and out, errno and messages around verity_enable.h and
// verity_check.h. What callers' pointers lead to is copied first: it may lie in a mapped view. See quire.h.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "api/caller.h"
#include "api/handles.h"
#include "api/verity_check.h"
#include "api/verity_enable.h"
#include "base/error.h"
#include "device/fork_guard.h"
#include "verity/digest.h"

using quire::CallerString;
using quire::copy_in;
using quire::fail_with;
using quire::report_error;
using quire::Result;
using quire::Status;
using quire::VerityBadBlock;
namespace verity = quire::verity;

namespace {

constexpr std::size_t kMostStructBytes = 4096;
static_assert(QUIRE_DIGEST_MAX == sizeof "sha512:" + 2 * verity::kMaxDigestSize);

// The struct_size of a caller's struct, which every version of it begins with.
Result<std::size_t> struct_size_of(const void* given, std::size_t least, const char* name) {
  std::size_t size = 0;
  QUIRE_TRY(copy_in(&size, given, sizeof size));
  if (size >= least && size <= kMostStructBytes) return size;
  return fail_with(EINVAL, "struct_size is %zu: set it to sizeof(%s)", size, name);
}

// A struct to be read, NULL for all zeros; `least` bytes are those of its oldest version.
template <typename T>
Status read_struct(const T* given, std::size_t least, const char* name, T* known) {
  static_assert(offsetof(T, struct_size) == 0);
  *known = {};
  if (given == nullptr) return {};
  const auto size = struct_size_of(given, least, name);
  QUIRE_TRY(size);
  unsigned char bytes[kMostStructBytes];
  QUIRE_TRY(copy_in(bytes, given, size.value()));
  const auto* const newer = bytes + std::min(size.value(), sizeof *known);
  if (std::any_of(newer, static_cast<const unsigned char*>(bytes + size.value()),
                  [](unsigned char byte) { return byte != 0; })) {
    return fail_with(EINVAL, "an option of a newer quire is set");
  }
  std::memcpy(known, bytes, std::min(size.value(), sizeof *known));
  return {};
}

// A struct to be filled in, of `size` bytes at the caller's: what it knows of ours, zeros in what we do not know.
template <typename T>
Status write_struct(T* to, std::size_t size, T answer) {
  unsigned char bytes[kMostStructBytes] = {};
  answer.struct_size = size;
  std::memcpy(bytes, &answer, std::min(size, sizeof answer));
  return quire::copy_out_whole(to, bytes, size);
}

// A path or another string that may be missing.
Status read_string(const char* given, CallerString& to) { return given != nullptr ? to.get(given) : Status(); }

Status read_path(const char* given, CallerString& path) {
  if (quire::device_in_forked_child()) {
    return fail_with(ENOTRECOVERABLE, "this process was forked from one that had used quire: exec a program");
  }
  if (given == nullptr) return fail_with(EINVAL, "the path is NULL");
  return path.get(given);
}

Result<std::vector<std::uint8_t>> read_bytes(const void* given, std::size_t size, std::size_t most, const char* what) {
  if (given == nullptr && size != 0) return fail_with(EINVAL, "the %s is NULL, and has %zu bytes", what, size);
  if (size > most) return fail_with(EMSGSIZE, "a %s of %zu bytes: %zu is the limit", what, size, most);
  std::vector<std::uint8_t> bytes(size);
  QUIRE_TRY(copy_in(bytes.data(), given, size));
  return bytes;
}

Result<quire::VerityEnableOptions> read_enable_options(const quire_verity_options* options) {
  quire_verity_options given;
  QUIRE_TRY(read_struct(options, offsetof(quire_verity_options, progress), "quire_verity_options", &given));
  quire::VerityEnableOptions wanted;
  if (given.hash_alg != nullptr) {
    CallerString name;
    QUIRE_TRY(name.get(given.hash_alg));
    const auto algorithm = verity::parse_algorithm(name.c_str());
    QUIRE_TRY(algorithm);
    wanted.parameters.algorithm = algorithm.value();
  }
  if (given.block_size != 0) wanted.parameters.block_size = given.block_size;
  const auto salt = read_bytes(given.salt, given.salt_size, verity::kMaxSaltSize, "salt");
  QUIRE_TRY(salt);
  const auto made = verity::make_salt(salt.value());
  QUIRE_TRY(made);
  wanted.parameters.salt = made.value();
  auto signature = read_bytes(given.signature, given.signature_size, verity::kMaxSignatureSize, "signature");
  QUIRE_TRY(signature);
  wanted.signature = signature.take();
  if (given.progress != nullptr) {
    wanted.progress = [given](std::uint64_t done, std::uint64_t total) { given.progress(given.arg, done, total); };
  }
  return wanted;
}

Result<quire::VerityCheckOptions> read_check_options(const quire_verity_check_options* options) {
  quire_verity_check_options given;
  QUIRE_TRY(read_struct(options, sizeof given, "quire_verity_check_options", &given));
  CallerString digest, certificates;
  QUIRE_TRY(read_string(given.digest, digest));
  QUIRE_TRY(read_string(given.certificates, certificates));
  quire::VerityCheckOptions wanted;
  auto accepted = quire::accepted_verity(given.digest != nullptr ? digest.c_str() : nullptr,
                                         given.certificates != nullptr ? certificates.c_str() : nullptr);
  QUIRE_TRY(accepted);
  wanted.accepted = accepted.take();
  if (given.progress != nullptr) {
    wanted.progress = [given](std::uint64_t done, std::uint64_t total) { given.progress(given.arg, done, total); };
  }
  if (given.bad_block == nullptr) return wanted;
  wanted.bad = [given](const VerityBadBlock& bad) {
    const bool range = bad.kind == VerityBadBlock::Kind::unverified;
    const std::string expected = to_string(bad.expected), found = to_string(bad.found);
    const quire_verity_bad_block block{.kind = static_cast<std::uint32_t>(bad.kind),
                                       .error = bad.errnum,
                                       .offset = bad.offset,
                                       .length = bad.length,
                                       .hash_offset = bad.hash_offset,
                                       .expected = range ? nullptr : expected.c_str(),
                                       .found = range || bad.errnum != 0 ? nullptr : found.c_str()};
    given.bad_block(given.arg, &block);
  };
  return wanted;
}
static_assert(static_cast<int>(VerityBadBlock::Kind::data) == QUIRE_BAD_DATA);
static_assert(static_cast<int>(VerityBadBlock::Kind::hash) == QUIRE_BAD_HASH);
static_assert(static_cast<int>(VerityBadBlock::Kind::unverified) == QUIRE_BAD_UNVERIFIED);

template <std::size_t n>
void put_text(char (&to)[n], const std::string& text) {
  std::memcpy(to, text.c_str(), std::min(n, text.size() + 1));
}

Status enable(quire::CacheImpl& cache, const char* path, const quire_verity_options* options) {
  const auto wanted = read_enable_options(options);
  QUIRE_TRY(wanted);
  QUIRE_TRY(quire::enable_verity(cache, path, wanted.value()));
  return {};
}

Status measure(const char* path, char* digest, std::size_t size) {
  if (digest == nullptr) return fail_with(EINVAL, "the buffer for the digest is NULL");
  const auto found = quire::verity_header(path);
  QUIRE_TRY(found);
  const std::string text = to_string(found.value().digest);
  if (text.size() >= size) {
    return fail_with(ERANGE,
                     "the digest has %zu characters and a NUL, and there is room for %zu: QUIRE_DIGEST_MAX does",
                     text.size(), size);
  }
  return quire::copy_out_whole(digest, text.c_str(), text.size() + 1);
}

Status status(const char* path, quire_verity_info* to) {
  if (to == nullptr) return fail_with(EINVAL, "the struct to be filled in is NULL");
  const auto size = struct_size_of(to, sizeof(quire_verity_info), "quire_verity_info");
  QUIRE_TRY(size);
  quire_verity_info info = {};
  const auto found = quire::verity_header(path);
  if (!found.ok() && found.errnum() != ENODATA) return quire::fail(found.errnum());
  if (!found.ok()) {
    quire::clear_cause();
    return write_struct(to, size.value(), info);
  }
  const verity::Sidecar& header = found.value().header;
  const verity::HashParameters& parameters = header.descriptor.parameters;
  const auto geometry = header.descriptor.geometry();
  QUIRE_TRY(geometry);
  info.enabled = 1;
  info.block_size = parameters.block_size;
  put_text(info.hash_alg, verity::algorithm_name(parameters.algorithm));
  put_text(info.digest, to_string(found.value().digest));
  put_text(info.root_hash, to_string(header.descriptor.root_hash));
  static_assert(sizeof info.salt == verity::kMaxSaltSize);
  std::memcpy(info.salt, parameters.salt.bytes.data(), sizeof info.salt);
  info.salt_size = parameters.salt.size;
  info.signature_size = static_cast<unsigned>(header.signature.size());
  info.file_size = header.descriptor.data_size;
  info.tree_size = geometry.value().tree_size();
  return write_struct(to, size.value(), info);
}

Status check(const char* path, const quire_verity_check_options* options, quire_verity_counts* to) {
  Result<std::size_t> size = std::size_t{0};
  if (to != nullptr) size = struct_size_of(to, sizeof(quire_verity_counts), "quire_verity_counts");
  QUIRE_TRY(size);
  const auto wanted = read_check_options(options);
  QUIRE_TRY(wanted);
  const auto checked = quire::check_verity(path, wanted.value());
  QUIRE_TRY(checked);
  const quire::VerityCounts& found = checked.value().counts;
  if (to != nullptr) {
    quire_verity_counts counts = {};
    counts.data_blocks = found.data_blocks;
    counts.hash_blocks = found.hash_blocks;
    counts.bad_data_blocks = found.bad_data_blocks;
    counts.bad_hash_blocks = found.bad_hash_blocks;
    counts.unverified_blocks = found.unverified_blocks;
    put_text(counts.digest, to_string(checked.value().digest));
    QUIRE_TRY(write_struct(to, size.value(), counts));
  }
  if (found.good()) return {};
  const auto ull = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  return fail_with(
      EIO,
      "of %llu data blocks %llu are bad, and of %llu hash blocks %llu, under which %llu data blocks cannot "
      "be verified: take the file from a good copy, and turn fs-verity on anew",
      ull(found.data_blocks), ull(found.bad_data_blocks), ull(found.hash_blocks), ull(found.bad_hash_blocks),
      ull(found.unverified_blocks));
}

// `work` on a path, as a call of the C API answers.
template <typename Work>
int answer(const char* what, const char* path, Work work) {
  CallerString name;
  try {
    const Status had = read_path(path, name);
    if (!had.ok()) {
      report_error(had.errnum(), "%s", what);
      return -1;
    }
    const Status done = work(name.c_str());
    if (done.ok()) return 0;
    report_error(done.errnum(), "%s of %s", what, name.c_str());
  } catch (const std::bad_alloc&) {
    report_error(ENOMEM, "%s of %s", what, name.c_str());
  }
  return -1;
}

}  // namespace

extern "C" {

int quire_verity_enable(quire_cache* cache, const char* path, const quire_verity_options* options) {
  return answer("verity enable", path, [&](const char* name) -> Status {
    if (cache == nullptr) return fail_with(EINVAL, "the cache is NULL");
    return enable(quire::impl(cache), name, options);
  });
}

int quire_verity_measure(const char* path, char* digest, size_t size) {
  return answer("verity measure", path, [&](const char* name) { return measure(name, digest, size); });
}

int quire_verity_status(const char* path, quire_verity_info* info) {
  return answer("verity status", path, [&](const char* name) { return status(name, info); });
}

int quire_verity_check(const char* path, const quire_verity_check_options* options, quire_verity_counts* counts) {
  return answer("verity check", path, [&](const char* name) { return check(name, options, counts); });
}

}  // extern "C"
