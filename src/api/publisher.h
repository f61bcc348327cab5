// A published cache's thread and page: it keeps the counters of quire/published.h fresh and answers who asks for the
// residency of a file. Hits, and every other call of the cache, know nothing of it.
//
// One thread does both, and not the flusher, which may be inside a flush of the host for seconds while people want to
// see just that. It holds no lock while it waits for anybody, and looks at the clock whenever it waits, so a stuck
// client does not stop the counters.  Locks: the file table (by try), the fork guard.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "device/fork_guard.h"
#include "quire/published.h"
#include "quire/result.h"
#include "sync/thread.h"

namespace quire {

class CacheImpl;

class Publisher {
 public:
  explicit Publisher(CacheImpl& cache) : cache_(cache) {}
  ~Publisher();  // says in the page that the cache has ended; stops the thread
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  Status start();  // once. Errors: EMFILE, ENOMEM and whatever else keeps it from a memfd, a socket or a thread

 private:
  enum class Woken : std::uint8_t { ready, late, stop };

  // --- publisher.cc: the page and the thread ---
  Status make_page();
  Status make_socket();
  void update(bool ended);  // by the thread; before it starts and after it has ended, by who starts and stops it
  void run();
  // Until fd has one of the events of poll(2) (-1: none ever has), the deadline passes or the cache ends.
  Woken wait(int fd, short events, std::int64_t deadline_ns);

  // --- publish_answers.cc: the socket ---
  struct Client {
    int fd;
    std::int64_t deadline_ns;
  };
  void serve_one();
  void answer(const Client& client);
  void answer_residency(const Client& client, std::uint64_t device, std::uint64_t inode);
  std::string_view receive_line(const Client& client, std::span<char> line);
  bool send_all(const Client& client, const char* text, std::size_t size);
  void send_error(const Client& client, int errnum);

  CacheImpl& cache_;
  quire_published* page_ = nullptr;  // mapped; written through atomics alone
  std::int64_t next_update_ns_ = 0;  // of the thread
  GuardedFd page_fd_;                // for others to find
  GuardedFd socket_fd_;              // listening
  GuardedFd stop_fd_;                // an eventfd: readable once the cache ends
  GuardedFd client_fd_;              // the one that is being answered
  Thread thread_;
};

}  // namespace quire
