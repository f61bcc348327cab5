// Which addresses are whose view: the region that all views of the process lie in, and the table that finds a view by
// an address. Guarantees: R4.
//
// Who may change what: addresses are handed out and taken back under the region's mutex; the table is replaced as a
// whole under its own, and the old one freed after a grace period, so that lookups take RCU and nothing else.
// States of a span: private --list_view--> listed --unlist_view--> unlisted, when nobody holds it any more.
// Races, and what closes them:
//   a lookup that finds a span in an old table    unlist_view waits for a grace period before it gives up the table's
//                                                 own hold: the lookup has its hold by then, or has found the new table
//   one that has its hold                         unlist_view waits for it; whoever holds a view waits for no munmap
//   an address handed out twice                   a range goes back only once its view is unlisted and unmapped
// Locks: view region, view table: leaves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/bytes.h"
#include "quire/result.h"
#include "sync/atomic.h"
#include "sync/view_region.h"

namespace quire {

struct Mapping;

// What a view is to those who only look it up. Constant from list_view on, but for `holds`.
struct ViewSpan {
  Mapping* mapping = nullptr;
  void* owner = nullptr;  // of whoever made the view
  char* base = nullptr;
  std::uint64_t first_page = 0;  // of the file, at `base`
  std::uint64_t pages = 0;
  bool writable = false;
  Atomic<std::uint32_t> holds;  // one is the table's

  std::uint64_t bytes() const { return pages << kPageShift; }
  bool contains(const void* address) const {
    return reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(base) < bytes();
  }
};

// A view that is not unmapped while this lives: munmap waits. So no lock of a view's maker may be waited for, and
// holders do not wait for each other's threads.
class ViewHold {
 public:
  ViewHold() = default;
  ViewHold(ViewSpan* span, const void* address) : span_(span), address_(static_cast<const char*>(address)) {}
  ViewHold(ViewHold&& other) noexcept : span_(std::exchange(other.span_, nullptr)), address_(other.address_) {}
  ViewHold& operator=(ViewHold&& other) noexcept {
    release();
    span_ = std::exchange(other.span_, nullptr);
    address_ = other.address_;
    return *this;
  }
  ~ViewHold() { release(); }
  ViewHold(const ViewHold&) = delete;
  ViewHold& operator=(const ViewHold&) = delete;
  void release();

  explicit operator bool() const { return span_ != nullptr; }
  ViewSpan& span() const { return *span_; }
  Mapping& mapping() const { return *span_->mapping; }
  void* owner() const { return span_->owner; }
  bool writable() const { return span_->writable; }
  // In the file, of the address that was looked up. The view reaches past the end of the file where its maker said so.
  std::uint64_t offset() const { return (span_->first_page << kPageShift) + inside(); }
  std::uint64_t left() const { return span_->bytes() - inside(); }  // bytes from there to the end of the view

 private:
  std::uint64_t inside() const { return static_cast<std::uint64_t>(address_ - span_->base); }

  ViewSpan* span_ = nullptr;
  const char* address_ = nullptr;
};

// The view that the address lies in, held; empty where there is none. Any thread, any lock but the table's.
ViewHold hold_view(const void* address);

// `bytes` (whole pages) of addresses in the region, mapped without access, the page after them never to be used; the
// first call reserves the region. ENOMEM: it is full, or not to be had.
Result<char*> take_view_addresses(std::uint64_t bytes);
// Back, mapped without access again.
void give_view_addresses(char* base, std::uint64_t bytes);

// The span, complete and at its address until it is unlisted. ENOMEM.
Status list_view(ViewSpan& span);
// From here on it is not found; waits until nobody holds it. Nothing may be held that a holder may wait for.
void unlist_view(ViewSpan& span);

}  // namespace quire
