// Device over a host file or block device. execute() goes through the calling thread's ring or a system call, submit()
// through the IoThread; both use O_DIRECT where a request's offset and buffers are multiples of the alignment that it
// needs, unless Request::path says otherwise.
// Locks: none.
#pragma once

#include "device/device.h"
#include "device/io_thread.h"
#include "device/transfer.h"

namespace quire {

struct FileDeviceOptions {
  int direct_fd = -1;    // opened with O_DIRECT; -1: everything through buffered_fd
  int buffered_fd = -1;  // the same file without; both stay the owner's, who closes them after the device is gone
  unsigned direct_alignment = 512;  // a power of two
  bool use_io_uring = true;
  IoStats* stats = nullptr;       // outlives the device
  IoThread* io_thread = nullptr;  // for submit(); outlives the device
};

class FileDevice final : public Device {
 public:
  explicit FileDevice(const FileDeviceOptions& options);

  void execute(std::span<Request* const> batch) override;
  void submit(std::span<Request* const> batch) override { send(nullptr, batch); }
  void submit_to_collect(AioQueue& queue, std::span<Request* const> batch) override { send(&queue, batch); }
  int flush(bool data_only) override;
  // Multiples that a direct_only request's offset, lengths and memory must have; 0: there is no O_DIRECT here.
  unsigned direct_alignment() const { return target_.direct_fd >= 0 ? target_.direct_alignment : 0; }

 private:
  void send(AioQueue* queue, std::span<Request* const> batch);
  bool is_better_plain(const Request& request, std::size_t batch_size) const;

  const FileTarget target_;
  IoThread* const io_thread_;
};

}  // namespace quire
