#include "sync/rcu.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "sync/atomic.h"

namespace quire {
namespace {

constexpr std::uint64_t kAlive = 0x1111'2222'3333'4444, kDead = 0xdead'dead'dead'dead;

struct Object : RcuHead {
  std::uint64_t state = kAlive;
  std::uint64_t generation = 0;
};

Atomic<std::uint64_t> freed_objects;

void free_object(RcuHead* head) {
  auto* object = static_cast<Object*>(head);
  EXPECT_EQ(object->state, kAlive) << "freed twice";
  object->state = kDead;  // what a late reader finds, if the memory is not yet used again
  delete object;
  freed_objects.fetch_add(1, memory_order_relaxed);
}

// Readers follow the current object while a writer replaces and retires it, and two threads free.
TEST(Rcu, RetiredObjectOutlivesEverySection) {
  constexpr int kReaders = 3, kReplacements = 5'000;
  Atomic<Object*> current(new Object);
  Atomic<bool> stop;
  Atomic<int> broken;
  std::vector<std::thread> threads;
  for (int t = 0; t < kReaders; ++t) {
    threads.emplace_back([&] {
      while (!stop.load(memory_order_relaxed)) {
        RcuReadLock outer;
        const Object* object = current.load(memory_order_acquire);
        const std::uint64_t generation = object->generation;
        {
          RcuReadLock inner;
          if (object->state != kAlive) broken.store(1, memory_order_relaxed);
        }
        for (int i = 0; i < 20; ++i) cpu_relax();
        if (object->state != kAlive) broken.store(2, memory_order_relaxed);
        if (object->generation != generation) broken.store(3, memory_order_relaxed);
      }
    });
  }
  threads.emplace_back([&] {
    while (!stop.load(memory_order_relaxed)) {
      rcu_drain(16);
      std::this_thread::yield();
    }
  });
  const std::uint64_t freed_before = freed_objects.load(memory_order_relaxed);
  for (int i = 1; i <= kReplacements; ++i) {
    auto* next = new Object;
    next->generation = static_cast<std::uint64_t>(i);
    rcu_retire(current.exchange(next, memory_order_acq_rel), free_object);
    if (i % 64 == 0) rcu_drain(32);
    if (i % 512 == 0) rcu_synchronize();
  }
  stop.store(true, memory_order_relaxed);
  for (auto& thread : threads) thread.join();
  rcu_drain();
  EXPECT_EQ(broken.load(memory_order_relaxed), 0);
  EXPECT_EQ(freed_objects.load(memory_order_relaxed) - freed_before, std::uint64_t{kReplacements});
  delete current.load(memory_order_relaxed);
}

TEST(Rcu, GracePeriodWaitsForOpenSection) {
  Atomic<int> stage;  // 0: no section yet, 1: inside, 2: about to leave
  std::thread reader([&] {
    RcuReadLock guard;
    stage.store(1, memory_order_release);
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    stage.store(2, memory_order_relaxed);
  });
  while (stage.load(memory_order_acquire) == 0) std::this_thread::yield();
  rcu_synchronize();
  EXPECT_EQ(stage.load(memory_order_relaxed), 2);
  reader.join();
}

TEST(Rcu, SectionsNest) {
  EXPECT_FALSE(rcu_in_read_section());
  rcu_read_lock();
  rcu_read_lock();
  rcu_read_unlock();
  EXPECT_TRUE(rcu_in_read_section());
  rcu_read_unlock();
  EXPECT_FALSE(rcu_in_read_section());
}

TEST(Rcu, DrainKeepsUpToTheLimit) {
  rcu_drain();
  const std::uint64_t before = freed_objects.load(memory_order_relaxed);
  for (int i = 0; i < 3; ++i) rcu_retire(new Object, free_object);
  rcu_drain(3);
  EXPECT_EQ(freed_objects.load(memory_order_relaxed), before);
  rcu_drain(2);
  EXPECT_EQ(freed_objects.load(memory_order_relaxed), before + 3);
}

// Whatever one thread retired is free when its own drain returns, though another may have taken it.
TEST(Rcu, DrainWaitsForOtherDrainers) {
  struct Counted : RcuHead {
    Atomic<int>* left = nullptr;
  };
  Atomic<bool> start;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      Atomic<int> left;
      while (!start.load(memory_order_relaxed)) std::this_thread::yield();
      for (int i = 0; i < 1'000; ++i) {
        left.store(3, memory_order_relaxed);
        for (int n = 0; n < 3; ++n) {
          auto* object = new Counted;
          object->left = &left;
          rcu_retire(object, [](RcuHead* head) {
            auto* counted = static_cast<Counted*>(head);
            std::this_thread::yield();  // another drainer passes by
            counted->left->fetch_sub(1, memory_order_release);
            delete counted;
          });
        }
        rcu_drain();
        ASSERT_EQ(left.load(memory_order_acquire), 0);
      }
    });
  }
  start.store(true, memory_order_relaxed);
  for (auto& thread : threads) thread.join();
}

// A thread that registered and left is not waited for, and its memory not looked at (asan).
TEST(Rcu, ManyShortThreads) {
  Atomic<Object*> current(new Object);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        RcuReadLock guard;
        EXPECT_EQ(current.load(memory_order_acquire)->state, kAlive);
      });
    }
    rcu_retire(current.exchange(new Object, memory_order_acq_rel), free_object);
    rcu_synchronize();
    for (auto& thread : threads) thread.join();
  }
  delete current.load(memory_order_relaxed);
}

Atomic<int> late_reads;

struct ReadsWhenDestroyed {
  bool armed = false;
  ~ReadsWhenDestroyed() {
    if (!armed) return;
    RcuReadLock guard;
    late_reads.fetch_add(1, memory_order_relaxed);
  }
};

void key_destructor(void*) {
  RcuReadLock guard;
  late_reads.fetch_add(1, memory_order_relaxed);
}

// Reads from the destructors of thread_local objects and of pthread keys, before or after this thread was unregistered.
TEST(Rcu, ReadFromThreadDestructors) {
  pthread_key_t early_key, late_key;
  ASSERT_EQ(pthread_key_create(&early_key, key_destructor), 0);
  { RcuReadLock guard; }  // the key of RCU lies between, unless an earlier test made it
  ASSERT_EQ(pthread_key_create(&late_key, key_destructor), 0);
  late_reads.store(0, memory_order_relaxed);
  for (int i = 0; i < 20; ++i) {
    std::thread([&] {
      static thread_local ReadsWhenDestroyed object;
      object.armed = true;
      if (i % 2 == 0) RcuReadLock guard;
      pthread_setspecific(early_key, &late_reads);
      pthread_setspecific(late_key, &late_reads);
    }).join();
    rcu_synchronize();  // looks at every registered thread: none may be gone
  }
  EXPECT_EQ(late_reads.load(memory_order_relaxed), 60);
  pthread_key_delete(early_key);
  pthread_key_delete(late_key);
}

#if !defined(QUIRE_RCU_OUT_OF_LINE)  // ThreadSanitizer does not follow a threaded program across fork
pthread_key_t exit_key;

// In the round of key destructors after RCU's: the thread has been unregistered.
void exit_in_second_round(void* round) {
  static int second;
  if (round == &second) _exit(0);
  pthread_setspecific(exit_key, &second);
}

void* fork_and_end(void* child) {
  { RcuReadLock guard; }
  const pid_t pid = fork();
  if (pid != 0) {
    *static_cast<pid_t*>(child) = pid;
  } else {
    alarm(10);
    pthread_setspecific(exit_key, child);
  }
  return nullptr;
}

// The child's thread ends although another held liburcu's registry lock at the fork.
TEST(Rcu, ThreadOfForkedChildMayEnd) {
  ASSERT_EQ(pthread_key_create(&exit_key, exit_in_second_round), 0);
  Atomic<bool> stop;
  std::thread busy([&] {
    while (!stop.load(memory_order_relaxed)) rcu_synchronize();
  });
  for (int i = 0; i < 20; ++i) {
    pthread_t thread;
    pid_t child = 0;
    ASSERT_EQ(pthread_create(&thread, nullptr, fork_and_end, &child), 0);
    ASSERT_EQ(pthread_join(thread, nullptr), 0);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  }
  stop.store(true, memory_order_relaxed);
  busy.join();
  pthread_key_delete(exit_key);
}
#endif

}  // namespace
}  // namespace quire
