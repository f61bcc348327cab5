// Argument checks that the ranged calls of the C API share.
#pragma once

#include <limits.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "base/error.h"

namespace quire {

// 0 or an errno.
inline int check_range(std::size_t count, off_t offset) {
  if (offset < 0) return fail_with(EINVAL, "the offset is negative"), EINVAL;
  if (count > static_cast<std::size_t>(SSIZE_MAX)) return fail_with(EINVAL, "the length passes SSIZE_MAX"), EINVAL;
  if (count > static_cast<std::size_t>(INT64_MAX - offset)) {
    return fail_with(EINVAL, "offset plus length passes the largest off_t"), EINVAL;
  }
  return 0;
}

struct AsyncRequest;
// Submits it, its offset checked; 0, or -1 with errno and the message set.
int submit_request(AsyncRequest& request, off_t offset);

}  // namespace quire
