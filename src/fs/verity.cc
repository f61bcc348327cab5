// A verified file: its tree's mapping, hashers, and what is told of bad blocks. See verity.h.
#include "fs/verity.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <new>

#include "base/error.h"
#include "cache/fill.h"
#include "cache/invalidate.h"
#include "fs/verity_window.h"
#include "verity/sidecar.h"

namespace quire {
namespace {

constinit LockClass verity_class{"verity"};
// A fill of so few pages is hashed by the thread that finds it read: a hand-over costs as much.
constexpr std::size_t kPagesAtOnce = 4;
constexpr std::size_t kHashersKept = 16;
constexpr std::int64_t kBytes = sizeof(FileVerity) + kHashersKept * 1024;  // with OpenSSL's contexts
constexpr std::uint64_t kLogged = 32;  // bad blocks of one file; further ones are counted

}  // namespace

Result<std::unique_ptr<FileVerity>> FileVerity::create(PageCache& cache, Workers& workers, std::uint64_t tree_id,
                                                       VeritySource source) {
  auto hasher = verity::BlockHasher::create(source.parameters);
  QUIRE_TRY(hasher);
  QUIRE_TRY(workers.start());
  std::unique_ptr<FileVerity> made(new (std::nothrow) FileVerity(cache, workers, tree_id, std::move(source)));
  if (made == nullptr) return fail(ENOMEM);
  made->prototype_ = hasher.take();
  return made;
}

FileVerity::FileVerity(PageCache& cache, Workers& workers, std::uint64_t tree_id, VeritySource source)
    : source_(std::move(source)),
      unit_(std::max<std::uint64_t>(kPageSize, source_.parameters.block_size)),
      tree_(cache, *source_.sidecar, tree_id, source_.sidecar->size()),
      mutex_(verity_class),
      queue_(workers) {
  MutexLock lock(mutex_);
  hashers_.reserve(kHashersKept);
  cache.charge_files(kBytes);
}

FileVerity::~FileVerity() {
  drop_hashes();
  print_bad();
  tree_.cache.charge_files(-kBytes);
}

void FileVerity::drop_hashes() {
  RangeGuard remove(tree_.invalidate);
  remove.acquire(0, kRangeEnd, kRemove);
  remove_folios(tree_, 0, UINT64_MAX);
}

Result<std::unique_ptr<FillCheck>> FileVerity::begin(FillBatch& batch) {
  try {
    auto window = std::make_unique<VerityWindow>(*this);
    QUIRE_TRY(window->begin(batch));
    return std::unique_ptr<FillCheck>(std::move(window));
  } catch (const std::bad_alloc&) {
    return fail(ENOMEM);
  }
}

void FileVerity::run_later(PendingFill& fill, std::size_t pages) {
  if (pages <= kPagesAtOnce && unit_ == kPageSize && !source_.at_completion) return queue_.run(fill);
  queue_.push(fill);
}

FileVerity::HasherLease::HasherLease(FileVerity& file) : file_(file) {
  {
    MutexLock lock(file.mutex_);
    if (!file.hashers_.empty()) {
      hasher_ = std::move(file.hashers_.back());
      file.hashers_.pop_back();
      return;
    }
  }
  auto made = file.prototype_.clone();
  if (made.ok()) hasher_.reset(new (std::nothrow) verity::BlockHasher(made.take()));
}

FileVerity::HasherLease::~HasherLease() {
  if (hasher_ == nullptr) return;
  MutexLock lock(file_.mutex_);
  if (file_.hashers_.size() < kHashersKept) file_.hashers_.push_back(std::move(hasher_));  // within its capacity
}

void FileVerity::tell_bad(bool of_tree, std::uint64_t offset, std::span<const std::uint8_t> expected,
                          std::span<const char> block, verity::BlockHasher& hasher) {
  verity::Digest wanted, found;
  wanted.algorithm = found.algorithm = source_.parameters.algorithm;
  std::copy(expected.begin(), expected.end(), wanted.bytes.begin());
  hasher.hash(block, found.view());
  tree_.cache.stats.count(Counter::verity_failures);
  const std::uint64_t before = failures_.fetch_add(1, memory_order_relaxed);
  const char* const where = of_tree ? "hash block" : "block";
  const char* const of = of_tree ? verity::kSidecarSuffix : "";
  static_cast<void>(fail_with(EIO, "the %s at byte %llu of %s%s does not verify: its digest is %s, and should be %s",
                              where, static_cast<unsigned long long>(offset), source_.path.c_str(), of,
                              to_string(found).c_str(), to_string(wanted).c_str()));
  // Whoever wants it asks again, and is told; one line is enough.
  const std::uint64_t place = offset * 2 + (of_tree ? 1 : 0) + 1;
  if (last_told_.exchange(place, memory_order_relaxed) == place || before >= kLogged) return;
  std::string line = "quire: " + source_.path + of + ": the " + where + " at byte " + std::to_string(offset) +
                     " does not verify: its digest is " + to_string(found) + ", and should be " + to_string(wanted) +
                     (before + 1 == kLogged ? " (further ones are only counted)\n" : "\n");
  MutexLock lock(mutex_);
  noted_.push_back(std::move(line));
  anything_noted_.store(true, memory_order_relaxed);
}

// Not by the I/O thread, which must not wait for whoever reads standard error.
void FileVerity::print_bad() {
  if (!anything_noted_.load(memory_order_relaxed)) return;
  std::vector<std::string> lines;
  {
    MutexLock lock(mutex_);
    lines.swap(noted_);
    anything_noted_.store(false, memory_order_relaxed);
  }
  for (const std::string& line : lines) std::fputs(line.c_str(), stderr);
}

}  // namespace quire
