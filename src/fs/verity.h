// Files whose bytes are verified against a hash tree as they are read (fs-verity). Guarantees: V1, R2.
//
// The tree's blocks are folios of a mapping of their own, over the sidecar (verity/sidecar.h). A *unit* is what becomes
// uptodate together: a page or a block, whichever is larger. A tree folio is uptodate only if every block in its unit
// was verified up to the root: so to be uptodate is what remembers it, and what was evicted is verified again.
// In the sidecar each block comes after the one that holds its digest, so a unit needs units before it at most, and
// waits for hashes go one way only.
//
// A unit, for a window of data that needs it (verity_window.cc):
//   absent --insert_new, locked--> ours --read, verified--> good (uptodate, unlocked)     or removed, unlocked
//   locked by another window ----> others' --waited for--> good, or read apart (by who may not wait: bad)
//   no frame for it, or there in part only --> apart (private memory, read and verified for this window alone)
// A window keeps a reference to every unit that it needs from before its reads are sent, so none has to be read again.
//
// Fills that nobody waits for in line are run by workers, by readers that have waited for a while, or, if they are
// small, by the I/O thread that has just completed them (verity_queue.h). Races, and what closes each:
//   two windows each have hashes that the other needs    each settles its own in the sidecar's order, unlocks each at
//                                                        once, and only then waits for the next that is others'
//   a worker waits for what is queued behind it          workers do not wait: such a fill is set aside until hashes of
//                                                        another were settled (VerityQueue::progress)
//   sidecar or file changes under us                     what was read is what is hashed: a folio is locked and odd
//                                                        from before its read to its verdict, and its frame is ours
//   a tree folio evicted between look and use            the window's reference
//   a fill set aside for a folio that reclaim has        what does not verify is removed before it is unlocked: so
//   locked, which tells nobody                           locked and not uptodate means a window's, which tells
//   the file is closed beside its fills                  drain_ahead, then the queue waits for its workers
// Nothing of the sidecar is trusted but by way of the root hash, and that by way of the digest that the opener names.
// Locks: range > invalidate > folio (data) > folio (tree: its mapping's id is larger) > xarray; the queue's and its
// own mutex are leaves.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backing/backing.h"
#include "cache/mapping.h"
#include "cache/verifier.h"
#include "fs/verity_queue.h"
#include "quire/result.h"
#include "verity/descriptor.h"
#include "verity/digest.h"
#include "verity/merkle_tree.h"

namespace quire {

struct VeritySource {
  verity::HashParameters parameters;
  verity::TreeGeometry geometry;
  verity::Digest root_hash;
  std::unique_ptr<Backing> sidecar;  // read only
  std::uint64_t tree_offset = 0;     // in the sidecar, bytes, a multiple of kMaxBlockSize
  std::string path;                  // of the data, for messages
  // For comparisons: hashes are read when the data has come, one after the other, as Linux did.
  bool at_completion = false;
};

// Of one file. Thread safety: every call from any thread.
class FileVerity final : public FillVerifier {
 public:
  // tree_id: of the tree's mapping, larger than the file's own. Errors: ENOMEM, EINVAL, ENOPKG.
  static Result<std::unique_ptr<FileVerity>> create(PageCache& cache, Workers& workers, std::uint64_t tree_id,
                                                    VeritySource source);
  // No fill of the file is under way, and none starts.
  ~FileVerity() override;

  unsigned unit_pages() const override { return static_cast<unsigned>(unit_ >> kPageShift); }
  Result<std::unique_ptr<FillCheck>> begin(FillBatch& batch) override;
  void run_later(PendingFill& fill, std::size_t pages) override;
  void help(const Folio& folio) override { queue_.help(folio); }

  // To standard error, what is known of bad blocks and not told yet; by who may wait for that, with no lock held.
  void print_bad();

  const VeritySource& source() const { return source_; }
  Backing& sidecar() { return *source_.sidecar; }
  // No hash stays in the cache that nobody uses just now.
  void drop_hashes();
  std::uint64_t failures() const { return failures_.load(memory_order_relaxed); }

 private:
  friend class VerityWindow;

  // A hasher for as long as it lives.
  class HasherLease {
   public:
    explicit HasherLease(FileVerity& file);
    ~HasherLease();
    HasherLease(const HasherLease&) = delete;
    HasherLease& operator=(const HasherLease&) = delete;
    verity::BlockHasher* get() { return hasher_.get(); }  // null: no memory

   private:
    FileVerity& file_;
    std::unique_ptr<verity::BlockHasher> hasher_;
  };

  FileVerity(PageCache& cache, Workers& workers, std::uint64_t tree_id, VeritySource source);
  // Counts a block of the file (or of its tree) that has another digest than it should, and notes it for print_bad.
  void tell_bad(bool of_tree, std::uint64_t offset, std::span<const std::uint8_t> expected, std::span<const char> block,
                verity::BlockHasher& hasher);

  VeritySource source_;
  const std::uint64_t unit_;  // bytes
  Mapping tree_;              // pages are the sidecar's
  verity::BlockHasher prototype_;
  Mutex mutex_;
  std::vector<std::unique_ptr<verity::BlockHasher>> hashers_ GUARDED_BY(mutex_);
  std::vector<std::string> noted_ GUARDED_BY(mutex_);
  Atomic<bool> anything_noted_;  // written under the mutex; a look without it that is too early: the next one prints
  Atomic<std::uint64_t> failures_;
  Atomic<std::uint64_t> last_told_;  // which block; 0: none
  VerityQueue queue_;                // last: its end waits for threads that may use all of the above
};

}  // namespace quire
