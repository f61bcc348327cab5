// What the blocks of host files hold, as far as is known: asked before direct writes, since below a block that holds
// nothing of its own the rest of it has to be written, too. One for all files of a cache; bounded, and the chunk that
// was least recently looked at gives way. Locks: a leaf mutex; the caller asks the host, and holds none of ours then.
//
// What is known stays true because quire alone writes to a file that it has locked for writing, and says so here:
// set_written when bytes have arrived, forget after whatever else may have changed blocks (failed or not). Absent
// blocks are holes or unwritten extents, which differ in nothing that a writer has to know.
//
// The answers of the host come from outside the mutex, so between a load's question and its end_load
//   L1  a write may have been committed: the host's answer may be older. What is known by then stays: end_load fills in
//       unknown blocks alone. begin_load made the chunk before the host was asked, so a commit that came later has
//       left its mark there; one that came earlier, the host has seen.
//   L2  blocks may have been forgotten, after a punch for one: the answer may be from before it, and end_load would
//       bring it back. Each forget gives the chunks that it touches a new generation, and end_load drops what was
//       asked for under another.
//   L3  the chunk may have given way to another, and L1's and L2's marks with it: a chunk that is made again has a new
//       generation, too.
// Whoever asks takes its answer from the load itself, dropped or not: nobody else changes blocks that it has locked,
// and who has locked none asks again under the lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "sync/mutex.h"

namespace quire {

enum class BlockState : std::uint8_t { unknown, absent, written, shared };  // shared: written, and somebody else's, too

// The states of 1,024 blocks, two bits each.
class BlockStates {
 public:
  static constexpr std::uint64_t kCount = 1024;

  BlockState get(std::uint64_t block) const {
    return static_cast<BlockState>(words_[block / kPerWord] >> shift(block) & 3);
  }
  void set(std::uint64_t first, std::uint64_t end, BlockState state);
  void fill_unknown(const BlockStates& from);
  std::uint64_t end_of_run(std::uint64_t block, std::uint64_t end) const;  // the first that differs, or end

 private:
  static constexpr std::uint64_t kPerWord = 32;
  static unsigned shift(std::uint64_t block) { return static_cast<unsigned>(block % kPerWord * 2); }
  std::array<std::uint64_t, kCount / kPerWord> words_{};
};

struct WrittenMapOptions {
  std::size_t max_bytes = 0;  // taken at the first load; too few for a chunk: nothing is kept
  void (*charge)(void* owner, std::size_t bytes) = nullptr;  // told how many it took; holds the mutex
  void* owner = nullptr;
};

class WrittenMap {
  struct Chunk;

 public:
  // One file's part, a member of whatever knows the file. Forget all of it before it goes.
  class File {
    friend class WrittenMap;
    Chunk* chunks_ = nullptr;  // the map's mutex
  };
  struct Run {
    BlockState state;
    std::uint64_t end;  // blocks from the one asked for up to here are alike
  };

  explicit WrittenMap(const WrittenMapOptions& options);
  ~WrittenMap();
  WrittenMap(const WrittenMap&) = delete;
  WrittenMap& operator=(const WrittenMap&) = delete;

  // Not past `end`, nor the chunk.
  Run look(File& file, std::uint64_t block, std::uint64_t end);
  // Before the host is asked for blocks [chunk * BlockStates::kCount, + kCount), and with what it said after. 0: there
  // is nowhere to keep it, and no need to end the load.
  std::uint64_t begin_load(File& file, std::uint64_t chunk);
  // Adds to `states` what is known better (L1).
  void end_load(File& file, std::uint64_t chunk, std::uint64_t generation, BlockStates& states);

  void set_written(File& file, std::uint64_t first, std::uint64_t end);  // blocks [first, end)
  void forget(File& file, std::uint64_t first, std::uint64_t end);

 private:
  bool make_room_locked() REQUIRES(mutex_);
  std::size_t bucket(const File& file, std::uint64_t chunk) const;
  Chunk* find_locked(const File& file, std::uint64_t chunk) REQUIRES(mutex_);
  void touch_locked(Chunk& chunk) REQUIRES(mutex_);
  void forget_in_locked(Chunk& chunk, std::uint64_t first, std::uint64_t end) REQUIRES(mutex_);
  void leave_order_locked(Chunk& chunk) REQUIRES(mutex_);
  void drop_locked(Chunk& chunk) REQUIRES(mutex_);  // to the end that gives way next, nobody's

  static LockClass lock_class_;
  const WrittenMapOptions options_;
  const std::size_t capacity_;  // chunks, and buckets at least as many
  Mutex mutex_{lock_class_};
  bool room_failed_ GUARDED_BY(mutex_) = false;
  std::uint64_t generation_ GUARDED_BY(mutex_) = 0;
  std::size_t buckets_ GUARDED_BY(mutex_) = 0;  // a power of two
  std::unique_ptr<Chunk[]> chunks_ GUARDED_BY(mutex_);
  std::unique_ptr<Chunk*[]> table_ GUARDED_BY(mutex_);
  Chunk* newest_ GUARDED_BY(mutex_) = nullptr;  // order of use
  Chunk* oldest_ GUARDED_BY(mutex_) = nullptr;
};

}  // namespace quire
