// One word of a mapped view, loaded or stored. A SIGBUS that it raises is its result, not the program's end. Any
// thread; no locks.
#pragma once

#include <cstdint>

namespace quire::judge {

// Once, before the view is made, so that quire's handler hands on to this one.
void catch_sigbus();

// address: of an aligned word. 0, or -EFAULT where it raised SIGBUS.
int load_view_word(const void* address, uint64_t* word);
int store_view_word(void* address, uint64_t word);

}  // namespace quire::judge
