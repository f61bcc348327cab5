// Call stacks for the lock-order validator: cheap to take (a walk of frame pointers, raw addresses only), made readable
// when printed. Only in builds with QUIRE_LOCK_VALIDATOR. Thread safety: a value; taking and printing need no lock.
#pragma once

#ifdef QUIRE_LOCK_VALIDATOR

#include <cstdint>
#include <string>

namespace quire {

struct CallStack {
  static constexpr int kMaxFrames = 12;
  void* frames[kMaxFrames] = {};  // return addresses, innermost first
  int depth = 0;

  // The callers of the function that calls this. Ends early below code that was built without frame pointers.
  [[gnu::noinline]] void capture() noexcept;
  // One line a frame: "    #0 quire::f(int)+0x1f (module+0x1234)\n".
  std::string to_string() const;
};

}  // namespace quire

#endif
