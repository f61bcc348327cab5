// For scenarios with mapped views: a page table in place of the kernel's. A load or store through it is one step, as
// the processor's is; a fault is told to quire's own fault thread, and waits to be woken, as with userfaultfd.
//
// A page is one of (view_mapper.h; `mapped` is placed, and not yet tracked)
//
//   none, blank, trap;  mapped, absent, present (protected), open;  of a view for reading: absent, present
//
//   mapped: a touch is no fault, and makes it present, and open if the view can be stored to
//
// What is left out: pages that come by themselves (fault-around, huge pages), mremap's wait for the fault thread.
// Scheduler's fibers only: between two steps nobody else runs, so nothing here has a lock.
#pragma once

#include <csignal>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "cache/folio_pool.h"
#include "cache/views.h"
#include "races/scenario.h"
#include "sync/wait_queue.h"

namespace quire::races {

class SimMapper final : public ViewMapper {
 public:
  Status blank(char* at, std::uint64_t bytes, bool writable) override;
  Status place(char* at, const char* arena_bytes, std::uint64_t bytes, bool writable) override;
  Status track(char* at, std::uint64_t bytes, bool writable) override;
  bool begin_show(bool) override { return true; }
  void end_show() override {}
  bool show(char* at, std::uint64_t bytes) override;
  bool protect(char* at, std::uint64_t bytes, bool is_protected) override;
  void take(char* at, std::uint64_t bytes) override;
  Status trap(char* at, std::uint64_t bytes) override;
  Status reset(char* at, std::uint64_t bytes, bool writable) override { return blank(at, bytes, writable); }
  void keep_spare() override {}
  void unmap(char* at, std::uint64_t bytes) override;
  void wake(char* at, std::uint64_t bytes) override;
  bool wait(ViewFault* fault, int timeout_ms) override;
  void interrupt() override;

  // The byte, or minus a signal's number.
  int load(const char* address);
  // 0, or minus a signal's number.
  int store(char* address, char byte);

 private:
  enum class State : std::uint8_t { none, blank, trap, mapped, absent, present, open };
  struct Page {
    State state = State::none;
    bool writable = false;
    char* bytes = nullptr;  // of the arena
  };
  struct Waiting {
    char* page;
    Atomic<std::uint32_t> woken;
  };
  template <typename Change>
  void change(char* at, std::uint64_t bytes, Change change_page QUIRE_WHERE);
  template <typename Access>
  int access(char* address, bool is_store, Access access_byte QUIRE_WHERE);
  void wait_for(const ViewFault& fault);

  std::map<std::uintptr_t, Page> pages_;
  std::vector<Waiting*> waiting_;
  std::deque<ViewFault> faults_;
  WaitQueue told_;
  bool interrupted_ = false;
};

// A world whose files can be mapped.
class ViewWorld : public World {
 public:
  explicit ViewWorld(unsigned block_size = 4096, std::uint32_t frames = PageCache::kMinFrames);
  ~ViewWorld();

  // Of the file's first pages. After the files are made; goes with the world.
  View& add_view(std::size_t number, std::uint64_t pages, bool writable);
  int load(const View& view, std::size_t at) { return mapper().load(view.base + at); }
  int store(const View& view, std::size_t at, char byte) { return mapper().store(view.base + at, byte); }
  // As a program's write with its buffer in the view: 0 or an errno; a short write fails.
  int write_from(const View& view, std::size_t number, std::uint64_t offset, std::size_t count);

 private:
  SimMapper& mapper();

  std::unique_ptr<ViewEngine> engine_;
  std::vector<View*> views_;
};

}  // namespace quire::races
