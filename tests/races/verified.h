// For scenarios with a verified file (fs-verity): two pages, and a tree of one block over them, in a sidecar. Its
// digest is that of 'a' and 'b'. attack() puts 'x' in place of the second page, and its digest into the tree: only the
// root hash tells.
#pragma once

#include <memory>
#include <optional>

#include "fs/verity.h"
#include "races/scenario.h"
#include "verity/sidecar.h"

namespace quire::races {

class VerifiedWorld : public World {
 public:
  static constexpr std::uint64_t kTreeId = 1000;  // above the files', as the locks' order wants it

  explicit VerifiedWorld(std::uint32_t frames = PageCache::kMinFrames) : World(kPage, frames) {
    add_file(content('b'));
    auto sidecar = disk().make_file();
    sidecar_ = sidecar.get();
    verity::Digest root;
    const auto tree = make_tree('b', &root);
    disk().put(*sidecar, 0, std::vector<char>(verity::kSidecarHeaderSize), verity::kSidecarHeaderSize);
    disk().put(*sidecar, verity::kSidecarHeaderSize, tree, verity::kSidecarHeaderSize + kPage);
    VeritySource source{
        .parameters = {},
        .geometry = verity::TreeGeometry::create(2 * kPage, kPage, verity::HashAlgorithm::sha256).value(),
        .root_hash = root,
        .sidecar = std::move(sidecar),
        .tree_offset = verity::kSidecarHeaderSize,
        .path = "FILE"};
    verity_ = FileVerity::create(cache(), workers_, kTreeId, std::move(source)).take();
    file(0).mapping().verifier = verity_.get();
    file(0).handle().writable = false;
  }
  ~VerifiedWorld() {
    file(0).drop_cached();
    file(0).mapping().verifier = nullptr;
    verity_.reset();
    workers_.end();
  }

  void attack() {
    overwrite(*sidecar_, verity::kSidecarHeaderSize, make_tree('x', nullptr));
    overwrite(backing(0), kPage, std::vector<char>(kPage, 'x'));
  }
  FileVerity& verity() { return *verity_; }

 private:
  static std::string content(char second) { return letters('a', kPage) + letters(second, kPage); }
  static std::vector<char> make_tree(char second, verity::Digest* root) {
    std::vector<char> tree;
    auto builder = verity::TreeBuilder::create(2 * kPage, {}, [&](std::uint64_t, std::span<const char> block) {
      tree.assign(block.begin(), block.end());
      return Status{};
    });
    const std::string bytes = content(second);
    CHECK(builder.value().add(bytes).ok());
    const auto made = builder.value().finish();
    if (root != nullptr) *root = made.value();
    return tree;
  }
  // Behind the cache's back.
  void overwrite(Backing& backing, std::uint64_t offset, const std::vector<char>& bytes) {
    const auto extent = backing.map(offset, bytes.size());
    CHECK(extent.value().kind == ExtentKind::written && extent.value().length >= bytes.size());
    CHECK(disk().store.memory().poke(extent.value().address, bytes.data(), bytes.size()) == 0);
  }

  Backing* sidecar_ = nullptr;
  Workers workers_{1, "verity"};
  std::unique_ptr<FileVerity> verity_;
};

}  // namespace quire::races
