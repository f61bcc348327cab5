// Device in memory: a sparse array of bytes that grows with what is written, for tests and for the ram backing. Any
// thread may call anything at any time; overlapping reads and writes may mix, as on a disk. Locks: the delay thread's.
#pragma once

#include <cstdint>
#include <memory>

#include "device/delay_thread.h"
#include "device/device.h"
#include "device/io_stats.h"
#include "sync/atomic.h"

namespace quire {

struct MemoryDeviceOptions {
  std::uint64_t size = 0;                           // at first; bytes never written read as zero
  std::uint64_t max_size = std::uint64_t{1} << 36;  // writes past it fail with ENOSPC
  std::int64_t latency_ns = 0;                      // of every batch
  unsigned direct_alignment = 512;                  // of direct_only requests, else -EINVAL; 0: takes none
  IoStats* stats = nullptr;                         // may be null
};

class MemoryDevice final : public Device {
 public:
  explicit MemoryDevice(const MemoryDeviceOptions& options = {});
  ~MemoryDevice() override;

  void execute(std::span<Request* const> batch) override;
  // `done` runs on a thread of the device, after the latency, in order of submission.
  void submit(std::span<Request* const> batch) override;
  int flush(bool data_only) override;

  unsigned direct_alignment() const { return options_.direct_alignment; }
  std::uint64_t size() const { return size_.load(memory_order_acquire); }
  void grow(std::uint64_t size);  // never shrinks

  // Straight to the bytes, for tests and for the ram backing: no latency, not counted. peek past the size gives zeros.
  void peek(std::uint64_t offset, void* to, std::size_t length) const;
  int poke(std::uint64_t offset, const void* from, std::size_t length);  // 0, ENOSPC or ENOMEM
  int fill(std::uint64_t offset, std::size_t length, unsigned char value);

 private:
#ifdef QUIRE_SIM
  static constexpr unsigned kChunkShift = 14;  // made anew for each of many schedules
#else
  static constexpr unsigned kChunkShift = 20;
#endif
  static constexpr std::uint64_t kChunkSize = std::uint64_t{1} << kChunkShift;
  struct Chunk;

  static void run_submitted(Request& request, void* owner);
  void run(Request& request);
  bool refuses(const Request& request) const;
  std::int64_t read(const Request& request) const;
  std::int64_t write(const Request& request);
  Chunk* chunk(std::uint64_t index) const;
  Chunk* chunk_for_write(std::uint64_t index);  // null: no memory
  void sleep() const;

  const MemoryDeviceOptions options_;
  const std::uint64_t chunk_count_;
  // Set once each, by whoever writes there first.
  const std::unique_ptr<Atomic<Chunk*>[]> chunks_;
  Atomic<std::uint64_t> size_;
  DelayThread delay_{"quire-memory"};
};

}  // namespace quire
