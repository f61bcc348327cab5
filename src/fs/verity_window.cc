// The tree units of one fill, and the verdict on its folios. See verity_window.h and verity.h.
#include "fs/verity_window.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/bytes.h"
#include "base/error.h"

namespace quire {

using verity::BlockHasher;
using verity::TreeGeometry;

VerityWindow::VerityWindow(FileVerity& file) : file_(file) { tree().cache.charge_prefetch(sizeof(VerityWindow)); }

VerityWindow::~VerityWindow() {
  abandon_all();  // of a window that was begun, and never sent
  for (Unit& unit : units_) release(unit);
  tree().cache.charge_prefetch(-static_cast<std::int64_t>(sizeof(VerityWindow)));
  for (Part& part : parts_) {
    std::free(part.memory);
    tree().cache.charge_bounce(-static_cast<std::int64_t>(unit_bytes()));
  }
}

void VerityWindow::release(Unit& unit) {
  if (unit.folio != nullptr) tree().cache.put_folio(*unit.folio);
  if (unit.memory != nullptr) {
    std::free(unit.memory);
    tree().cache.charge_bounce(-static_cast<std::int64_t>(unit_bytes()));
  }
  unit.folio = nullptr;
  unit.memory = nullptr;
}

Result<char*> VerityWindow::allocate() {
  char* const memory = static_cast<char*>(std::aligned_alloc(kPageSize, unit_bytes()));
  if (memory == nullptr) return fail(ENOMEM);
  tree().cache.charge_bounce(static_cast<std::int64_t>(unit_bytes()));
  return memory;
}

// --- before the reads ---

Status VerityWindow::begin(FillBatch& batch) {
  const Folio& first = batch.folio(0);
  const Folio& last = batch.folio(batch.count() - 1);
  const std::uint64_t first_byte = first.index.load(memory_order_relaxed) << kPageShift;
  const std::uint64_t end_byte = (last.index.load(memory_order_relaxed) + last.pages()) << kPageShift;
  data_device_ = &batch.backing().device();
  QUIRE_TRY(need_tree(first_byte, std::min(end_byte, file_.source_.geometry.data_size())));
  if (unit_bytes() > kPageSize) QUIRE_TRY(need_parts(batch));
  if (!file_.source_.at_completion) QUIRE_TRY(acquire());
  requests_.reserve(reads_.size());  // nothing that comes later fails for want of memory, but what says so
  return {};
}

// The units that hold the digests of the bytes' blocks, those of the digests over them, and so on, as far as they are
// not good already. From the last unit down, since a unit needs such before it, or itself.
Status VerityWindow::need_tree(std::uint64_t first_byte, std::uint64_t end_byte) {
  const TreeGeometry& geometry = file_.source_.geometry;
  if (geometry.levels() == 0 || first_byte >= end_byte) return {};
  const std::uint64_t block = geometry.block_size();
  const std::uint64_t each = geometry.digests_per_block();
  const std::uint64_t last_block = (end_byte - 1) / block;
  std::size_t left = 0;
  for (std::uint64_t at = first_byte / block; at <= last_block; at = (at / each + 1) * each) {
    need_unit_of(geometry.digest_over(0, at).block, &left);
  }
  for (left = units_.size(); left > 0; --left) {
    if (take_if_good(units_[left - 1])) continue;
    const std::uint64_t start = units_[left - 1].index * unit_bytes() - file_.source_.tree_offset;
    const std::uint64_t end = std::min(start + unit_bytes(), geometry.tree_size());
    for (std::uint64_t byte = start; byte < end; byte += block) {
      const TreeGeometry::Position at = geometry.position(byte / block);
      if (at.level + 1 == geometry.levels()) continue;  // the root's block: its digest is the descriptor's
      need_unit_of(geometry.digest_of_child(at.level + 1, at.index).block, &left);
    }
  }
  return {};
}

// *left: how many units come up to and with the one that is looked at; one that is added comes before it.
void VerityWindow::need_unit_of(std::uint64_t tree_byte, std::size_t* left) {
  const std::uint64_t index = (file_.source_.tree_offset + tree_byte) / unit_bytes();
  const auto at = std::lower_bound(units_.begin(), units_.end(), index,
                                   [](const Unit& unit, std::uint64_t wanted) { return unit.index < wanted; });
  if (at != units_.end() && at->index == index) return;
  units_.insert(at, Unit{.index = index});
  ++*left;
}

bool VerityWindow::take_if_good(Unit& unit) {
  const std::uint64_t page = unit.index * unit_bytes() >> kPageShift;
  Folio* const folio = get_folio(tree(), page);
  if (folio == nullptr) return false;
  // Behind our reference it can be split no more; a larger one never was.
  const bool good =
      folio->has(kUptodate) && folio->size_bytes() == unit_bytes() && folio->index.load(memory_order_relaxed) == page;
  if (!good) {
    tree().cache.put_folio(*folio);
    return false;
  }
  set_referenced(*folio);
  unit.folio = folio;
  unit.state = State::good;
  return true;
}

// Each unit that is not good becomes ours, others' or apart, in their order; what is to be read is planned.
Status VerityWindow::acquire() {
  acquired_ = true;
  std::uint32_t wanted = 0;
  for (const Unit& unit : units_) wanted += unit.state == State::wanted ? file_.unit_pages() : 0;
  FrameReservation frames(tree().cache.pool);
  const unsigned order = static_cast<unsigned>(std::countr_zero(file_.unit_pages()));
  if (wanted != 0) static_cast<void>(tree().cache.try_reserve(frames, wanted, order));
  for (std::size_t i = 0; i < units_.size(); ++i) {
    Unit& unit = units_[i];
    if (unit.state == State::wanted) QUIRE_TRY(acquire(unit, frames));
    if (unit.state != State::ours && unit.state != State::apart) continue;
    char* const memory = unit.memory != nullptr ? unit.memory : unit.folio->bytes();
    QUIRE_TRY(plan(*file_.source_.sidecar, false, i, unit.index * unit_bytes(), memory));
  }
  return {};
}

Status VerityWindow::acquire(Unit& unit, FrameReservation& frames) {
  const std::uint64_t page = unit.index * unit_bytes() >> kPageShift;
  const unsigned order = static_cast<unsigned>(std::countr_zero(file_.unit_pages()));
  for (;;) {
    if (take_if_good(unit)) return {};
    if (Folio* const folio = get_folio(tree(), page); folio != nullptr) {
      if (adopt(unit, *folio)) return {};
      if (unit_bytes() > kPageSize && !take_if_good(unit)) return set_apart(unit);  // a part of it, most likely
      if (unit.state == State::good) return {};
      continue;
    }
    Folio* const frame = frames.take(order);
    if (frame == nullptr) return set_apart(unit);
    const bool whole = frame->size_bytes() == unit_bytes();
    const Status inserted = whole ? insert_new(tree(), *frame, page) : fail(ENOMEM);
    if (inserted.ok()) {
      unit.folio = frame;
      unit.state = State::ours;
      return {};
    }
    frames.put(*frame);
    // Where another of its pages is there, it stays so for as long as it likes.
    if (inserted.errnum() != EEXIST || unit_bytes() > kPageSize) return set_apart(unit);
  }
}

// A folio that is there and not good (referenced): others are reading it. (What failed they take out before they unlock
// it, so that whoever else locks a folio of the tree, reclaim say, locks a good one.) False: it is not the unit's, or
// not any more; the reference is given back.
bool VerityWindow::adopt(Unit& unit, Folio& folio) {
  const std::uint64_t page = unit.index * unit_bytes() >> kPageShift;
  const auto is_unit = [&] {
    return folio_is(folio, &tree(), page) && folio.size_bytes() == unit_bytes() &&
           folio.index.load(memory_order_relaxed) == page;
  };
  unit.folio = &folio;
  if (!try_lock_folio(folio)) {
    if (is_unit()) return unit.state = State::others, true;
  } else if (!is_unit() || folio.has(kUptodate)) {
    unlock_folio(folio);
  } else {
    return unit.state = State::ours, true;
  }
  unit.folio = nullptr;
  tree().cache.put_folio(folio);
  return false;
}

Status VerityWindow::set_apart(Unit& unit) {
  const auto memory = allocate();
  QUIRE_TRY(memory);
  unit.memory = memory.value();
  unit.state = State::apart;
  return {};
}

// The units of data that the batch has only pages of.
Status VerityWindow::need_parts(FillBatch& batch) {
  const std::uint64_t data_pages = (file_.source_.geometry.data_size() + kPageSize - 1) >> kPageShift;
  const std::uint64_t pages = file_.unit_pages();
  parts_.reserve(batch.count());  // also for what the verdict adds
  for (std::size_t i = 0; i < batch.count();) {
    const std::uint64_t unit = batch.folio(i).index.load(memory_order_relaxed) / pages;
    const std::uint64_t end = std::min((unit + 1) * pages, data_pages);
    std::uint64_t next = unit * pages;  // the pages before it are in the batch
    for (; i < batch.count() && batch.folio(i).index.load(memory_order_relaxed) < (unit + 1) * pages; ++i) {
      const std::uint64_t first = batch.folio(i).index.load(memory_order_relaxed);
      if (first <= next) next = first + batch.folio(i).pages();
    }
    if (next >= end) continue;
    const auto memory = allocate();
    QUIRE_TRY(memory);
    parts_.push_back(Part{unit, memory.value()});
    QUIRE_TRY(plan(batch.backing(), true, parts_.size() - 1, unit * unit_bytes(), memory.value()));
  }
  return {};
}

// One unit from `offset` of the backing into memory: its holes and what lies past the end are zeros.
Status VerityWindow::plan(Backing& backing, bool of_data, std::size_t which, std::uint64_t offset, char* memory) {
  for (std::uint64_t at = offset; at < offset + unit_bytes();) {
    const auto extent = backing.map(at, offset + unit_bytes() - at);
    QUIRE_TRY(extent);
    char* const to = memory + (at - offset);
    if (extent.value().kind == ExtentKind::written) {
      auto read = std::make_unique<Read>();
      read->vector = iovec{to, extent.value().length};
      read->request.op = IoOp::read;
      read->request.offset = extent.value().address;
      read->request.buffers = std::span(&read->vector, 1);
      read->of_data = of_data;
      read->which = which;
      reads_.push_back(std::move(read));
    } else {
      std::memset(to, 0, extent.value().length);
    }
    at += extent.value().length;
  }
  return {};
}

void VerityWindow::detach_locks() {
  detached_ = true;
  for (Unit& unit : units_) {
    if (unit.state == State::ours) lock_detach(unit.folio);
  }
}

void VerityWindow::send(void (*ended)(void*), void* argument) {
  ended_ = ended;
  argument_ = argument;
  left_.store(static_cast<std::uint32_t>(reads_.size()), memory_order_relaxed);
  std::size_t of_data = 0;
  for (auto& read : reads_) {
    read->request.context = this;
    read->request.done = [](Request& done) {
      VerityWindow& window = *static_cast<VerityWindow*>(done.context);
      if (window.left_.fetch_sub(1, memory_order_acq_rel) == 1) window.ended_(window.argument_);
    };
    requests_.push_back(&read->request);
    of_data += read->of_data ? 1 : 0;
  }
  // Parts of the data come first in the list.
  tree().cache.stats.count(Counter::verity_hash_reads, reads_.size() - of_data);
  const std::span<Request* const> all = requests_;
  Device& data = *data_device_;
  Device& hashes = file_.source_.sidecar->device();
  // The last submission may end us.
  const auto parts = all.first(of_data), tree_reads = all.subspan(of_data);
  if (!tree_reads.empty()) hashes.submit(tree_reads);
  if (!parts.empty()) data.submit(parts);
}

}  // namespace quire
