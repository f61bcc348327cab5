// A caller's buffers, walked once. Bytes go straight between them and a folio through the racy copy.
// No view of quire's may be behind them here: fs copies those to private memory first.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <span>

#include "sync/sequence.h"

namespace quire {

class UserBuffer {
 public:
  explicit UserBuffer(std::span<const iovec> vectors) : vectors_(vectors) {}

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
