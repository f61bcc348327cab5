// Workers that keep `depth` reads in flight from one thread: the kernel's io_uring and quire's submit and reap.
#pragma once

#include <cstddef>

#include "cli/bench_harness.h"
#include "quire/quire.h"

namespace quire {

// buffers: depth * size bytes, page-aligned; size a multiple of the page.
WorkerResult read_by_io_uring(const Turn& turn, int fd, char* buffers, std::size_t size, unsigned depth,
                              RandomOffsets offsets);
WorkerResult read_by_quire_submit(const Turn& turn, quire_cache* cache, quire_file* file, char* buffers,
                                  std::size_t size, unsigned depth, RandomOffsets offsets);

}  // namespace quire
