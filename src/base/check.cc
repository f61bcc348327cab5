// The failing end of CHECK.
#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace quire {

void check_failed(const char* what, const char* file, int line) {
  std::fprintf(stderr, "quire: assertion failed: %s (%s:%d)\n", what, file, line);
  std::abort();
}

}  // namespace quire
