// For tests: a mapper of views that fails when it is told to. Others' calls pass on to userfaultfd's.
#pragma once

#include <cerrno>
#include <functional>
#include <memory>
#include <utility>

#include "base/error.h"
#include "cache/view_mapper.h"
#include "cache/views.h"
#include "sync/atomic.h"

namespace quire::testing_support {

// So many calls of each kind fail from now on, with ENOMEM.
struct MapperFaults {
  Atomic<int> place, track, reset;
  std::function<void(char* at)> before_track_fails;  // the range is mapped, and not yet tracked
};

class FailingMapper final : public ViewMapper {
 public:
  FailingMapper(std::unique_ptr<ViewMapper> inner, MapperFaults& faults) : inner_(std::move(inner)), faults_(faults) {}

  Status blank(char* at, std::uint64_t bytes, bool writable) override { return inner_->blank(at, bytes, writable); }
  Status place(char* at, const char* arena_bytes, std::uint64_t bytes, bool writable) override {
    if (fails(faults_.place)) return fail(ENOMEM);
    return inner_->place(at, arena_bytes, bytes, writable);
  }
  Status track(char* at, std::uint64_t bytes, bool writable) override {
    if (!fails(faults_.track)) return inner_->track(at, bytes, writable);
    if (faults_.before_track_fails) faults_.before_track_fails(at);
    return fail(ENOMEM);
  }
  bool begin_show(bool wait) override { return inner_->begin_show(wait); }
  void end_show() override { inner_->end_show(); }
  bool show(char* at, std::uint64_t bytes) override { return inner_->show(at, bytes); }
  bool protect(char* at, std::uint64_t bytes, bool is_protected) override {
    return inner_->protect(at, bytes, is_protected);
  }
  void take(char* at, std::uint64_t bytes) override { inner_->take(at, bytes); }
  Status trap(char* at, std::uint64_t bytes) override { return inner_->trap(at, bytes); }
  Status reset(char* at, std::uint64_t bytes, bool writable) override {
    if (fails(faults_.reset)) return fail(ENOMEM);
    return inner_->reset(at, bytes, writable);
  }
  void keep_spare() override { inner_->keep_spare(); }
  void unmap(char* at, std::uint64_t bytes) override { inner_->unmap(at, bytes); }
  void wake(char* at, std::uint64_t bytes) override { inner_->wake(at, bytes); }
  bool wait(ViewFault* fault, int timeout_ms) override { return inner_->wait(fault, timeout_ms); }
  void interrupt() override { inner_->interrupt(); }

 private:
  static bool fails(Atomic<int>& times) {
    if (times.load(memory_order_acquire) <= 0) return false;
    return times.fetch_sub(1, memory_order_acquire) > 0;
  }

  const std::unique_ptr<ViewMapper> inner_;
  MapperFaults& faults_;
};

// While it lives, caches that make their first view have such a mapper. One at a time; outlives them.
class FailingMappers {
 public:
  FailingMappers() {
    told() = &faults;
    set_view_mapper_maker([](FolioPool& pool) -> Result<std::unique_ptr<ViewMapper>> {
      auto made = make_view_mapper(pool);
      QUIRE_TRY(made);
      return std::unique_ptr<ViewMapper>(std::make_unique<FailingMapper>(made.take(), *told()));
    });
  }
  ~FailingMappers() { set_view_mapper_maker(nullptr); }
  FailingMappers(const FailingMappers&) = delete;
  FailingMappers& operator=(const FailingMappers&) = delete;

  MapperFaults faults;

 private:
  static MapperFaults*& told() {
    static MapperFaults* faults = nullptr;
    return faults;
  }
};

}  // namespace quire::testing_support
