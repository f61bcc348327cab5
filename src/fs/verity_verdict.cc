// What the reads of one fill brought, verified from the root down. See verity_window.h and verity.h.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "base/bytes.h"
#include "base/defect.h"
#include "base/error.h"
#include "fs/verity_window.h"

namespace quire {

using verity::BlockHasher;
using verity::TreeGeometry;

bool VerityWindow::verify(FillBatch& batch, bool wait) {
  try {
    if (!verify_now(batch, wait)) return false;
  } catch (const std::bad_alloc&) {  // on threads of quire's own, too
    failed(ENOMEM);
    abandon_all();
    good_.reset();
  }
  if (wait) file_.print_bad();
  return true;
}

bool VerityWindow::verify_now(FillBatch& batch, bool wait) {
  if (file_.source_.at_completion && !acquired_) read_at_completion();
  look_at_reads(looked_);
  FileVerity::HasherLease lease(file_);
  BlockHasher* const hasher = lease.get();
  if (hasher == nullptr) failed(ENOMEM);
  const bool settled = settle_tree(hasher, wait);
  tell_settled();
  if (!settled) return false;
  for (std::size_t i = 0; hasher != nullptr && i < batch.count();) {
    if (unit_bytes() > kPageSize) {
      i = settle_unit(batch, i, *hasher);
    } else {
      good_[i] = batch.read_well(i) && folio_is_good(batch, batch.folio(i), *hasher);
      ++i;
    }
  }
  return true;
}

// Not verified: it leaves the tree before its lock is given up, so that a folio of the tree that is locked and not
// uptodate is always one that a window is about to settle.
void VerityWindow::abandon(Unit& unit) {
  if (unit.state == State::ours) {
    remove_folio(tree(), *unit.folio);
    detached_ ? unlock_folio_async(*unit.folio) : unlock_folio(*unit.folio);
    settled_any_ = true;
  }
  unit.state = State::bad;
}

void VerityWindow::abandon_all() {
  for (Unit& unit : units_) {
    if (unit.state == State::ours) abandon(unit);
  }
  tell_settled();
}

void VerityWindow::failed(int errnum) {
  if (errnum_ == 0) errnum_ = errnum;
}

// As Linux did: from the data up, each read after the one before.
void VerityWindow::read_at_completion() {
  const Status acquired = acquire();
  if (detached_) {
    for (Unit& unit : units_) {
      if (unit.state == State::ours) lock_detach(unit.folio);
    }
  }
  if (!acquired.ok()) {
    failed(acquired.errnum());
    for (Unit& unit : units_) unit.read_well = false;
  }
  for (std::size_t i = units_.size(); i-- > 0 && acquired.ok();) read_now(i);
}

void VerityWindow::read_now(std::size_t unit) {
  std::vector<Request*> requests;
  for (auto& read : reads_) {
    if (!read->of_data && read->which == unit) requests.push_back(&read->request);
  }
  if (requests.empty()) return;
  tree().cache.stats.count(Counter::verity_hash_reads, requests.size());
  tree().cache.stats.count(Counter::verity_late_hash_reads, requests.size());
  file_.source_.sidecar->device().execute(requests);
}

// What a short read lacks is taken for zeros: if that is wrong, it does not verify.
void VerityWindow::look_at_reads(std::size_t first) {
  for (std::size_t i = first; i < reads_.size(); ++i) {
    const auto& read = reads_[i];
    const std::int64_t result = read->request.result;
    const iovec& v = read->vector;
    if (result < 0) {
      failed(static_cast<int>(-result));
      (read->of_data ? parts_[read->which].read_well : units_[read->which].read_well) = false;
    } else if (static_cast<std::uint64_t>(result) < v.iov_len) {
      std::memset(static_cast<char*>(v.iov_base) + result, 0, v.iov_len - static_cast<std::size_t>(result));
    }
  }
  looked_ = reads_.size();
}

// False: one is others', who are not done with it.
bool VerityWindow::settle_tree(BlockHasher* hasher, bool wait) {
  for (; settled_ < units_.size(); ++settled_) {
    Unit& unit = units_[settled_];
    if (unit.state == State::others && !settle_others(settled_, hasher, wait)) return false;
    if (unit.state != State::good && unit.state != State::bad) settle_read(unit, hasher);
  }
  return true;
}

// Good, bad or, where they failed and we may wait, read apart. False: not yet.
bool VerityWindow::settle_others(std::size_t i, BlockHasher* hasher, bool wait) {
  Unit& unit = units_[i];
  while (!unit.folio->has(kUptodate)) {
    if (unit.folio->has(kLocked)) {
      if (!wait) return false;
      tell_settled();  // before a wait: they may wait for ours
      file_.queue_.help(*unit.folio);
      wait_folio_unlocked(*unit.folio);
      continue;
    }
    unit.state = State::bad;  // of a fill that nobody waits for: who wants its folios tries again
    if (!wait) return failed(EIO), true;
    release(unit);
    const std::size_t before = reads_.size();
    Status planned = set_apart(unit);
    if (planned.ok()) planned = plan(*file_.source_.sidecar, false, i, unit.index * unit_bytes(), unit.memory);
    if (!planned.ok()) {
      unit.state = State::bad;
      return failed(planned.errnum()), true;
    }
    read_now(i);
    look_at_reads(before);
    settle_read(unit, hasher);
    return true;
  }
  unit.state = State::good;
  return true;
}

void VerityWindow::settle_read(Unit& unit, BlockHasher* hasher) {
  if (!unit.read_well || hasher == nullptr || !unit_is_good(unit, *hasher)) return abandon(unit);
  if (unit.state == State::ours) {
    make_uptodate(*unit.folio);
    detached_ ? unlock_folio_async(*unit.folio) : unlock_folio(*unit.folio);
    settled_any_ = true;
  }
  unit.state = State::good;
}

void VerityWindow::tell_settled() {
  if (!settled_any_) return;
  settled_any_ = false;
  file_.queue_.progress();
}

// Every block of it, against digests in units before it, or in itself before it. What a bad one vouches for is bad; the
// others of its page may be good.
bool VerityWindow::unit_is_good(Unit& unit, BlockHasher& hasher) {
  const VeritySource& source = file_.source_;
  const TreeGeometry& geometry = source.geometry;
  const std::uint64_t block = geometry.block_size();
  const std::uint64_t start = unit.index * unit_bytes() - source.tree_offset;
  const std::uint64_t end = std::min(start + unit_bytes(), geometry.tree_size());
  std::uint64_t good = 0;
  for (std::uint64_t byte = start; byte < end; byte += block) {
    const TreeGeometry::Position at = geometry.position(byte / block);
    const std::uint8_t* const digest = at.level + 1 == geometry.levels()
                                           ? source.root_hash.bytes.data()
                                           : digest_at(geometry.digest_of_child(at.level + 1, at.index));
    if (digest == nullptr) continue;
    const std::span<const char> bytes{unit.bytes() + (byte - start), block};
    const std::span<const std::uint8_t> expected{digest, hasher.digest_size()};
    if (hasher.matches(bytes, expected) || has_defect(Defect::hashes_read_again_trusted)) {
      unit.good_blocks |= std::uint64_t{1} << ((byte - start) / block);
      ++good;
    } else {
      file_.tell_bad(true, source.tree_offset + byte, expected, bytes, hasher);
    }
  }
  tree().cache.stats.count(Counter::verity_hash_blocks, good);
  return good == (end - start) / block;
}

// Null: its block did not verify, or could not be read.
const std::uint8_t* VerityWindow::digest_at(const TreeGeometry::Place& place) const {
  const std::uint64_t byte = file_.source_.tree_offset + place.block;
  const auto unit = std::lower_bound(units_.begin(), units_.end(), byte / unit_bytes(),
                                     [](const Unit& u, std::uint64_t wanted) { return u.index < wanted; });
  DCHECK(unit != units_.end() && unit->index == byte / unit_bytes());
  const std::uint64_t nth = byte % unit_bytes() / file_.source_.geometry.block_size();
  if (unit->state != State::good && (unit->good_blocks >> nth & 1) == 0) return nullptr;
  return reinterpret_cast<const std::uint8_t*>(unit->bytes()) + byte % unit_bytes() + place.offset;
}

bool VerityWindow::block_is_good(std::uint64_t block, const char* bytes, bool hole, BlockHasher& hasher) {
  const VeritySource& source = file_.source_;
  const TreeGeometry& geometry = source.geometry;
  const std::uint8_t* const digest =
      geometry.levels() == 0 ? source.root_hash.bytes.data() : digest_at(geometry.digest_over(0, block));
  if (digest == nullptr) return failed(EIO), false;
  const std::span<const std::uint8_t> expected{digest, hasher.digest_size()};
  const std::span<const char> data{bytes, geometry.data_in_block(block)};
  const bool good = hole ? std::ranges::equal(expected, hasher.zero_digest()) : hasher.matches(data, expected);
  if (good) return true;
  file_.tell_bad(false, block * geometry.block_size(), expected, data, hasher);
  return failed(EIO), false;
}

bool VerityWindow::folio_is_good(const FillBatch& batch, const Folio& folio, BlockHasher& hasher) {
  const TreeGeometry& geometry = file_.source_.geometry;
  const std::uint64_t block = geometry.block_size();
  const std::uint64_t start = folio.index.load(memory_order_relaxed) << kPageShift;
  const std::uint64_t end = std::min(start + folio.size_bytes(), geometry.data_size());
  std::uint64_t blocks = 0;
  for (std::uint64_t at = start; at < end; at += block, ++blocks) {
    const bool hole = batch.is_hole(at, at + block);
    if (!block_is_good(at / block, folio.bytes() + (at - start), hole, hasher)) return false;
  }
  tree().cache.stats.count(Counter::verity_blocks, blocks);
  return true;
}

// The folios of the batch, from the i-th on, that lie in one unit of more than a page, or one that holds several units.
// Returns the next.
std::size_t VerityWindow::settle_unit(FillBatch& batch, std::size_t i, BlockHasher& hasher) {
  const Folio& first = batch.folio(i);
  if (first.size_bytes() >= unit_bytes()) {
    good_[i] = batch.read_well(i) && folio_is_good(batch, first, hasher);
    return i + 1;
  }
  const auto start_of = [&](std::size_t k) { return batch.folio(k).index.load(memory_order_relaxed) << kPageShift; };
  const std::uint64_t unit = start_of(i) / unit_bytes();
  bool good = true;
  std::size_t end = i;
  while (end < batch.count() && start_of(end) / unit_bytes() == unit) good &= batch.read_well(end++);
  const auto part = std::ranges::find(parts_, unit, &Part::index);
  if (unit * unit_bytes() >= file_.source_.geometry.data_size()) {
    // Past the end of the file: zeros.
  } else if (part != parts_.end()) {
    good = good && part->read_well && block_is_good(unit, part->memory, false, hasher);
    // What was verified is what stays: the folios' own bytes were read apart from it.
    for (std::size_t k = i; good && k < end; ++k) {
      Folio& folio = batch.folio(k);
      racy_copy_to_folio(folio.bytes(), part->memory + start_of(k) % unit_bytes(), folio.size_bytes());
    }
  } else {
    const auto memory = allocate();
    if (!memory.ok()) failed(memory.errnum());
    good = good && memory.ok();
    for (std::size_t k = i; good && k < end; ++k) {
      std::memcpy(memory.value() + start_of(k) % unit_bytes(), batch.folio(k).bytes(), batch.folio(k).size_bytes());
    }
    good = good &&
           block_is_good(unit, memory.value(), batch.is_hole(unit * unit_bytes(), (unit + 1) * unit_bytes()), hasher);
    if (memory.ok()) parts_.push_back(Part{unit, memory.value()});  // freed with them
  }
  if (good) tree().cache.stats.count(Counter::verity_blocks);
  for (std::size_t k = i; k < end; ++k) good_[k] = good;
  return end;
}

}  // namespace quire
