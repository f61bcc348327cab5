// For tests: a verified file and its sidecar over ram disks, whose bytes may be changed behind the cache's back.
// Locks: none of its own.
#pragma once

#include <memory>
#include <vector>

#include "fs/file_for_test.h"
#include "fs/verity.h"
#include "ram/ram_disk_for_test.h"
#include "verity/sidecar.h"

namespace quire::testing_support {

class VerityFile {
 public:
  VerityFile(PageCache& cache, const std::vector<char>& content, const verity::HashParameters& parameters = {},
             bool at_completion = false)
      : VerityFile(cache, content, parameters, at_completion, Options{}) {}
  struct Options {
    std::uint64_t hole_first = UINT64_MAX, hole_end = 0;  // bytes, whole pages: zeros that are not stored
  };
  VerityFile(PageCache& cache, const std::vector<char>& content, const verity::HashParameters& parameters,
             bool at_completion, const Options& options) {
    auto builder =
        verity::TreeBuilder::create(content.size(), parameters, [&](std::uint64_t offset, std::span<const char> block) {
          if (tree_.size() < offset + block.size()) tree_.resize(offset + block.size());
          std::copy(block.begin(), block.end(), tree_.begin() + static_cast<std::ptrdiff_t>(offset));
          return Status{};
        });
    CHECK(builder.ok());
    CHECK(builder.value().add(content).ok());
    const auto root = builder.value().finish();
    CHECK(root.ok());
    auto data = data_disk.make_file();
    std::vector<char> stored = content;
    stored.resize(round_up(stored.size(), kPageSize));
    for (std::uint64_t at = 0; at < stored.size(); at += kPageSize) {
      if (at >= options.hole_first && at < options.hole_end) continue;
      data_disk.put(*data, at,
                    std::vector<char>(stored.begin() + static_cast<std::ptrdiff_t>(at),
                                      stored.begin() + static_cast<std::ptrdiff_t>(at + kPageSize)),
                    content.size());
    }
    if (options.hole_end != 0) CHECK(data->set_size(content.size()).ok());
    data_ = data.get();
    std::vector<char> sidecar(verity::kSidecarHeaderSize);
    sidecar.insert(sidecar.end(), tree_.begin(), tree_.end());
    const std::uint64_t sidecar_size = sidecar.size();
    sidecar.resize(round_up(sidecar_size, kPageSize));
    auto tree = tree_disk.make_file();
    tree_disk.put(*tree, 0, sidecar, sidecar_size);
    sidecar_ = tree.get();
    VeritySource source{.parameters = parameters,
                        .geometry = builder.value().geometry(),
                        .root_hash = root.value(),
                        .sidecar = std::move(tree),
                        .tree_offset = verity::kSidecarHeaderSize,
                        .path = "FILE",
                        .at_completion = at_completion};
    // Above the ids that test files have, as the locks' order wants it.
    static Atomic<std::uint64_t> next_tree_id{std::uint64_t{1} << 32};
    auto made = FileVerity::create(cache, workers_, next_tree_id.fetch_add(1, memory_order_relaxed), std::move(source));
    CHECK(made.ok());
    verity_ = made.take();
    file_.emplace(cache, std::move(data));
    file_->mapping().verifier = verity_.get();
    file_->handle().writable = false;
  }
  ~VerityFile() {
    file_.reset();
    verity_.reset();
    workers_.end();
  }

  TestFile& file() { return *file_; }
  FileVerity& verity() { return *verity_; }
  std::uint64_t tree_bytes() const { return tree_.size(); }
  void flip_data(std::uint64_t byte, int bit = 0) { flip(data_disk, *data_, byte, bit); }
  void flip_tree(std::uint64_t byte, int bit = 0) {
    flip(tree_disk, *sidecar_, verity::kSidecarHeaderSize + byte, bit);
  }
  // All hashes leave the cache, as under pressure.
  void drop_tree() { verity_->drop_hashes(); }

  RamDisk data_disk{kPageSize}, tree_disk{kPageSize};

 private:
  static void flip(RamDisk& disk, Backing& file, std::uint64_t byte, int bit) {
    const auto extent = file.map(byte, 1);
    CHECK(extent.ok() && extent.value().kind == ExtentKind::written);
    char value;
    disk.store.memory().peek(extent.value().address, &value, 1);
    value = static_cast<char>(value ^ (1 << bit));
    CHECK(disk.store.memory().poke(extent.value().address, &value, 1) == 0);
  }

  std::vector<char> tree_;
  Backing* data_ = nullptr;
  Backing* sidecar_ = nullptr;
  Workers workers_{2, "test-verity"};
  std::unique_ptr<FileVerity> verity_;
  std::optional<TestFile> file_;
};

}  // namespace quire::testing_support
