#include "sync/workers.h"

#include <gtest/gtest.h>

#include <array>
#include <latch>
#include <memory>
#include <thread>
#include <vector>

#include "sync/atomic.h"

namespace quire {
namespace {

struct Job : Work {
  Atomic<int>* ran = nullptr;
  std::latch* meet = nullptr;
  int order = -1;
};

void count_job(Work& work) {
  Job& job = static_cast<Job&>(work);
  if (job.meet != nullptr) job.meet->arrive_and_wait();
  job.order = job.ran->fetch_add(1, memory_order_acq_rel);
}

TEST(Workers, RunsEverythingBeforeItEnds) {
  constexpr int kThreads = 4, kJobs = 2'000;
  Atomic<int> ran;
  std::vector<Job> jobs(kThreads * kJobs);
  {
    Workers workers(3, "test");
    ASSERT_TRUE(workers.start().ok());
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kJobs; ++i) {
          Job& job = jobs[static_cast<std::size_t>(t * kJobs + i)];
          job.run = &count_job;
          job.ran = &ran;
          workers.submit(job);
          if (i % 64 == 0) std::this_thread::yield();  // some of them find an idle worker
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }
  EXPECT_EQ(ran.load(memory_order_acquire), kThreads * kJobs);
}

// As many at once as there may be threads: fewer, and the meeting never comes together.
TEST(Workers, ThreadsAreStartedWhileAllAreBusy) {
  constexpr int kMost = 4;
  Atomic<int> ran;
  std::latch meet(kMost);
  std::array<Job, kMost> jobs;
  Workers workers(kMost, "test");
  ASSERT_TRUE(workers.start().ok());
  for (Job& job : jobs) {
    job.run = &count_job;
    job.ran = &ran;
    job.meet = &meet;
    workers.submit(job);
  }
  while (ran.load(memory_order_acquire) != kMost) std::this_thread::yield();
}

TEST(Workers, OneRunsInOrder) {
  constexpr std::size_t kJobs = 500;
  Atomic<int> ran;
  std::array<Job, kJobs> jobs;
  {
    Workers workers(1, "test");
    ASSERT_TRUE(workers.start().ok());
    for (Job& job : jobs) {
      job.run = &count_job;
      job.ran = &ran;
      workers.submit(job);
    }
  }
  for (std::size_t i = 0; i < kJobs; ++i) ASSERT_EQ(jobs[i].order, static_cast<int>(i));
}

// What runs may submit, itself too, and may be freed by its run.
TEST(Workers, WorkSubmitsWork) {
  struct Chain : Work {
    Workers* workers;
    Atomic<int>* left;
  };
  Atomic<int> left{1'000};
  Workers workers(2, "test");
  ASSERT_TRUE(workers.start().ok());
  auto chain = std::make_unique<Chain>();
  chain->workers = &workers;
  chain->left = &left;
  chain->run = [](Work& work) {
    Chain& self = static_cast<Chain&>(work);
    Workers& where = *self.workers;
    auto next = std::make_unique<Chain>();
    next->run = self.run;
    next->workers = self.workers;
    next->left = self.left;
    const bool last = self.left->fetch_sub(1, memory_order_acq_rel) == 1;
    delete &self;
    if (!last) where.submit(*next.release());
  };
  workers.submit(*chain.release());
  while (left.load(memory_order_acquire) != 0) std::this_thread::yield();
}

}  // namespace
}  // namespace quire
