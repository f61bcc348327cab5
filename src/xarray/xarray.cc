// The 64-way tree of the page cache, compiled once, and the lock class of every array.
#include "xarray/xarray.h"

#include "xarray/xarray_impl.h"

namespace quire {

constinit LockClass xarray_lock_class("xarray");

// What design and statistics count on: 9 bytes of leaf for each index of a dense file.
static_assert(XArray::kNodeBytes == 576);

template class BasicXArray<6>;

}  // namespace quire
