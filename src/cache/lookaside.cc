// The lookaside's memory. See lookaside.h.
#include "cache/lookaside.h"

#include <sys/mman.h>

#include <bit>
#include <cerrno>
#include <new>

#include "base/bytes.h"
#include "base/error.h"

namespace quire {

namespace {

constexpr std::uint64_t kEntriesPerPage = kPageSize / sizeof(Atomic<std::uint32_t>);

}  // namespace

Status Lookaside::create(std::uint32_t frames) {
  const std::uint64_t entries = std::bit_ceil(std::max<std::uint64_t>(frames, kEntriesPerPage));
  page_used_ = new (std::nothrow) Atomic<std::uint8_t>[entries / kEntriesPerPage];
  if (page_used_ == nullptr) return fail(ENOMEM);
  void* mapped = mmap(nullptr, entries * sizeof(Atomic<std::uint32_t>), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    return fail_with(errno, "cannot map the lookaside table of %u frames: give the cache less memory", frames);
  }
  entries_ = static_cast<Atomic<std::uint32_t>*>(mapped);  // zeros, which is what an Atomic begins with
  mask_ = entries - 1;
  return {};
}

Lookaside::~Lookaside() {
  if (entries_ != nullptr) munmap(static_cast<void*>(entries_), (mask_ + 1) * sizeof(Atomic<std::uint32_t>));
  delete[] page_used_;
}

void Lookaside::count_page(std::uint64_t at) {
  Atomic<std::uint8_t>& used = page_used_[at / kEntriesPerPage];
  if (used.load(memory_order_relaxed) != 0 || used.exchange(1, memory_order_relaxed) != 0) return;
  memory_bytes_.fetch_add(static_cast<std::int64_t>(kPageSize), memory_order_relaxed);
}

}  // namespace quire
