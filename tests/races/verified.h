// A world with a verified file: 33 pages, whose hash tree (blocks of 1 KiB) takes two pages. All reads of the file's
// beginning need both.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fs/verity.h"
#include "races/scenario.h"
#include "verity/merkle_tree.h"
#include "verity/sidecar.h"

namespace quire::races {

inline constexpr std::size_t kVerifiedPages = 33;

// Of the file below; made once, since every schedule has the same.
struct VerifiedBytes {
  std::string content;
  std::vector<char> sidecar = std::vector<char>(verity::kSidecarHeaderSize);
  verity::HashParameters parameters{verity::HashAlgorithm::sha256, 1024, {}};
  verity::TreeGeometry geometry;
  verity::Digest root_hash;

  static const VerifiedBytes& get() {
    static const VerifiedBytes made;
    return made;
  }

 private:
  VerifiedBytes() {
    for (std::size_t page = 0; page < kVerifiedPages; ++page) {
      content += std::string(kPageSize, static_cast<char>('A' + page));
    }
    auto builder = verity::TreeBuilder::create(
        content.size(), parameters, [this](std::uint64_t offset, std::span<const char> block) {
          const std::size_t end = verity::kSidecarHeaderSize + offset + block.size();
          if (sidecar.size() < end) sidecar.resize(end);
          std::copy(block.begin(), block.end(),
                    sidecar.end() - static_cast<std::ptrdiff_t>(sidecar.size() - end) -
                        static_cast<std::ptrdiff_t>(block.size()));
          return Status{};
        });
    CHECK(builder.ok() && builder.value().add(content).ok());
    const auto root = builder.value().finish();
    CHECK(root.ok());
    root_hash = root.value();
    geometry = builder.value().geometry();
    sidecar.resize(round_up(sidecar.size(), kPageSize));
  }
};

class VerifiedWorld : public World {
 public:
  explicit VerifiedWorld(std::uint32_t frames = PageCache::kMinFrames) : World(4096, frames) {
    const VerifiedBytes& bytes = VerifiedBytes::get();
    add_file(bytes.content);
    auto tree = disk().make_file();
    disk().put(*tree, 0, bytes.sidecar, bytes.sidecar.size());
    const auto extent = tree->map(verity::kSidecarHeaderSize, kPageSize);
    CHECK(extent.ok());
    tree_address_ = extent.value().address;
    auto made = FileVerity::create(cache(), workers_, std::uint64_t{1} << 32,
                                   VeritySource{.parameters = bytes.parameters,
                                                .geometry = bytes.geometry,
                                                .root_hash = bytes.root_hash,
                                                .sidecar = std::move(tree),
                                                .tree_offset = verity::kSidecarHeaderSize,
                                                .path = "FILE"});
    CHECK(made.ok());
    verity_ = made.take();
    mapping().verifier = verity_.get();
  }
  ~VerifiedWorld() {
    file(0).drop_cached();
    mapping().verifier = nullptr;
    verity_.reset();
    workers_.end();
  }

  Mapping& mapping() { return file(0).mapping(); }
  FileVerity& verity() { return *verity_; }
  // The next read of the tree's first page fails.
  void fail_tree_once() {
    disk().device.set_plan({.rules = {{.kind = FaultKind::error,
                                       .writes = false,
                                       .first = tree_address_,
                                       .last = tree_address_ + kPageSize - 1,
                                       .times = 1}}});
  }
  std::string expected(std::uint64_t offset, std::size_t count) {
    return VerifiedBytes::get().content.substr(offset, count);
  }

 private:
  Workers workers_{1, "verity"};
  std::uint64_t tree_address_ = 0;
  std::unique_ptr<FileVerity> verity_;
};

}  // namespace quire::races
