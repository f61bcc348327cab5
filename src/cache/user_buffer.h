// A caller's buffers, walked once. Bytes go straight between them and a folio through the racy copy, with locks held.
// No view of quire's is behind them here: fs puts private memory in their place first (bounce.h). Guarantees: R4.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <span>

#include "base/check.h"
#include "sync/sequence.h"
#include "sync/view_region.h"

namespace quire {

// Does any of them lie in a view?
inline bool touches_views(std::span<const iovec> vectors) {
  if (!views_exist()) return false;
  for (const iovec& v : vectors) {
    if (touches_views(v.iov_base, v.iov_len)) return true;
  }
  return false;
}

class UserBuffer {
 public:
  explicit UserBuffer(std::span<const iovec> vectors) : vectors_(vectors) { DCHECK(!touches_views(vectors)); }

  // From a folio that writers of other bytes may be changing.
  void copy_from_folio(const char* bytes, std::size_t size) {
    walk(size, [&](char* user, std::size_t n) {
      racy_copy_from_folio(user, bytes, n);
      bytes += n;
    });
  }
  // Into a folio whose sequence is odd.
  void copy_to_folio(char* bytes, std::size_t size) {
    walk(size, [&](const char* user, std::size_t n) {
      racy_copy_to_folio(bytes, user, n);
      bytes += n;
    });
  }

  // Where the next bytes lie, and how many of them together: 0 at the end.
  char* contiguous(std::size_t* room) {
    while (!vectors_.empty() && vectors_.front().iov_len == skip_) {
      vectors_ = vectors_.subspan(1);
      skip_ = 0;
    }
    *room = vectors_.empty() ? 0 : vectors_.front().iov_len - skip_;
    return vectors_.empty() ? nullptr : static_cast<char*>(vectors_.front().iov_base) + skip_;
  }
  void skip(std::size_t size) {
    walk(size, [](const char*, std::size_t) {});
  }

 private:
  template <typename Copy>
  void walk(std::size_t size, Copy copy) {
    while (size != 0) {
      const iovec& v = vectors_.front();
      const std::size_t n = std::min(size, v.iov_len - skip_);
      copy(static_cast<char*>(v.iov_base) + skip_, n);
      size -= n;
      skip_ += n;
      if (skip_ == v.iov_len) {
        vectors_ = vectors_.subspan(1);
        skip_ = 0;
      }
    }
  }

  std::span<const iovec> vectors_;
  std::size_t skip_ = 0;
};

}  // namespace quire
