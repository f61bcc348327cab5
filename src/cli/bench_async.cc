// Reads with several requests in flight; see bench_async.h. Both loops refill what has completed until the time is
// over, then wait for the rest; everything completed counts, over the whole time.
#include "cli/bench_async.h"

#include <liburing.h>

#include <cerrno>
#include <vector>

#include "cli/bench_ops.h"
#include "cli/support.h"

namespace quire {

namespace {

struct RingReader {
  int fd;
  char* buffers;
  std::size_t size;
  RandomOffsets offsets;
  io_uring ring{};
  WorkerResult result{};
  unsigned in_flight = 0;

  void prepare(unsigned slot) {
    io_uring_sqe* const sqe = io_uring_get_sqe(&ring);  // never null: one entry per slot
    io_uring_prep_read(sqe, fd, buffers + slot * size, static_cast<unsigned>(size), offsets.next());
    io_uring_sqe_set_data64(sqe, slot);
    ++in_flight;
  }

  // Takes the completions that are there; refills their slots if asked.
  void collect(bool refill) {
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring, &cqe) == 0) {
      const unsigned slot = static_cast<unsigned>(io_uring_cqe_get_data64(cqe));
      const int count = cqe->res;
      io_uring_cqe_seen(&ring, cqe);
      --in_flight;
      if (count == static_cast<int>(size)) {
        ++result.ops;
      } else if (count < 0) {
        result.error = "an io_uring read failed: " + errno_text(-count);
      } else {
        result.error = "an io_uring read came back short: did the bench file change?";
      }
      if (refill && result.error.empty()) prepare(slot);
    }
  }

  void run(std::int64_t duration_ns, unsigned depth) {
    const std::int64_t start = monotonic_ns();
    for (unsigned slot = 0; slot < depth; ++slot) prepare(slot);
    while (in_flight > 0) {
      const int submitted = io_uring_submit_and_wait(&ring, 1);
      if (submitted < 0 && submitted != -EINTR) {
        result.error = "io_uring_enter failed: " + errno_text(-submitted);
        return;  // leaving the ring waits for what is in flight
      }
      collect(monotonic_ns() - start < duration_ns);
    }
    result.ns = monotonic_ns() - start;
  }
};

struct SubmitReader {
  struct Slot {
    SubmitReader* reader;
    char* buffer;
  };
  quire_cache* cache;
  quire_file* file;
  std::size_t size;
  RandomOffsets offsets;
  std::vector<Slot> slots{};
  std::vector<Slot*> ready{};
  WorkerResult result{};
  unsigned in_flight = 0;

  static void completed(void* argument, ssize_t count) {
    Slot* const slot = static_cast<Slot*>(argument);
    SubmitReader& reader = *slot->reader;
    --reader.in_flight;
    reader.ready.push_back(slot);
    if (count == static_cast<ssize_t>(reader.size)) {
      ++reader.result.ops;
    } else {
      reader.result.error = count < 0 ? "quire: an asynchronous read failed: " + errno_text(static_cast<int>(-count))
                                      : short_count("quire_submit_pread", 0, count, reader.size);
    }
  }

  void submit_ready() {
    while (!ready.empty() && result.error.empty()) {
      Slot* const slot = ready.back();
      ready.pop_back();
      ++in_flight;
      if (quire_submit_pread(file, slot->buffer, size, static_cast<off_t>(offsets.next()), &completed, slot) != 0) {
        --in_flight;
        result.error = quire_error_message();
      }
    }
  }

  void run(std::int64_t duration_ns) {
    const std::int64_t start = monotonic_ns();
    submit_ready();
    while (in_flight > 0) {
      if (quire_reap(cache, 1, in_flight) < 0) {
        result.error = quire_error_message();
        return;
      }
      if (monotonic_ns() - start < duration_ns) submit_ready();
    }
    result.ns = monotonic_ns() - start;
  }
};

}  // namespace

WorkerResult read_by_io_uring(const Turn& turn, int fd, char* buffers, std::size_t size, unsigned depth,
                              RandomOffsets offsets) {
  RingReader reader{.fd = fd, .buffers = buffers, .size = size, .offsets = offsets};
  const int made = io_uring_queue_init(depth, &reader.ring, 0);
  (void)pthread_barrier_wait(turn.start);
  if (made < 0) {
    reader.result.error =
        "cannot make an io_uring of depth " + std::to_string(depth) + ": " + errno_text(-made) + "; try --depth 1";
    return reader.result;
  }
  reader.run(turn.duration_ns, depth);
  io_uring_queue_exit(&reader.ring);
  return reader.result;
}

WorkerResult read_by_quire_submit(const Turn& turn, quire_cache* cache, quire_file* file, char* buffers,
                                  std::size_t size, unsigned depth, RandomOffsets offsets) {
  SubmitReader reader{.cache = cache, .file = file, .size = size, .offsets = offsets};
  reader.slots.reserve(depth);
  for (unsigned i = 0; i < depth; ++i) {
    reader.slots.push_back({&reader, buffers + i * size});
    reader.ready.push_back(&reader.slots.back());
  }
  (void)pthread_barrier_wait(turn.start);
  reader.run(turn.duration_ns);
  return reader.result;
}

}  // namespace quire
