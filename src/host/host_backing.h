// Backing: a file or block device of the host. Its block map is the identity (offset on the device = offset in the
// file; the host keeps the real one), its holes read as zeros, and writes fill them. Guarantees: R3, D1.
//
// Attached while a handle is open, detached (no descriptors) while its folios are only kept. Reading comes first;
// `allow_writing` adds descriptors for writing, and the old ones stay until detach, since I/O may be in flight on them.
// Thread safety: Backing's calls from any thread while attached; attach, allow_writing, stop_writing, detach: under the
// file table's lock. What is aligned goes through O_DIRECT, an odd end of the file through the buffered descriptor: the
// file never grows past its end.
#pragma once

#include <cstdint>
#include <memory>

#include "backing/backing.h"
#include "base/bytes.h"
#include "device/file_device.h"
#include "host/host_file.h"
#include "host/written_map.h"
#include "sync/atomic.h"

namespace quire {

struct HostOptions {
  bool use_direct = true;
  bool use_io_uring = true;
  IoStats* stats = nullptr;
  IoThread* io_thread = nullptr;
  WrittenMap* written_map = nullptr;  // outlives the backing; null: the host is asked each time
};

class HostBacking final : public Backing {
 public:
  explicit HostBacking(const HostOptions& options) : options_(options) {}
  ~HostBacking() override { detach(); }

  // Takes the descriptors and the lock. EBUSY: another cache has it.
  Status attach(HostDescriptors files, bool writable);
  Status allow_writing(HostDescriptors files);  // of the same file, opened for writing
  void stop_writing();                          // everything is written back: others may write again
  void detach();                                // no I/O is in flight
  void close_in_child();  // after fork: drops the descriptors, and with them nothing of the parent's

  bool attached() const { return reading_.open(); }
  bool may_write() const { return writing_now_; }
  bool block_device() const { return properties_.block_device; }
  int descriptor() const { return reading_.buffered; }  // while attached
  Result<HostIdentity> identity() const { return identify_host_file(reading_.buffered); }

  Device& device() override;
  std::uint64_t size() const override { return size_.load(memory_order_acquire); }
  std::uint64_t max_size() const override { return properties_.max_size; }
  bool fixed_size() const override { return properties_.block_device; }
  unsigned block_size() const override;
  unsigned write_alignment() const override { return 1; }
  unsigned direct_alignment() const override { return file_device().direct_alignment(); }
  Result<Extent> map(std::uint64_t offset, std::uint64_t length) override;
  Result<Extent> map_exact(std::uint64_t offset, std::uint64_t length) override;  // host_extents.cc
  Result<Extent> prepare(std::uint64_t offset, std::uint64_t length) override;
  Status commit(std::uint64_t offset, std::uint64_t length, std::uint64_t end_of_file) override;
  void cut_back(std::uint64_t size) override;
  void write_failed(std::uint64_t offset, std::uint64_t length) override { forget(offset, offset + length); }
  bool unwritten_extents() const override { return properties_.unwritten_extents; }  // host_holes.cc
  bool begin_direct(DirectHold& hold, bool wait) override;
  void end_direct(DirectHold& hold) override;
  Status write_through(std::uint64_t offset, std::span<const iovec> buffers) override;
  Status set_size(std::uint64_t size) override;

  // host_ranges.cc: the host's own calls, with its errnos. A block device can punch and zero; the rest is EOPNOTSUPP.
  Status allocate(std::uint64_t offset, std::uint64_t length, bool keep_size) override;
  Status punch(std::uint64_t offset, std::uint64_t length) override;
  Status zero(std::uint64_t offset, std::uint64_t length, bool keep_size) override;
  Status unshare(std::uint64_t offset, std::uint64_t length) override;
  Status collapse(std::uint64_t offset, std::uint64_t length) override;
  Status insert(std::uint64_t offset, std::uint64_t length) override;
  Status clone(Backing& source, std::uint64_t from, std::uint64_t offset, std::uint64_t length) override;
  Result<std::uint64_t> dedupe(Backing& source, std::uint64_t from, std::uint64_t offset,
                               std::uint64_t length) override;
  Status exchange(Backing& other, std::uint64_t at, std::uint64_t offset, std::uint64_t length) override;
  Result<std::uint64_t> seek_data(std::uint64_t offset) override;
  Result<std::uint64_t> seek_hole(std::uint64_t offset) override;

  Status sync(bool data_only) override;
  Status stat(struct stat* out) override;

 private:
  // The device of a file on a host without unwritten extents.
  class HoleDevice final : public Device {
   public:
    explicit HoleDevice(HostBacking& backing) : backing_(backing) {}
    void execute(std::span<Request* const> batch) override;
    void submit(std::span<Request* const> batch) override;
    void submit_to_collect(AioQueue& queue, std::span<Request* const> batch) override;
    int flush(bool data_only) override { return backing_.file_device().flush(data_only); }

   private:
    HostBacking& backing_;
  };

  FileDevice& file_device() const { return *device_.load(memory_order_acquire); }
  bool may_fill_hole(const Request& request);
  void fill_holes(std::span<Request* const> batch);
  std::unique_ptr<FileDevice> make_device(HostDescriptors& files, bool writable) const;
  int current_fd() const { return current_fd_.load(memory_order_acquire); }
  int changing_fd() const;
  Status change_and_grow(int mode, std::uint64_t offset, std::uint64_t length, bool keep_size, const char* operation);
  Status shift(int mode, std::uint64_t offset, std::uint64_t length, const char* operation);
  void grow_to(std::uint64_t end);
  void follow_growth(std::uint64_t end);
  void follow_size();
  // Blocks that hold a byte of [offset, end) may have changed. host_extents.cc.
  void forget(std::uint64_t offset, std::uint64_t end);
  Status load_states(std::uint64_t chunk, BlockStates* states);

  const HostOptions options_;
  HostProperties properties_;
  Status claim(int fd);  // of a block device, before it is written to
  void release_claim();

  HostDescriptors reading_, writing_;  // writing_: only if reading_ was not opened for writing
  bool reading_can_write_ = false;
  bool writing_now_ = false;
  int claim_fd_ = -1;
  std::unique_ptr<FileDevice> reading_device_, writing_device_;
  Atomic<FileDevice*> device_;
  Atomic<int> current_fd_{-1};    // writing_'s, else reading_'s
  Atomic<std::uint64_t> size_;    // of the host's file, as our own operations left it
  Atomic<bool> tells_no_blocks_;  // the host does not say where data are
  WrittenMap::File written_;
  HoleLock holes_;
  HoleDevice hole_device_{*this};
};

}  // namespace quire
