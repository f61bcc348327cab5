// `quire residency`: what of a file a running process has in its caches.
#pragma once

#include <sys/types.h>

#include <string>

namespace quire {

struct ResidencyOptions {
  pid_t pid = 0;
  std::string file;
  std::string svg;  // where the image goes; empty: nowhere
  bool json = false;
};

int show_residency(const ResidencyOptions& options);

}  // namespace quire
