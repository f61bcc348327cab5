// What the device tests share: buffers of any alignment, temporary files, and waiting for submitted requests.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "device/device.h"
#include "sync/atomic.h"
#include "sync/futex.h"

namespace quire::testing_support {

// Page-aligned memory, zeroed.
class Buffer {
 public:
  explicit Buffer(std::size_t size) : size_(size) {
    const std::size_t bytes = round_up(size + 1, kPageSize);
    data_.reset(static_cast<unsigned char*>(std::aligned_alloc(kPageSize, bytes)));
    std::memset(data_.get(), 0, bytes);
  }
  unsigned char* data() { return data_.get(); }
  std::size_t size() const { return size_; }
  unsigned char& operator[](std::size_t i) { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::size_t size_;
  std::unique_ptr<unsigned char, Free> data_;
};

// Bytes that name their writer: each 8-byte word is (writer, its number in the file).
inline unsigned char pattern_byte(std::uint64_t writer, std::uint64_t offset) {
  const std::uint64_t word = (writer << 40) ^ (offset >> 3);
  return static_cast<unsigned char>(word >> (8 * (offset & 7)));
}
inline void fill_pattern(unsigned char* to, std::size_t size, std::uint64_t writer, std::uint64_t offset) {
  for (std::size_t i = 0; i < size; ++i) to[i] = pattern_byte(writer, offset + i);
}

// A file that is gone when the test is, opened with and (where the host takes it) without O_DIRECT.
class TempFile {
 public:
  explicit TempFile(const std::string& directory) {
    std::string name = directory + "/quire_device_XXXXXX";
    buffered_ = mkostemp(name.data(), O_CLOEXEC);
    if (buffered_ < 0) return;
    direct_ = open(name.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    unlink(name.c_str());
  }
  ~TempFile() {
    if (direct_ >= 0) close(direct_);
    if (buffered_ >= 0) close(buffered_);
  }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;
  int buffered() const { return buffered_; }
  int direct() const { return direct_; }
  std::uint64_t size() const {
    struct stat st;
    return fstat(buffered_, &st) == 0 ? static_cast<std::uint64_t>(st.st_size) : 0;
  }

 private:
  int buffered_ = -1;
  int direct_ = -1;
};

// One request with its iovecs.
struct Io {
  Request request;
  std::vector<iovec> vectors;

  Io() = default;
  Io(IoOp op, std::uint64_t offset, void* data, std::size_t size) {
    vectors.push_back({data, size});
    aim(op, offset);
  }
  void aim(IoOp op, std::uint64_t offset) {
    request.op = op;
    request.offset = offset;
    request.buffers = vectors;
    request.result = INT64_MIN;
  }
};

inline std::int64_t run(Device& device, IoOp op, std::uint64_t offset, void* data, std::size_t size) {
  Io io(op, offset, data, size);
  Request* const batch[] = {&io.request};
  device.execute(batch);
  return io.request.result;
}

// Counts completions down; outlives them.
class Completions {
 public:
  explicit Completions(std::uint32_t count) : left_(count) {}
  void attach(Request& request) {
    request.context = this;
    request.done = [](Request& finished) { static_cast<Completions*>(finished.context)->one_done(); };
  }
  // Release: what the completion wrote is seen by wait(). The word may die as soon as it is 0, so nothing follows.
  void one_done() {
    if (left_.fetch_sub(1, memory_order_release) == 1) futex_wake(left_, kWakeAll);
  }
  void wait() {
    for (;;) {
      const std::uint32_t left = left_.load(memory_order_acquire);
      if (left == 0) return;
      futex_wait(left_, left, 100'000'000);
    }
  }
  std::uint32_t left() const { return left_.load(memory_order_acquire); }

 private:
  Atomic<std::uint32_t> left_;
};

inline void submit_and_wait(Device& device, std::span<Request* const> batch) {
  Completions completions(static_cast<std::uint32_t>(batch.size()));
  for (Request* request : batch) completions.attach(*request);
  device.submit(batch);
  completions.wait();
}

}  // namespace quire::testing_support
