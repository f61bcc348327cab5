// What the asynchronous engine owes those beside it: handles that close, memory, the end of the engine. (What callers
// see is tested over the API.)
#include "fs/async.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "fs/file_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr std::size_t kFile = 64 * kPageSize;

// Completes each request before submit() returns, on another thread, and then lets the test do what a program may do
// just there.
class HastyDevice final : public Device {
 public:
  explicit HastyDevice(Device& inner) : inner_(inner) {}
  void execute(std::span<Request* const> batch) override { inner_.execute(batch); }
  void submit(std::span<Request* const> batch) override {
    const std::vector<Request*> all(batch.begin(), batch.end());
    std::thread([&] {
      inner_.execute(all);
      for (Request* request : all) request->done(*request);
    }).join();
    if (const auto then = std::exchange(after, nullptr)) then();
  }
  int flush(bool data_only) override { return inner_.flush(data_only); }

  std::function<void()> after;

 private:
  Device& inner_;
};

// The callback may close the handle while submit() is still on its way out: closing waits for that.
TEST(AsyncEngine, CloseWaitsForWhoSubmits) {
  Watchdog watchdog("a close beside a submit");
  RamDisk disk(4096);
  HastyDevice device(disk.store.memory());
  disk.store.use_device(device);
  TestCache cache(512);
  auto backing = disk.make_file();
  disk.put(*backing, 0, words(kFile, 1, 1, 0), kFile);
  TestFile file(cache.cache, std::move(backing));
  AsyncEngine engine(cache.cache, 8, true, nullptr);
  OpenFile handle;
  file.open(handle);
  std::vector<char> buffer(kFile);
  AsyncRequest request;
  request.file = &handle;
  request.buffer = buffer.data();
  request.count = buffer.size();
  request.done = [](void*, ssize_t) {};
  Atomic<bool> closed;
  std::thread closer;
  device.after = [&] {
    closer = std::thread([&] {
      engine.reap(1, 1);
      engine.finish(handle);
      closed.store(true, memory_order_release);
    });
    while (engine.outstanding() != 0) std::this_thread::yield();  // reaped
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_FALSE(closed.load(memory_order_acquire)) << "submit still uses the handle";
  };
  ASSERT_TRUE(engine.submit(request).ok());
  closer.join();
  EXPECT_TRUE(closed.load(memory_order_acquire));
}

// However many are in flight, what they hold besides the cache's frames is a small part of its memory.
TEST(AsyncEngine, M1_RequestsInFlightHoldLittleMemory) {
  RamDisk disk(4096);
  TestCache cache;
  TestFile file(cache.cache, disk.make_file());
  ASSERT_EQ(file.truncate(std::uint64_t{1} << 30), 0);
  AlignedBytes memory(64 * 1024);
  std::memset(memory.data(), 'm', 64 * 1024);
  AsyncEngine engine(cache.cache, 1024, true, nullptr);
  disk.device.set_plan({.rules = {{.kind = FaultKind::hold}}});
  for (unsigned i = 0; i < 200; ++i) {
    AsyncRequest request;
    request.kind = AsyncRequest::Kind::write;
    request.io_flags = kIoDirect;
    request.file = &file.handle();
    request.buffer = memory.data();
    request.count = 64 * 1024;
    request.offset = std::uint64_t{i} * 256 * 1024 + 512;
    request.done = [](void*, ssize_t result) { EXPECT_EQ(result, 64 * 1024); };
    ASSERT_TRUE(engine.submit(request).ok());
  }
  // Those that are not granted any wait for four threads, which take theirs.
  EXPECT_LE(cache.cache.bounce_bytes(), static_cast<std::int64_t>(6 * PrivateMemory::kMost));
  disk.heal();
  while (engine.outstanding() != 0) {
    disk.device.release_held();
    engine.reap(0, 100);
  }
  EXPECT_EQ(cache.cache.bounce_bytes(), 0);
}

}  // namespace
}  // namespace quire
