// One fill of a verified file: the units of the tree that it needs, their reads, and the verdict. See verity.h.
// Thread safety: one thread at a time; its completions touch what they name only.
#pragma once

#include <bitset>
#include <memory>
#include <vector>

#include "cache/fill.h"
#include "fs/verity.h"

namespace quire {

class VerityWindow final : public FillCheck {
 public:
  explicit VerityWindow(FileVerity& file);
  ~VerityWindow() override;

  Status begin(FillBatch& batch);
  void detach_locks() override;
  bool has_reads() const override { return !reads_.empty(); }
  void send(void (*ended)(void*), void* argument) override;
  bool verify(FillBatch& batch, bool wait) override;
  bool good(std::size_t folio) const override { return good_[folio]; }
  int errnum() const override { return errnum_; }

 private:
  enum class State : std::uint8_t { wanted, ours, others, apart, good, bad };

  // Of the tree.
  struct Unit {
    std::uint64_t index;  // in the sidecar
    State state = State::wanted;
    Folio* folio = nullptr;  // referenced; locked if ours
    char* memory = nullptr;  // if apart
    bool read_well = true;
    std::uint64_t good_blocks = 0;  // a bit for each; a unit is good if all are
    const char* bytes() const { return memory != nullptr ? memory : folio->bytes(); }
  };
  // Of the data, where units are larger than pages: one that the batch has only a part of is read apart as a whole.
  struct Part {
    std::uint64_t index;
    char* memory;
    bool read_well = true;
  };
  struct Read {
    Request request;
    iovec vector;
    bool of_data;
    std::size_t which;  // unit or part
  };

  Status need_tree(std::uint64_t first_byte, std::uint64_t end_byte);
  void need_unit_of(std::uint64_t tree_byte, std::size_t* left);
  bool take_if_good(Unit& unit);
  Status acquire();
  Status acquire(Unit& unit, FrameReservation& frames);
  bool adopt(Unit& unit, Folio& folio);
  Status set_apart(Unit& unit);
  Status need_parts(FillBatch& batch);
  Status plan(Backing& backing, bool of_data, std::size_t which, std::uint64_t offset, char* memory);
  Result<char*> allocate();
  void release(Unit& unit);

  // verity_verdict.cc
  void read_at_completion();
  void read_now(std::size_t unit);
  void look_at_reads(std::size_t first);
  bool settle_tree(verity::BlockHasher* hasher, bool wait);
  bool settle_others(std::size_t i, verity::BlockHasher* hasher, bool wait);
  void settle_read(Unit& unit, verity::BlockHasher* hasher);
  bool unit_is_good(Unit& unit, verity::BlockHasher& hasher);
  void abandon(Unit& unit);
  void abandon_all();
  void tell_settled();
  const std::uint8_t* digest_at(const verity::TreeGeometry::Place& place) const;
  bool verify_now(FillBatch& batch, bool wait);
  bool block_is_good(std::uint64_t block, const char* bytes, bool hole, verity::BlockHasher& hasher);
  bool folio_is_good(const FillBatch& batch, const Folio& folio, verity::BlockHasher& hasher);
  std::size_t settle_unit(FillBatch& batch, std::size_t i, verity::BlockHasher& hasher);
  void failed(int errnum);

  std::uint64_t unit_bytes() const { return file_.unit_; }
  Mapping& tree() const { return file_.tree_; }

  FileVerity& file_;
  Device* data_device_ = nullptr;
  std::vector<Unit> units_;  // by index
  std::size_t settled_ = 0;  // of units_, the first so many are good or bad
  std::vector<Part> parts_;  // by index
  std::vector<std::unique_ptr<Read>> reads_;
  std::vector<Request*> requests_;
  Atomic<std::uint32_t> left_;
  void (*ended_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool detached_ = false;   // locks
  std::size_t looked_ = 0;  // at what the first so many reads brought
  bool acquired_ = false;
  bool settled_any_ = false;  // hashes that others may wait for, since they were last told
  int errnum_ = 0;
  std::bitset<FillBatch::kMaxFolios> good_;
};

}  // namespace quire
