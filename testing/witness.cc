// A witness in words: see explain() in checker.h.
#include <algorithm>
#include <cstring>
#include <map>
#include <sstream>
#include <vector>

#include "testing/checker.h"
#include "testing/pattern.h"

namespace quire::judge {
namespace {

constexpr size_t kMostRuns = 12;
constexpr size_t kMostContents = 12;

std::string result_text(const Op& op) {
  if (op.result < 0) return std::string("error ") + std::strerror(static_cast<int>(-op.result));
  return std::to_string(op.result);
}

const char* via_text(Via via) {
  switch (via) {
    case Via::kCall:
      return "";
    case Via::kDirect:
      return " (direct)";
    case Via::kAsync:
      return " (asynchronous)";
    case Via::kDirectAsync:
      return " (direct, asynchronous)";
    case Via::kView:
      return " (in a view)";
  }
  return "";
}

std::string op_text(const Window& window, const Op& op) {
  std::ostringstream out;
  out << "[" << op.invoked << ", " << op.returned << "] thread " << op.thread << ": " << op_name(op.kind)
      << via_text(op.via);
  if (op.kind != OpKind::kRead) out << " #" << tag_operation(op.tag);
  out << " file " << window.files[op.slot];
  if (op.kind == OpKind::kTruncate) {
    out << " to " << op.offset;
  } else if (op.kind == OpKind::kAppend) {
    out << " " << op.length << " bytes";
  } else {
    out << " [" << op.offset << ", " << op.offset + op.length << ")";
  }
  if (op_has_source(op.kind)) {
    out << (op.kind == OpKind::kExchange ? " with" : " from") << " file " << window.files[op.source_slot] << " ["
        << op.source_offset << ", " << op.source_offset + op.length << ")";
  }
  if (op.keep_size) out << " keeping the size";
  if (op.quiescent) out << " after all threads had met";
  out << " -> " << result_text(op);
  return out.str();
}

void put_runs(const Op& read, std::ostringstream* out) {
  if (read.result <= 0) return;
  const std::vector<NamedRun> runs = name_runs(read.data, static_cast<size_t>(read.result));
  for (size_t i = 0; i < std::min(runs.size(), kMostRuns); ++i) {
    *out << "      [" << read.offset + runs[i].offset << ", " << read.offset + runs[i].offset + runs[i].length << ") "
         << origin_name(runs[i]) << "\n";
  }
  if (runs.size() > kMostRuns) *out << "      and " << runs.size() - kMostRuns << " more runs\n";
  if (read.spoiled) *out << "      and bytes past the returned count were changed\n";
}

std::string happened_text(const Window& window, uint32_t done) {
  std::string text = done == 0 ? "before everything" : "after";
  for (size_t i = 0; i < window.mutators.size(); ++i) {
    if ((done >> i & 1) != 0) text += " #" + std::to_string(tag_operation(window.mutators[i].tag));
  }
  return text;
}

std::string byte_origin(const std::vector<unsigned char>& bytes, size_t at) {
  for (const NamedRun& run : name_runs(bytes.data(), bytes.size())) {
    if (at >= run.offset && at < run.offset + run.length) return origin_name(run);
  }
  return "nothing";
}

// How the read differs from what it would have returned at this content.
std::string difference(const Window& window, const State& state, const Op& read) {
  std::vector<unsigned char> expected(read.length);
  const FileState& file = state.files[read.slot];
  expected.resize(render(window, file, read.offset, read.length, expected.data()));
  if (read.result < 0) return "the read failed";
  const auto count = static_cast<size_t>(read.result);
  if (count != expected.size()) {
    return "the size is " + std::to_string(file.size) + ", a read returns " + std::to_string(expected.size()) +
           ", not " + std::to_string(count);
  }
  size_t at = 0;
  while (at < count && expected[at] == read.data[at]) ++at;
  if (at == count) return "only the bytes past its count are wrong";
  const std::vector<unsigned char> got(read.data, read.data + count);
  return "byte " + std::to_string(read.offset + at) + " is of " + byte_origin(expected, at) + ", the read has " +
         byte_origin(got, at);
}

// Whether a read may have seen this content, real time considered.
bool in_time(const Window& window, const Op& read, uint32_t done) {
  for (size_t i = 0; i < window.mutators.size(); ++i) {
    const bool happened = (done >> i & 1) != 0;
    if (happened && read.returned < window.mutators[i].invoked) return false;
    if (!happened && window.mutators[i].returned < read.invoked) return false;
  }
  return true;
}

void put_reasons(const Window& window, const Op& read, std::ostringstream* out) {
  size_t lines = 0;
  for_each_content(window, 5000, [&](const State& state, uint32_t done) {
    const bool fits = explains(window, state, read);
    const bool possible = in_time(window, read, done);
    if (!fits && !possible) return;
    if (++lines > kMostContents) return;
    *out << "    " << happened_text(window, done) << ": ";
    if (!fits) {
      *out << difference(window, state, read);
    } else {
      *out << (possible ? "fits" : "fits, but real time rules this out");
    }
    *out << "\n";
  });
}

}  // namespace

std::string explain(const Window& window, Fault fault) {
  std::ostringstream out;
  out << fault_name(fault) << " in window " << window.number << " (";
  for (size_t slot = 0; slot < 2; ++slot) {
    if (window.base[slot] == nullptr) continue;
    out << (slot == 0 ? "" : ", ") << "file " << window.files[slot] << " of " << window.base[slot]->size() << " bytes";
  }
  out << " at its start). Operations, [call, return]:\n";
  std::multimap<uint64_t, const Op*> in_order;
  for (const Op& op : window.mutators) in_order.emplace(op.invoked, &op);
  for (const Op& op : window.reads) in_order.emplace(op.invoked, &op);
  for (const auto& [invoked, op] : in_order) {
    out << "  " << op_text(window, *op) << "\n";
    if (op->kind == OpKind::kRead) put_runs(*op, &out);
  }
  if (window.reads.empty()) {
    out << "  No order gives these results.\n";
  } else if (window.reads.size() == 1) {
    out << "  No instant gives what was read:\n";
  } else {
    out << "  Each read has an instant, but no one order has them all:\n";
  }
  for (const Op& read : window.reads) {
    if (window.reads.size() > 1) out << "   the read called at " << read.invoked << ":\n";
    put_reasons(window, read, &out);
  }
  return out.str();
}

}  // namespace quire::judge
