// What the judge records: operations with the instants of their call and return, gathered in windows that begin
// with exactly known content and end quiescent. Plain data; a window belongs to the thread that checks it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quire::judge {

enum class OpKind : uint8_t {
  kRead,
  kWrite,
  kAppend,
  kTruncate,
  kFalloc,
  kPunch,
  kZero,
  kCollapse,
  kInsert,
  kUnshare,
  kClone,
  kDedupe,
  kExchange,
  kCopy,
  // Reads and writes by other ways. Chosen, counted and named by these; recorded as kRead or kWrite with a Via.
  kDirect,
  kDirectAsync,
  kViewLoad,
  kViewStore,
};
inline constexpr int kOpKinds = 18;

std::string_view op_name(OpKind kind);
std::optional<OpKind> op_from_name(std::string_view name);

// True for the operations that take a second file (or a second range of the same one).
bool op_has_source(OpKind kind);

// How a kRead or kWrite reaches the file.
enum class Via : uint8_t {
  kCall,         // through the cache
  kDirect,       // past it
  kAsync,        // through the cache, submitted; `returned` is taken in the callback
  kDirectAsync,  // past it, submitted
  kView,         // a load or a store of one aligned word in a mapped view (workload.h: which)
};

struct Op {
  OpKind kind = OpKind::kRead;  // never kDirect to kViewStore
  Via via = Via::kCall;
  uint8_t slot = 0;         // the file it changes or reads, as an index into Window::files
  uint8_t source_slot = 0;  // op_has_source: the file it takes from (kExchange: the other one)
  bool keep_size = false;   // kFalloc, kZero, kUnshare: FALLOC_FL_KEEP_SIZE
  bool quiescent = false;   // a read of the judge's own, after all threads have met
  bool spoiled = false;     // a short read that changed bytes past its count
  uint16_t thread = 0;
  uint16_t skew = 0;    // not kCall: its memory begins so many bytes past a page boundary
  uint32_t place = 0;   // where in its thread's memory that is
  uint64_t tag = 0;     // pattern.h: what its data is made of
  uint64_t offset = 0;  // kTruncate: the new size
  uint64_t source_offset = 0;
  uint64_t length = 0;
  uint64_t invoked = 0;                 // instants of one counter, all different
  uint64_t returned = 0;                // after invoked
  int64_t result = 0;                   // a count or 0, or -errno
  const unsigned char* data = nullptr;  // what a read returned
};

// What --ops calls it.
inline OpKind chosen_as(const Op& op) {
  switch (op.via) {
    case Via::kCall:
      return op.kind;
    case Via::kDirect:
      return OpKind::kDirect;
    case Via::kAsync:
    case Via::kDirectAsync:
      return OpKind::kDirectAsync;
    case Via::kView:
      return op.kind == OpKind::kRead ? OpKind::kViewLoad : OpKind::kViewStore;
  }
  return op.kind;
}

using Image = std::vector<unsigned char>;

// At most two files take part in a window; base is their content when it begins.
struct Window {
  uint64_t number = 0;
  std::array<int, 2> files{0, 1};
  std::array<const Image*, 2> base{nullptr, nullptr};  // nullptr: an empty file
  std::vector<Op> mutators;                            // at most 32
  std::vector<Op> reads;
};

}  // namespace quire::judge
