// The calling thread's own ring, made at its first batch and torn down at its exit.
#include "device/thread_ring.h"

#include <algorithm>
#include <new>

#include "device/ring.h"

namespace quire {
namespace {

// States of a thread: untried -> ready -> gone (exit), untried -> refused -> (after a while) untried, any -> gone.
enum class State : std::uint8_t { untried, ready, refused, gone };
constexpr unsigned kRetryAfter = 4096;  // batches: what refused (memory, descriptors) may have passed

constinit thread_local State state = State::untried;
constinit thread_local unsigned refused_batches = 0;
constinit thread_local Ring* ring = nullptr;

// Registered with the thread's exit by the first batch only, so that the pointer above stays a plain load.
struct Teardown {
  ~Teardown() {
    delete ring;
    ring = nullptr;
    state = State::gone;  // batches of later thread-local destructors go without a ring
  }
};

[[gnu::noinline, gnu::cold]] Ring* make_ring(IoStats& stats) {
  if (state == State::gone) return nullptr;
  if (state == State::refused && ++refused_batches < kRetryAfter) return nullptr;
  auto* made = new (std::nothrow) Ring;
  if (made == nullptr || made->open(kThreadRingEntries) != 0) {
    delete made;
    state = State::refused;
    refused_batches = 0;
    return nullptr;
  }
  static thread_local Teardown teardown;
  (void)teardown;
  IoStats::add(stats.ring_setups);
  state = State::ready;
  ring = made;
  return made;
}

}  // namespace

bool thread_ring_run(Request* requests, IoStats& stats) {
  Ring* const mine = ring != nullptr ? ring : make_ring(stats);
  if (mine == nullptr) return false;
  unsigned in_flight = 0;
  while (requests != nullptr || in_flight > 0) {
    while (requests != nullptr && in_flight < kThreadRingEntries) {
      Request* const request = requests;
      requests = request->next;
      mine->prepare(transfer_step(*request), request);
      ++in_flight;
    }
    // With more to come the device is kept at least half busy while the other half is reaped and refilled.
    mine->submit_and_wait(requests != nullptr ? in_flight / 2 : in_flight);
    mine->reap([&](void* tag, int rc) {
      auto* const request = static_cast<Request*>(tag);
      --in_flight;
      const TransferState after = transfer_stepped(*request, rc);
      if (after == TransferState::again_plain) {
        plain_run(*request);
      } else if (after == TransferState::again) {
        request->next = requests;
        requests = request;
      }
    });
  }
  return true;
}

}  // namespace quire
