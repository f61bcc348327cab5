// Calls of the API whose work is still to land: each fails with ENOSYS and says so.
#include <sys/mman.h>

#include <cerrno>

#include "base/error.h"
#include "quire/quire.h"

namespace {

int not_built(const char* call) {
  static_cast<void>(quire::fail_with(ENOSYS, "not built yet in this version of quire"));
  quire::report_error(ENOSYS, "%s", call);
  return -1;
}

}  // namespace

extern "C" {

int quire_submit_pread(quire_file*, void*, size_t, off_t, quire_completion_fn, void*) {
  return not_built("quire_submit_pread");
}
int quire_submit_pwrite(quire_file*, const void*, size_t, off_t, quire_completion_fn, void*) {
  return not_built("quire_submit_pwrite");
}
int quire_submit_fsync(quire_file*, quire_completion_fn, void*) { return not_built("quire_submit_fsync"); }
int quire_reap(quire_cache*, unsigned, unsigned) { return not_built("quire_reap"); }
int quire_eventfd(quire_cache*) { return not_built("quire_eventfd"); }
void* quire_mmap(quire_file*, off_t, size_t, int) {
  not_built("quire_mmap");
  return MAP_FAILED;
}
int quire_munmap(quire_cache*, void*, size_t) { return not_built("quire_munmap"); }
int quire_msync(quire_cache*, void*, size_t) { return not_built("quire_msync"); }

}  // extern "C"
