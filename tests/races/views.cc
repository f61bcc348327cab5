// The page table of scenarios. See views.h.
#include "races/views.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"
#include "sync/futex.h"

namespace quire::races {
namespace {

std::uintptr_t number(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

}  // namespace

// One step: what the kernel does under its locks of the page table. The steps of several calls are several.
template <typename Change>
void SimMapper::change(char* at, std::uint64_t bytes, Change change_page, sim::Where where) {
  CHECK(is_aligned(number(at) | bytes, kPageSize));
  for (std::uint64_t done = 0; done < bytes; done += kPageSize) {
    Page& page = pages_[number(at) + done];
    QUIRE_STEP(update, &page);
    change_page(page, done);
  }
}

Status SimMapper::blank(char* at, std::uint64_t bytes, bool writable) {
  change(at, bytes, [&](Page& page, std::uint64_t) { page = {State::blank, writable, nullptr}; });
  return {};
}

// For stores the pages come later; for loads with the mapping.
Status SimMapper::place(char* at, const char* arena_bytes, std::uint64_t bytes, bool writable) {
  change(at, bytes, [&](Page& page, std::uint64_t inside) {
    page = {writable ? State::mapped : State::present, writable, const_cast<char*>(arena_bytes) + inside};
  });
  return {};
}

Status SimMapper::track(char* at, std::uint64_t bytes, bool) {
  change(at, bytes, [](Page& page, std::uint64_t) {
    if (page.state == State::mapped) page.state = State::absent;
  });
  return {};
}

bool SimMapper::show(char* at, std::uint64_t bytes) {
  bool untouched = true;
  change(at, bytes, [&](Page& page, std::uint64_t) {
    if (page.state == State::absent) {
      page.state = State::present;
    } else {
      untouched = false;
    }
  });
  return untouched;
}

bool SimMapper::protect(char* at, std::uint64_t bytes, bool is_protected) {
  change(at, bytes, [&](Page& page, std::uint64_t) {
    if (page.state == State::present || page.state == State::open) {
      page.state = is_protected ? State::present : State::open;
    }
  });
  return true;
}

void SimMapper::take(char* at, std::uint64_t bytes) {
  change(at, bytes, [](Page& page, std::uint64_t) {
    if (page.state == State::present || page.state == State::open) page.state = State::absent;
  });
}

Status SimMapper::trap(char* at, std::uint64_t bytes) {
  change(at, bytes, [](Page& page, std::uint64_t) { page = {State::trap, page.writable, nullptr}; });
  return {};
}

void SimMapper::unmap(char* at, std::uint64_t bytes) {
  change(at, bytes, [](Page& page, std::uint64_t) { page = {}; });
}

void SimMapper::wake(char* at, std::uint64_t bytes) {
  // Who waits goes on, and may be gone, at any step: each is out of the list before it is told.
  for (;;) {
    const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                    [&](const Waiting* one) { return number(one->page) - number(at) < bytes; });
    if (found == waiting_.end()) return;
    Waiting& one = **found;
    waiting_.erase(found);
    Atomic<std::uint32_t>& word = one.woken;
    word.store(1, memory_order_release);
    futex_wake(word, kWakeAll);
  }
}

bool SimMapper::wait(ViewFault* fault, int timeout_ms) {
  CHECK(timeout_ms < 0);  // only where a page could not be read
  for (;;) {
    const std::uint32_t ticket = told_.prepare();
    if (!faults_.empty() || interrupted_) {
      told_.cancel();
      if (faults_.empty()) return interrupted_ = false;
      *fault = faults_.front();
      faults_.pop_front();
      return true;
    }
    told_.wait(ticket);
  }
}

void SimMapper::interrupt() {
  interrupted_ = true;
  told_.wake_all();
}

// The caller has looked at the page since the last step: so no wake-up comes between.
void SimMapper::wait_for(const ViewFault& fault) {
  Waiting mine{fault.page, {}};
  waiting_.push_back(&mine);
  faults_.push_back(fault);
  told_.wake_all();
  while (mine.woken.load(memory_order_acquire) == 0) futex_wait(mine.woken, 0);
}

template <typename Access>
int SimMapper::access(char* address, bool is_store, Access access_byte, sim::Where where) {
  char* const start = address - number(address) % kPageSize;
  Page& page = pages_[number(start)];
  for (;;) {
    if (is_store) {
      QUIRE_STEP(update, &page);
    } else {
      QUIRE_STEP(load, &page);
    }
    if (page.state == State::none || (is_store && !page.writable)) return -SIGSEGV;
    if (page.state == State::trap) return -SIGBUS;
    if (page.state == State::mapped) page.state = State::open;
    if (page.state == State::open || (page.state == State::present && !is_store)) {
      return access_byte(page.bytes + (address - start));
    }
    wait_for({start, is_store, page.state == State::present});
  }
}

int SimMapper::load(const char* address) {
  return access(const_cast<char*>(address), false, [](const char* at) { return static_cast<unsigned char>(*at); });
}

int SimMapper::store(char* address, char byte) {
  return access(address, true, [byte](char* at) {
    *at = byte;
    return 0;
  });
}

ViewWorld::ViewWorld(unsigned block_size, std::uint32_t frames) : World(block_size, frames) {
  static_cast<void>(view_run_limit());  // looked up once in a process, which would be a schedule's own
  set_view_mapper_maker([](FolioPool&) -> Result<std::unique_ptr<ViewMapper>> {
    return std::unique_ptr<ViewMapper>(std::make_unique<SimMapper>());
  });
}

ViewWorld::~ViewWorld() {
  for (View* view : views_) engine_->remove(*view);
  engine_.reset();
  set_view_mapper_maker(nullptr);
}

SimMapper& ViewWorld::mapper() { return static_cast<SimMapper&>(engine_->mapper()); }

View& ViewWorld::add_view(std::size_t number, std::uint64_t pages, bool writable) {
  if (engine_ == nullptr) engine_ = ViewEngine::create(cache()).take();
  views_.push_back(engine_->add(file(number).mapping(), 0, pages, writable, &file(number).handle()).value());
  return *views_.back();
}

int ViewWorld::write_from(const View& view, std::size_t number, std::uint64_t offset, std::size_t count) {
  const ssize_t n = file(number).write(view.base, count, offset);
  if (n < 0) return static_cast<int>(-n);
  return static_cast<std::size_t>(n) == count ? 0 : EIO;
}

}  // namespace quire::races
