// Progress on stderr: percentage and rate, where stderr is a terminal and the work has taken over a second.
// Thread safety: one thread.
#pragma once

#include <cstdint>

namespace quire {

class Progress {
 public:
  // label names the work; total in bytes (0: unknown). quiet never prints.
  Progress(const char* label, std::uint64_t total, bool quiet = false);
  ~Progress();  // wipes the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(std::uint64_t done);
  void update(std::uint64_t done, std::uint64_t total);  // where the total comes with it
  void clear();                                          // wipes the line, for another that is to be printed

 private:
  const char* const label_;
  std::uint64_t total_;
  const bool enabled_;
  const std::int64_t start_ns_;
  std::int64_t next_ns_;
  bool printed_ = false;
};

}  // namespace quire
