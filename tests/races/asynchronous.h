// For scenarios with submitted requests: an engine over a world's cache, and what its callbacks were told.
#pragma once

#include <optional>
#include <string>

#include "fs/async.h"
#include "races/scenario.h"

namespace quire::races {

struct SubmittedRead {
  explicit SubmittedRead(std::size_t bytes_wanted) : count(bytes_wanted), bytes(round_up(bytes_wanted, kPage)) {
    std::memset(bytes.data(), '?', bytes_wanted);
  }
  static void told(void* read, ssize_t result) {
    SubmittedRead& mine = *static_cast<SubmittedRead*>(read);
    mine.result = result;
    ++mine.times;
  }
  // What it gave; "error ERRNO" if it failed, and "not told" before.
  std::string got() const {
    if (times == 0) return "not told";
    if (result < 0) return "error " + std::to_string(-result);
    return std::string(bytes.data(), static_cast<std::size_t>(result));
  }

  const std::size_t count;
  const AlignedBytes bytes;
  ssize_t result = 0;
  int times = 0;
};

inline Status submit_read(AsyncEngine& engine, OpenFile& file, SubmittedRead& read, std::uint64_t offset,
                          unsigned flags = 0) {
  AsyncRequest request;
  request.kind = AsyncRequest::Kind::read;
  request.file = &file;
  request.buffer = read.bytes.data();
  request.count = read.count;
  request.offset = offset;
  request.io_flags = flags;
  request.done = &SubmittedRead::told;
  request.argument = &read;
  return engine.submit(request);
}

struct SubmittedWrite {
  SubmittedWrite(char letter, std::size_t bytes_wanted) : count(bytes_wanted), bytes(round_up(bytes_wanted, kPage)) {
    std::memset(bytes.data(), letter, bytes_wanted);
  }
  static void told(void* write, ssize_t result) { static_cast<SubmittedWrite*>(write)->result = result; }

  const std::size_t count;
  const AlignedBytes bytes;
  ssize_t result = 0;
};

inline Status submit_write(AsyncEngine& engine, OpenFile& file, SubmittedWrite& write, std::uint64_t offset,
                           unsigned flags = 0) {
  AsyncRequest request;
  request.kind = AsyncRequest::Kind::write;
  request.file = &file;
  request.buffer = write.bytes.data();
  request.count = write.count;
  request.offset = offset;
  request.io_flags = flags;
  request.done = &SubmittedWrite::told;
  request.argument = &write;
  return engine.submit(request);
}

}  // namespace quire::races
