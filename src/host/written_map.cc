// Chunks of block states, found by a hash of file and chunk, and in order of their last use. See written_map.h.
#include "host/written_map.h"

#include <algorithm>
#include <bit>
#include <new>

#include "base/check.h"

namespace quire {

struct WrittenMap::Chunk {
  File* file = nullptr;  // null: nobody's
  std::uint64_t number = 0;
  std::uint64_t generation = 0;
  Chunk* next_in_bucket = nullptr;
  Chunk* newer = nullptr;
  Chunk* older = nullptr;
  Chunk* previous_of_file = nullptr;
  Chunk* next_of_file = nullptr;
  BlockStates states;
};

LockClass WrittenMap::lock_class_("written map");

void BlockStates::set(std::uint64_t first, std::uint64_t end, BlockState state) {
  DCHECK(end <= kCount);
  while (first < end) {
    const std::uint64_t stop = std::min(end, (first / kPerWord + 1) * kPerWord);
    const std::uint64_t above = UINT64_MAX << shift(first);
    const std::uint64_t mask = stop % kPerWord == 0 ? above : above & ~(UINT64_MAX << shift(stop));
    std::uint64_t& word = words_[first / kPerWord];
    word = (word & ~mask) | (static_cast<std::uint64_t>(state) * 0x5555'5555'5555'5555 & mask);
    first = stop;
  }
}

void BlockStates::fill_unknown(const BlockStates& from) {
  for (std::size_t i = 0; i < words_.size(); ++i) {
    const std::uint64_t known = (words_[i] | words_[i] >> 1) & 0x5555'5555'5555'5555;
    words_[i] |= from.words_[i] & ~(known * 3);
  }
}

std::uint64_t BlockStates::end_of_run(std::uint64_t block, std::uint64_t end) const {
  const std::uint64_t alike = static_cast<std::uint64_t>(get(block)) * 0x5555'5555'5555'5555;
  while (block < end) {
    const std::uint64_t differs = (words_[block / kPerWord] ^ alike) & UINT64_MAX << shift(block);
    block = block / kPerWord * kPerWord;
    if (differs != 0) return std::min(end, block + static_cast<std::uint64_t>(std::countr_zero(differs)) / 2);
    block += kPerWord;
  }
  return end;
}

WrittenMap::WrittenMap(const WrittenMapOptions& options)
    : options_(options), capacity_(options.max_bytes / (sizeof(Chunk) + 2 * sizeof(Chunk*))) {}

WrittenMap::~WrittenMap() {
  for (const Chunk* chunk = newest_; chunk != nullptr; chunk = chunk->older) CHECK(chunk->file == nullptr);
}

bool WrittenMap::make_room_locked() {
  if (chunks_ != nullptr) return true;
  if (capacity_ == 0 || room_failed_) return false;
  buckets_ = std::bit_ceil(capacity_);
  chunks_.reset(new (std::nothrow) Chunk[capacity_]);
  table_.reset(new (std::nothrow) Chunk*[buckets_]());
  room_failed_ = chunks_ == nullptr || table_ == nullptr;
  if (room_failed_) {
    chunks_.reset();
    return false;
  }
  if (options_.charge != nullptr)
    options_.charge(options_.owner, capacity_ * sizeof(Chunk) + buckets_ * sizeof(Chunk*));
  for (std::size_t i = 0; i < capacity_; ++i) {
    Chunk& chunk = chunks_[i];
    chunk.older = i + 1 < capacity_ ? &chunks_[i + 1] : nullptr;
    chunk.newer = i > 0 ? &chunks_[i - 1] : nullptr;
  }
  newest_ = &chunks_[0];
  oldest_ = &chunks_[capacity_ - 1];
  return true;
}

std::size_t WrittenMap::bucket(const File& file, std::uint64_t chunk) const {
  const std::uint64_t hash = (reinterpret_cast<std::uintptr_t>(&file) + chunk * 0x9e37'79b9) * 0x9e37'79b9'7f4a'7c15;
  return hash >> 20;
}

WrittenMap::Chunk* WrittenMap::find_locked(const File& file, std::uint64_t number) {
  if (table_ == nullptr) return nullptr;
  Chunk* chunk = table_[bucket(file, number) & (buckets_ - 1)];
  while (chunk != nullptr && (chunk->file != &file || chunk->number != number)) chunk = chunk->next_in_bucket;
  return chunk;
}

void WrittenMap::leave_order_locked(Chunk& chunk) {
  (chunk.newer != nullptr ? chunk.newer->older : newest_) = chunk.older;
  (chunk.older != nullptr ? chunk.older->newer : oldest_) = chunk.newer;
}

void WrittenMap::touch_locked(Chunk& chunk) {
  if (newest_ == &chunk) return;
  leave_order_locked(chunk);
  chunk.newer = nullptr;
  chunk.older = newest_;
  newest_->newer = &chunk;
  newest_ = &chunk;
}

void WrittenMap::drop_locked(Chunk& chunk) {
  Chunk** link = &table_[bucket(*chunk.file, chunk.number) & (buckets_ - 1)];
  while (*link != &chunk) link = &(*link)->next_in_bucket;
  *link = chunk.next_in_bucket;
  (chunk.previous_of_file != nullptr ? chunk.previous_of_file->next_of_file : chunk.file->chunks_) = chunk.next_of_file;
  if (chunk.next_of_file != nullptr) chunk.next_of_file->previous_of_file = chunk.previous_of_file;
  chunk.file = nullptr;
  if (oldest_ == &chunk) return;
  leave_order_locked(chunk);
  chunk.older = nullptr;
  chunk.newer = oldest_;
  oldest_->older = &chunk;
  oldest_ = &chunk;
}

WrittenMap::Run WrittenMap::look(File& file, std::uint64_t block, std::uint64_t end) {
  const std::uint64_t start = block / BlockStates::kCount * BlockStates::kCount;
  MutexLock lock(mutex_);
  Chunk* const chunk = find_locked(file, block / BlockStates::kCount);
  if (chunk == nullptr) return {BlockState::unknown, block + 1};
  touch_locked(*chunk);
  const std::uint64_t inside = std::min(end - start, BlockStates::kCount);
  return {chunk->states.get(block - start), start + chunk->states.end_of_run(block - start, inside)};
}

std::uint64_t WrittenMap::begin_load(File& file, std::uint64_t number) {
  MutexLock lock(mutex_);
  if (!make_room_locked()) return 0;
  Chunk* chunk = find_locked(file, number);
  if (chunk == nullptr) {
    chunk = oldest_;
    if (chunk->file != nullptr) drop_locked(*chunk);
    Chunk*& head = table_[bucket(file, number) & (buckets_ - 1)];
    chunk->file = &file;
    chunk->number = number;
    chunk->generation = ++generation_;
    chunk->next_in_bucket = head;
    chunk->previous_of_file = nullptr;
    chunk->next_of_file = file.chunks_;
    chunk->states = BlockStates();
    head = chunk;
    if (file.chunks_ != nullptr) file.chunks_->previous_of_file = chunk;
    file.chunks_ = chunk;
  }
  touch_locked(*chunk);
  return chunk->generation;
}

void WrittenMap::end_load(File& file, std::uint64_t number, std::uint64_t generation, BlockStates& states) {
  MutexLock lock(mutex_);
  Chunk* const chunk = find_locked(file, number);
  if (chunk == nullptr || chunk->generation != generation) return;  // L2, L3
  chunk->states.fill_unknown(states);                               // L1
  states = chunk->states;
}

void WrittenMap::set_written(File& file, std::uint64_t first, std::uint64_t end) {
  MutexLock lock(mutex_);
  while (first < end && file.chunks_ != nullptr) {
    const std::uint64_t number = first / BlockStates::kCount, start = number * BlockStates::kCount;
    const std::uint64_t stop = std::min(end, start + BlockStates::kCount);
    if (Chunk* const chunk = find_locked(file, number)) {
      chunk->states.set(first - start, stop - start, BlockState::written);
    }
    first = stop;
  }
}

void WrittenMap::forget_in_locked(Chunk& chunk, std::uint64_t first, std::uint64_t end) {
  const std::uint64_t start = chunk.number * BlockStates::kCount, stop = start + BlockStates::kCount;
  if (first >= stop || end <= start) return;
  if (first <= start && end >= stop) return drop_locked(chunk);
  chunk.states.set(std::max(first, start) - start, std::min(end, stop) - start, BlockState::unknown);
  chunk.generation = ++generation_;  // L2
}

void WrittenMap::forget(File& file, std::uint64_t first, std::uint64_t end) {
  constexpr std::uint64_t kFew = 16;  // more chunks are not looked up one by one
  if (first >= end) return;
  MutexLock lock(mutex_);
  if (const std::uint64_t number = first / BlockStates::kCount; (end - 1) / BlockStates::kCount - number < kFew) {
    for (std::uint64_t n = number; n <= (end - 1) / BlockStates::kCount; ++n) {
      if (Chunk* const chunk = find_locked(file, n)) forget_in_locked(*chunk, first, end);
    }
    return;
  }
  Chunk* next = nullptr;
  for (Chunk* chunk = file.chunks_; chunk != nullptr; chunk = next) {
    next = chunk->next_of_file;
    forget_in_locked(*chunk, first, end);
  }
}

}  // namespace quire
