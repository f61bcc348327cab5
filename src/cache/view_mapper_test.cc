// The system calls of views, one by one: what each shows, and what it tells.
#include "cache/view_mapper.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <memory>
#include <thread>

#include "cache/folio_pool.h"
#include "cache/view_table.h"

namespace quire {
namespace {

class ViewMapperTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kPages = 16;
  static constexpr std::uint64_t kBytes = kPages * kPageSize;

  void SetUp() override {
    ASSERT_TRUE(pool_.create(64).ok());
    for (std::uint64_t page = 0; page < 64; ++page) pool_.arena()[page * kPageSize] = static_cast<char>('A' + page);
    mapper_ = make_view_mapper(pool_).take();
    base_ = take_view_addresses(kBytes).take();
    ASSERT_TRUE(mapper_->blank(base_, kBytes, true).ok());
  }
  void TearDown() override {
    stop();
    mapper_->unmap(base_, kBytes);
    give_view_addresses(base_, kBytes);
  }
  // Serves faults by `serve` until stop().
  template <typename Serve>
  void start(Serve serve) {
    thread_ = std::thread([this, serve] {
      while (!stop_) {
        ViewFault fault;
        if (mapper_->wait(&fault, -1)) serve(fault);
      }
    });
  }
  void stop() {
    stop_ = true;
    mapper_->interrupt();
    if (thread_.joinable()) thread_.join();
  }
  const char* frame(std::uint64_t number) { return pool_.arena().data() + number * kPageSize; }
  volatile char& at(std::uint64_t page) { return base_[page * kPageSize]; }
  void place(std::uint64_t page, std::uint64_t first_frame, std::uint64_t pages, bool writable) {
    char* const address = base_ + page * kPageSize;
    ASSERT_TRUE(mapper_->place(address, frame(first_frame), pages * kPageSize, writable).ok());
    ASSERT_TRUE(mapper_->track(address, pages * kPageSize, writable).ok());
  }

  FolioPool pool_;
  std::unique_ptr<ViewMapper> mapper_;
  char* base_ = nullptr;
  std::thread thread_;
  std::atomic<bool> stop_{false};
};

TEST_F(ViewMapperTest, ReadOnlyPagesComeAndGo) {
  std::atomic<int> faults{0};
  start([&](const ViewFault& fault) {
    ++faults;
    const auto page = static_cast<std::uint64_t>(fault.page - base_) / kPageSize;
    place(page, page + 3, 1, false);
    mapper_->wake(fault.page, kPageSize);
  });
  place(0, 20, 4, false);
  EXPECT_EQ(at(0), 'A' + 20);
  EXPECT_EQ(at(3), 'A' + 23);
  EXPECT_EQ(faults, 0);
  EXPECT_EQ(at(5), 'A' + 8);
  EXPECT_EQ(faults, 1);
  mapper_->take(base_, kBytes);
  EXPECT_EQ(at(0), 'A' + 3);  // served anew, not what was there
  EXPECT_EQ(at(5), 'A' + 8);
  EXPECT_EQ(faults, 3);
  ASSERT_TRUE(mapper_->reset(base_, 8 * kPageSize, true).ok());
  EXPECT_EQ(at(1), 'A' + 4);
  EXPECT_EQ(faults, 4);
  // Memory that is gone from under it, while it is not present, is no zeros.
  mapper_->take(base_, kBytes);
  ASSERT_EQ(madvise(pool_.arena().data(), 64 * kPageSize, MADV_REMOVE), 0);
  pool_.arena()[8 * kPageSize] = 'z';
  EXPECT_EQ(at(5), 'z');
  EXPECT_EQ(faults, 5);
}

TEST_F(ViewMapperTest, StoresAreFaultsWhileProtected) {
  std::atomic<int> stores{0};
  start([&](const ViewFault& fault) {
    EXPECT_TRUE(fault.is_store);
    EXPECT_TRUE(fault.is_protected);
    ++stores;
    EXPECT_TRUE(mapper_->protect(fault.page, kPageSize, false));
  });
  place(0, 10, 4, true);
  EXPECT_TRUE(mapper_->show(base_, 4 * kPageSize));
  EXPECT_EQ(at(2), 'A' + 12);
  EXPECT_EQ(stores, 0);
  at(2) = 'x';
  EXPECT_EQ(stores, 1);
  at(2) = 'y';
  EXPECT_EQ(stores, 1);
  EXPECT_EQ(frame(12)[0], 'y');
  EXPECT_TRUE(mapper_->protect(base_, 4 * kPageSize, true));
  at(2) = 'z';
  EXPECT_EQ(stores, 2);
  EXPECT_EQ(at(3), 'A' + 13);
}

// Between a reset's mremap and the reading of its event nothing can be shown, and nothing begins to be.
TEST_F(ViewMapperTest, ShowsAndResetsExcludeEachOther) {
  std::atomic<bool> done{false};
  const auto reset = [&] {
    EXPECT_TRUE(mapper_->reset(base_ + 8 * kPageSize, 4 * kPageSize, true).ok());
    done = true;
  };
  ASSERT_TRUE(mapper_->begin_show(false));
  std::thread first(reset);
  place(0, 10, 2, true);
  EXPECT_TRUE(mapper_->show(base_, 2 * kPageSize));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(done);                        // it waits for us
  EXPECT_FALSE(mapper_->begin_show(false));  // nobody else begins
  mapper_->end_show();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(done);  // it waits for the reader
  EXPECT_FALSE(mapper_->begin_show(false));
  start([](const ViewFault&) {});
  ASSERT_TRUE(mapper_->begin_show(true));
  first.join();
  place(2, 12, 2, true);
  EXPECT_TRUE(mapper_->show(base_ + 2 * kPageSize, 2 * kPageSize));
  mapper_->end_show();
}

// What is stored to before it is protected is told.
TEST_F(ViewMapperTest, StoresBeforeTrackingAreTold) {
  ASSERT_TRUE(mapper_->place(base_, frame(10), 8 * kPageSize, true).ok());
  at(2) = 'x';
  ASSERT_TRUE(mapper_->track(base_, 8 * kPageSize, true).ok());
  EXPECT_FALSE(mapper_->show(base_, 8 * kPageSize));
  EXPECT_EQ(at(7), 'A' + 17);  // the rest is there
  at(2) = 'y';                 // and open
  EXPECT_EQ(frame(12)[0], 'y');
}

}  // namespace
}  // namespace quire
