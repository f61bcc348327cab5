// Another process and the caches that it publishes (quire/published.h): what `quire top` and `quire residency` look at.
// Thread safety: one thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "quire/published.h"

namespace quire {

class WatchedProcess {
 public:
  WatchedProcess() = default;
  ~WatchedProcess();
  WatchedProcess(const WatchedProcess&) = delete;
  WatchedProcess& operator=(const WatchedProcess&) = delete;

  // False, after a message: there is no such process.
  bool open(pid_t pid);
  pid_t pid() const { return pid_; }
  // A descriptor that becomes readable (poll(2)) when the process ends.
  int end_fd() const { return pidfd_; }
  bool ended() const;

  struct Look {
    std::vector<quire_published> caches;  // the newest counters of each that lives, in the order they were made in
    std::string error;                    // why it cannot be looked at; empty if it can
  };
  Look look() const;
  // The same for who cannot go on without a cache. False, after a message.
  bool look_for_cache(std::vector<quire_published>* caches) const;
  std::string end_message() const;

 private:
  pid_t pid_ = 0;
  int pidfd_ = -1;
};

// "1.5 MiB", "12.3 M": three digits or so.
std::string human_bytes(double bytes);
std::string human_count(double count);

}  // namespace quire
