// Choices of operations: see workload.h.
#include "testing/workload.h"

#include <algorithm>

namespace quire::judge {
namespace {

constexpr uint64_t kBlock = 4096;  // what collapse, insert, clone, dedupe and exchange are aligned to

constexpr uint64_t kSector = 512;  // what most devices want direct I/O to be aligned to
constexpr uint64_t kWord = 8;      // what is loaded and stored in views

uint64_t align_down(uint64_t value) { return value / kBlock * kBlock; }

bool at_the_end(OpKind kind) {
  return kind == OpKind::kAppend || kind == OpKind::kTruncate || kind == OpKind::kFalloc || kind == OpKind::kUnshare;
}

bool aligned(OpKind kind) {
  return kind == OpKind::kCollapse || kind == OpKind::kInsert || kind == OpKind::kClone || kind == OpKind::kDedupe ||
         kind == OpKind::kExchange;
}

}  // namespace

Workload::Workload(uint64_t seed, WorkloadLimits limits, std::vector<OpKind> kinds) : random_(seed), limits_(limits) {
  for (const OpKind kind : kinds) {
    const bool both = kind == OpKind::kDirect || kind == OpKind::kDirectAsync;
    const bool reads = kind == OpKind::kRead || kind == OpKind::kViewLoad;
    if (reads || both) readers_.push_back(kind);
    if (!reads || both) mutators_.push_back(kind);
  }
}

bool Workload::uses(OpKind kind) const {
  return std::find(mutators_.begin(), mutators_.end(), kind) != mutators_.end() ||
         std::find(readers_.begin(), readers_.end(), kind) != readers_.end();
}

// Most ranges are the two that file systems are known to tear: inside one page, and over many.
uint64_t Workload::choose_length() {
  const uint64_t kind = random_.below(100);
  uint64_t length;
  if (kind < 35) {
    length = 3900 - random_.below(8);
  } else if (kind < 65) {
    length = 120000 + random_.below(16);
  } else if (kind < 75) {
    length = random_.between(1, 64);
  } else if (kind < 85) {
    length = kBlock * random_.between(1, 16);
  } else {
    length = random_.between(1, limits_.max_change);
  }
  return std::min(length, limits_.max_change);
}

Spot Workload::choose_spot(const std::vector<uint64_t>& sizes) {
  Spot spot;
  spot.file = static_cast<int>(random_.below(sizes.size()));
  const auto others = static_cast<uint64_t>(sizes.size()) - 1;
  spot.other = others == 0
                   ? spot.file
                   : static_cast<int>((static_cast<uint64_t>(spot.file) + 1 + random_.below(others)) % sizes.size());
  if (!mutators_.empty()) spot.kind = mutators_[random_.below(mutators_.size())];
  spot.length = choose_length();
  const uint64_t size = sizes[static_cast<size_t>(spot.file)];
  if (at_the_end(spot.kind) || random_.chance(10)) {
    // The range ends a little before or after the end of the file.
    const uint64_t back = spot.length / 2 + random_.below(spot.length);
    spot.offset = size > back ? size - back : 0;
  } else {
    spot.offset = random_.below(size > spot.length ? size - spot.length : 1);
    if (spot.length < kBlock && random_.chance(90)) {  // inside one page
      spot.offset = align_down(spot.offset) + random_.below(kBlock - spot.length);
    }
  }
  // Changes that begin at whole words: what choose_word needs of those that change the word.
  const bool views = uses(OpKind::kViewLoad) || uses(OpKind::kViewStore);
  if (views && random_.chance(60)) spot.offset = spot.offset / kWord * kWord;
  spot.two_files = op_has_source(spot.kind) && spot.other != spot.file && random_.chance(70);
  return spot;
}

void Workload::plan_source(const Spot& spot, const std::vector<uint64_t>& sizes, Op* op) {
  op->source_slot = spot.two_files ? 1 : 0;
  const uint64_t size = sizes[static_cast<size_t>(spot.two_files ? spot.other : spot.file)];
  op->source_offset = random_.below(size > op->length ? size - op->length : 1);
  if (spot.two_files && random_.chance(50)) op->source_offset = std::min(op->offset, size);
  if (aligned(op->kind)) op->source_offset = align_down(op->source_offset);
  const bool overlap = op->source_offset < op->offset + op->length && op->offset < op->source_offset + op->length;
  if (op->source_slot == op->slot && overlap) {
    op->source_offset = op->offset >= op->length ? op->offset - op->length : op->offset + op->length;
  }
}

Op Workload::plan_op(OpKind kind, const Spot& spot, const std::vector<uint64_t>& sizes) {
  Op op;
  op.kind = kind;
  op.offset = spot.offset + (random_.chance(30) ? random_.below(16) : 0);
  op.length = spot.length;
  if (random_.chance(20)) {  // a part of it
    const uint64_t from = random_.below(spot.length);
    op.offset = spot.offset + from;
    op.length = random_.between(1, spot.length - from);
  }
  if (aligned(kind)) {
    op.offset = align_down(op.offset);
    op.length = std::max(kBlock, align_down(std::min(op.length + kBlock - 1, limits_.max_change)));
  }
  op.keep_size = random_.chance(50) && (kind == OpKind::kFalloc || kind == OpKind::kZero || kind == OpKind::kUnshare);
  if (kind == OpKind::kTruncate) op.offset = spot.offset + random_.below(2 * spot.length + 1);
  if (op_has_source(kind)) plan_source(spot, sizes, &op);
  if (kind == OpKind::kDirect || kind == OpKind::kDirectAsync) {
    op.kind = OpKind::kWrite;
    go_direct(kind, limits_.max_change, random_, &op);
  }
  if (kind == OpKind::kViewStore) {  // where: choose_word
    op.kind = OpKind::kWrite;
    op.via = Via::kView;
    op.length = kWord;
  }
  return op;
}

// Offset, count and memory of all alignments, and many of those that devices take.
void Workload::go_direct(OpKind kind, uint64_t most, Random& random, Op* op) {
  op->via = kind == OpKind::kDirect ? Via::kDirect : random.chance(70) ? Via::kDirectAsync : Via::kAsync;
  const uint64_t choice = random.below(100);
  const uint64_t unit = choice < 30 ? kBlock : choice < 60 ? kSector : 1;
  const uint64_t end = (op->offset + op->length + unit - 1) / unit * unit;
  op->offset = op->offset / unit * unit;
  op->length = std::min(end - op->offset, most / unit * unit);
  if (random.chance(40)) op->skew = static_cast<uint16_t>(random.below(kBlock));
  if (random.chance(50)) op->skew = static_cast<uint16_t>(op->skew / kSector * kSector);
}

void Workload::choose_word(const std::vector<uint64_t>& sizes, std::vector<std::vector<Op>>* plans, Spot* spot) {
  spot->word.reset();
  spot->stores = false;
  if (!uses(OpKind::kViewLoad) && !uses(OpKind::kViewStore)) return;
  uint64_t low = sizes[static_cast<size_t>(spot->file)];  // the size is never less in this window
  uint64_t collapsed = 0;
  for (const std::vector<Op>& ops : *plans) {
    for (const Op& op : ops) {
      if (op.kind == OpKind::kTruncate) low = std::min(low, op.offset);
      if (op.kind == OpKind::kCollapse) collapsed += op.length;
    }
  }
  low -= std::min(low, collapsed);
  const auto fits = [&](uint64_t word) {
    const auto cuts = [word](uint64_t edge) { return edge > word && edge < word + kWord; };
    for (const std::vector<Op>& ops : *plans) {
      for (const Op& op : ops) {
        if (op.via == Via::kView) continue;
        const uint64_t end = op.offset + op.length;
        if (cuts(op.offset) || cuts(end)) return false;
        if (word >= op.offset && word < end && (op.offset % kWord != 0 || end > low)) return false;
        if (!op_has_source(op.kind) || op.source_slot != 0) continue;
        const uint64_t source_end = op.source_offset + op.length;
        if (cuts(op.source_offset) || cuts(source_end)) return false;
        if (op.kind == OpKind::kCopy && word >= op.source_offset && word < source_end) return false;
      }
    }
    return true;
  };
  for (int tries = 0; tries < 16 && low >= kWord && !spot->word; ++tries) {
    uint64_t word = spot->offset + random_.below(spot->length);
    if (word > low - kWord) word = low - kWord - std::min(low - kWord, random_.below(64));
    word = word / kWord * kWord;
    if (fits(word)) spot->word = word;
  }
  for (std::vector<Op>& ops : *plans) {
    if (!spot->word) std::erase_if(ops, [](const Op& op) { return op.via == Via::kView; });
    for (Op& op : ops) {
      if (op.via != Via::kView) continue;
      op.offset = *spot->word;
      spot->stores = true;
    }
  }
}

std::vector<Op> Workload::plan_mutator(const Spot& spot, const std::vector<uint64_t>& sizes, int count) {
  std::vector<Op> ops;
  bool fresh = random_.chance(50);
  while (static_cast<int>(ops.size()) < count && !mutators_.empty()) {
    OpKind kind = spot.kind;
    // What removes data needs data to remove: write between.
    if (fresh && uses(OpKind::kWrite) && kind != OpKind::kAppend) kind = OpKind::kWrite;
    if (random_.chance(15)) kind = mutators_[random_.below(mutators_.size())];
    fresh = !fresh;
    Op op = plan_op(kind, spot, sizes);
    // Two equal ranges to share, more often than chance would give them.
    if (kind == OpKind::kDedupe && random_.chance(50) && static_cast<int>(ops.size()) + 2 <= count &&
        (uses(OpKind::kCopy) || uses(OpKind::kClone))) {
      Op before = op;
      before.kind = uses(OpKind::kCopy) ? OpKind::kCopy : OpKind::kClone;
      ops.push_back(before);
    }
    ops.push_back(op);
  }
  return ops;
}

Op Workload::plan_read(const Spot& spot, Random& random) const {
  Op op;
  op.slot = spot.two_files && random.chance(30) ? 1 : 0;
  const uint64_t kind = random.below(100);
  uint64_t from = spot.offset;
  uint64_t length = spot.length;
  if (kind < 45) {  // the very range, or a few bytes more
    const uint64_t more = random.chance(50) ? random.below(64) : 0;
    from -= std::min(from, more);
    length += 2 * more;
  } else if (kind < 60) {  // a part of it
    const uint64_t skip = random.below(spot.length);
    from += skip;
    length = random.between(1, spot.length - skip);
  } else if (kind < 75) {  // a few bytes of it
    from += random.below(spot.length);
    length = random.between(1, 64);
  } else if (kind < 85) {  // what lies behind it as well
    length += random.below(spot.length + kBlock);
  } else {  // much around it
    const uint64_t most = random.chance(20) ? limits_.max_read : std::min(limits_.max_read, 4 * spot.length + kBlock);
    const uint64_t before = std::min(from, random.below(most / 2 + 1));
    from -= before;
    length = random.between(std::min(before + 1, most), most);
  }
  op.offset = from;
  op.length = std::min(length, limits_.max_read);
  const OpKind by = readers_.size() == 1 ? readers_[0] : readers_[random.below(readers_.size())];
  if (by == OpKind::kDirect || by == OpKind::kDirectAsync) go_direct(by, limits_.max_read, random, &op);
  if (by == OpKind::kViewLoad && spot.word) {
    op.via = Via::kView;
    op.slot = 0;
    op.offset = *spot.word;
    op.length = kWord;
  }
  if (spot.stores && op.slot == 0 && op.offset < *spot.word + kWord && *spot.word < op.offset + op.length) {
    op.offset = *spot.word;
    op.length = kWord;
  }
  return op;
}

Op Workload::probe(OpKind kind) const {
  Op op;
  op.kind = kind;
  op.offset = 16 * kBlock;
  op.length = 4 * kBlock;
  op.source_slot = limits_.files > 1 ? 1 : 0;
  op.source_offset = 64 * kBlock;
  if (kind < OpKind::kDirect) return op;
  op.kind = kind == OpKind::kViewLoad ? OpKind::kRead : OpKind::kWrite;
  op.via = kind == OpKind::kDirect ? Via::kDirect : kind == OpKind::kDirectAsync ? Via::kDirectAsync : Via::kView;
  if (op.via == Via::kView) op.length = kWord;
  return op;
}

}  // namespace quire::judge
