// The C calls of mapped views. See quire.h for the contract.
#include <sys/mman.h>

#include <new>

#include "api/handles.h"
#include "base/error.h"

using quire::FileImpl;
using quire::impl;
using quire::report_error;

extern "C" {

void* quire_mmap(quire_file* file, off_t offset, size_t length, int prot) {
  return quire_mmap2(file, offset, length, prot, 0);
}

void* quire_mmap2(quire_file* file, off_t offset, size_t length, int prot, unsigned flags) {
  FileImpl& f = impl(file);
  int errnum = 0;
  if (offset < 0) {
    errnum = (quire::fail_with(EINVAL, "the offset is negative"), EINVAL);
  } else if ((flags & ~QUIRE_MAP_PREFAULT) != 0) {
    errnum = (quire::fail_with(EINVAL, "flags %#x are not known", flags), EINVAL);
  } else {
    try {
      const auto mapped =
          f.owner->map(f, static_cast<std::uint64_t>(offset), length, prot, (flags & QUIRE_MAP_PREFAULT) != 0);
      if (mapped.ok()) return mapped.value();
      errnum = mapped.errnum();
    } catch (const std::bad_alloc&) {
      errnum = ENOMEM;
    }
  }
  report_error(errnum, "map of %zu bytes at offset %lld of %s", length, static_cast<long long>(offset), f.path.c_str());
  return MAP_FAILED;
}

int quire_munmap(quire_cache* cache, void* address, size_t length) {
  int errnum;
  try {
    errnum = impl(cache).unmap(static_cast<char*>(address), length).errnum();
  } catch (const std::bad_alloc&) {
    errnum = ENOMEM;
  }
  if (errnum == 0) return 0;
  report_error(errnum, "unmap of %zu bytes at %p", length, address);
  return -1;
}

int quire_msync(quire_cache* cache, void* address, size_t length) {
  const auto status = impl(cache).sync_views(static_cast<char*>(address), length);
  if (status.ok()) return 0;
  report_error(status.errnum(), "sync of a view, %zu bytes at %p", length, address);
  return -1;
}

}  // extern "C"
