// The C API's asynchronous calls. What is wrong with the arguments alone is answered at once; everything else through
// the callback. See quire.h for the contract, fs/async.h for what happens.
#include <algorithm>
#include <cerrno>

#include "api/api_checks.h"
#include "api/handles.h"
#include "base/error.h"

using quire::AsyncRequest;
using quire::FileImpl;
using quire::impl;
using quire::report_error;

namespace {

int submit_io(AsyncRequest::Kind kind, quire_file* file, void* buffer, size_t count, off_t offset,
              quire_completion_fn done, void* arg) {
  AsyncRequest request;
  request.kind = kind;
  request.file = &impl(file);
  request.buffer = buffer;
  request.count = count;
  request.done = done;
  request.argument = arg;
  return quire::submit_request(request, offset);
}

}  // namespace

namespace quire {

int submit_request(AsyncRequest& request, off_t offset) {
  FileImpl& file = *static_cast<FileImpl*>(request.file);
  int errnum = check_range(request.count, offset);
  if (errnum == 0 && request.done == nullptr) {
    errnum = (fail_with(EINVAL, "there is no callback to tell the result"), EINVAL);
  }
  if (errnum == 0) {
    request.offset = static_cast<std::uint64_t>(offset);
    errnum = file.owner->async().submit(request).errnum();
  }
  if (errnum == 0) return 0;
  report_error(errnum, "submission of a %s of %zu bytes at offset %lld of %s", name_of(request.kind), request.count,
               static_cast<long long>(offset), file.path.c_str());
  return -1;
}

}  // namespace quire

extern "C" {

int quire_submit_pread(quire_file* file, void* buffer, size_t count, off_t offset, quire_completion_fn done,
                       void* arg) {
  return submit_io(AsyncRequest::Kind::read, file, buffer, count, offset, done, arg);
}

int quire_submit_pwrite(quire_file* file, const void* buffer, size_t count, off_t offset, quire_completion_fn done,
                        void* arg) {
  return submit_io(AsyncRequest::Kind::write, file, const_cast<void*>(buffer), count, offset, done, arg);
}

int quire_submit_fsync(quire_file* file, quire_completion_fn done, void* arg) {
  return submit_io(AsyncRequest::Kind::sync, file, nullptr, 0, 0, done, arg);
}

int quire_reap(quire_cache* cache, unsigned min, unsigned max) {
  int errnum = quire::check_not_forked(impl(cache).cache()).errnum();
  if (errnum == 0 && min > max) {
    errnum = (quire::fail_with(EINVAL, "at least %u callbacks are wanted, and at most %u", min, max), EINVAL);
  }
  if (errnum == 0) return static_cast<int>(impl(cache).async().reap(min, std::min(max, unsigned{INT_MAX})));
  report_error(errnum, "quire_reap");
  return -1;
}

int quire_eventfd(quire_cache* cache) {
  int errnum = quire::check_not_forked(impl(cache).cache()).errnum();
  if (errnum == 0) {
    const auto fd = impl(cache).async().event_fd();
    if (fd.ok()) return fd.value();
    errnum = fd.errnum();
  }
  report_error(errnum, "quire_eventfd");
  return -1;
}

}  // extern "C"
