// The leader of the judge: see judge.h. All of it runs on the calling thread.
#include "testing/judge.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>

#include "testing/crew.h"
#include "testing/model.h"
#include "testing/pattern.h"
#include "testing/workload.h"

namespace quire::judge {
namespace {

constexpr uint64_t kChunk = 256 << 10;
constexpr uint64_t kMostErrors = 64;
constexpr size_t kErrorsKept = 16;
constexpr uint64_t kMostMinimized = 32;
constexpr uint64_t kWindowsBetweenFullReads = 256;
constexpr uint64_t kMostMutators = 6;  // a window, when several threads change: 1,957 contents at most

class Leader {
 public:
  Leader(System& system, const JudgeOptions& options)
      : system_(system),
        options_(options),
        start_(std::chrono::steady_clock::now()),
        images_(static_cast<size_t>(options.files)),
        write_buffer_(kChunk) {}

  JudgeReport run() {
    if (set_up()) {
      const Workload probing(options_.seed, limits(), options_.ops);
      std::vector<OpKind> kinds;
      for (const OpKind kind : options_.ops) {
        if (supported(kind, probing)) {
          kinds.push_back(kind);
        } else {
          report_.skipped.push_back(kind);
        }
      }
      Workload workload(options_.seed, limits(), kinds);
      Crew crew(system_, workload, std::max(2, options_.threads), options_.seed);
      while (!kinds.empty() && !over()) run_spot(workload, crew);
    }
    finish();
    return std::move(report_);
  }

 private:
  WorkloadLimits limits() const {
    WorkloadLimits result;
    result.file_size = options_.file_size;
    result.max_read = options_.max_operation;
    result.max_change = std::min(kChunk, options_.max_operation);
    result.files = options_.files;
    return result;
  }

  double elapsed() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

  bool over() const {
    if (failed_ || report_.error_count >= kMostErrors) return true;
    if (options_.stop_at_first && !report_.linearizable()) return true;
    if (options_.windows > 0 && report_.windows >= options_.windows) return true;
    return elapsed() >= options_.seconds;
  }

  uint64_t tag(int file) { return make_tag(static_cast<unsigned>(file), ++last_operation_); }
  Image& image(int file) { return images_[static_cast<size_t>(file)]; }

  void error(const std::string& what, int64_t result) {
    ++report_.error_count;
    if (report_.errors.size() >= kErrorsKept) return;
    std::string text = what + ": " + std::strerror(static_cast<int>(-result));
    if (const std::string more = system_.last_error(); !more.empty()) text += " (" + more + ")";
    report_.errors.push_back(std::move(text));
  }

  // The judge's own changes, while nothing else runs: a failure ends the run.
  bool fill(int file, uint64_t offset, uint64_t length) {
    for (uint64_t done = 0; done < length;) {
      const uint64_t count = std::min({kChunk, options_.max_operation, length - done});
      const uint64_t name = tag(file);
      const uint64_t begin = (offset + done) % 8;
      fill_pattern(write_buffer_.data(), count, name, begin);
      const ssize_t n = system_.write(file, write_buffer_.data(), count, offset + done);
      if (n <= 0) return fail("write while filling file " + std::to_string(file), n < 0 ? n : -EIO);
      done += static_cast<uint64_t>(n);
      if (image(file).size() < offset + done) image(file).resize(offset + done);
      fill_pattern(image(file).data() + offset + done - static_cast<uint64_t>(n), static_cast<size_t>(n), name, begin);
    }
    return true;
  }

  bool cut(int file, uint64_t size) {
    const int status = system_.truncate(file, size);
    if (status != 0) return fail("truncate of file " + std::to_string(file), status);
    image(file).resize(size);
    return true;
  }

  bool fail(const std::string& what, int64_t result) {
    error(what, result);
    failed_ = true;
    return false;
  }

  bool set_up() {
    const int status = system_.create(options_.files);
    if (status != 0) return fail("making the files", status);
    created_ = true;
    for (int file = 0; file < options_.files; ++file) {
      if (!fill(file, 0, options_.file_size + static_cast<uint64_t>(file) * 1237)) return false;
    }
    return true;
  }

  // Tries an operation on quiet files; what the system has is checked like any other window.
  bool supported(OpKind kind, const Workload& workload) {
    if (failed_) return true;
    if (kind <= OpKind::kTruncate) return true;
    if (kind >= OpKind::kDirect) {
      const int status = system_.prepare(kind);
      if (status == -ENOSYS || status == -EOPNOTSUPP || status == -EPERM) {
        std::string why = std::string(op_name(kind)) + ": " + std::strerror(-status);
        if (const std::string more = system_.last_error(); !more.empty()) why += " (" + more + ")";
        report_.reasons.push_back(std::move(why));
        return false;
      }
      if (status != 0) return fail("preparing for " + std::string(op_name(kind)), status);
    }
    Window window = begin_window(0, options_.files > 1 ? 1 : 0);
    Op op = workload.probe(kind);
    op.tag = tag(0);
    fill_pattern(write_buffer_.data(), op.length, op.tag, op.offset % 8);
    op.invoked = ++quiet_clock_;
    execute(system_, window.files, &op, write_buffer_.data());
    op.returned = ++quiet_clock_;
    if (kind >= OpKind::kDirect && op.result < 0) return fail("trying " + std::string(op_name(kind)), op.result);
    for (const int error : {EOPNOTSUPP, ENOSYS, ENOTTY, EXDEV, EINVAL}) {
      if (op.result == -error) return false;
    }
    (op.kind == OpKind::kRead ? window.reads : window.mutators).push_back(op);
    end_window(&window);
    return true;
  }

  Window begin_window(int file, int other) {
    Window window;
    window.number = report_.windows;
    window.files = {file, other};
    window.base[0] = &image(file);
    if (other != file) window.base[1] = &image(other);
    return window;
  }

  // A few windows at one place.
  void run_spot(Workload& workload, Crew& crew) {
    std::vector<uint64_t> sizes = current_sizes();
    const Spot spot = workload.choose_spot(sizes);
    for (const int file : {spot.file, spot.other}) {
      const uint64_t size = image(file).size();
      if (size < options_.file_size / 2 && !fill(file, size, options_.file_size - size)) return;
      if (size > options_.file_size / 2 * 3 && !cut(file, options_.file_size + workload.random().below(4096))) return;
    }
    const uint64_t size = image(spot.file).size();
    const bool refill = !workload.uses(OpKind::kWrite) || workload.random().chance(50);
    if (refill && spot.offset < size && !fill(spot.file, spot.offset, std::min(spot.length, size - spot.offset)))
      return;

    const int mutators = workload.mutates() ? choose_crew(workload.random(), crew.mutators()) : 0;
    const int readers = choose_crew(workload.random(), crew.readers());
    for (uint64_t left = workload.random().between(1, 16); left > 0 && !over(); --left) {
      sizes = current_sizes();
      Window window = begin_window(spot.file, spot.two_files ? spot.other : spot.file);
      Spot here = spot;
      std::vector<std::vector<Op>> plans = plan(workload, spot, sizes, mutators);
      workload.choose_word(sizes, &plans, &here);
      crew.run(here, std::move(plans), readers, &window);
      quiet_clock_ = crew.tick();
      ++report_.windows;
      count(&window);
      end_window(&window);
      if (report_.windows % kWindowsBetweenFullReads == 0) {
        check_file(static_cast<int>(workload.random().below(images_.size())));
      }
    }
  }

  // One of a kind more often than not: two threads on two cores meet best.
  static int choose_crew(Random& random, int most) {
    return random.chance(60) ? 1 : static_cast<int>(random.between(1, static_cast<uint64_t>(most)));
  }

  std::vector<std::vector<Op>> plan(Workload& workload, const Spot& spot, const std::vector<uint64_t>& sizes,
                                    int mutators) {
    std::vector<std::vector<Op>> plans(static_cast<size_t>(mutators));
    uint64_t left = kMostMutators;
    for (size_t i = 0; i < plans.size(); ++i) {
      const uint64_t most = std::min<uint64_t>(mutators == 1 ? kMostMutators : 2, left - (plans.size() - 1 - i));
      plans[i] = workload.plan_mutator(spot, sizes, static_cast<int>(workload.random().between(1, most)));
      left -= plans[i].size();
      for (Op& op : plans[i]) op.tag = tag(op.slot == 0 ? spot.file : spot.other);
    }
    return plans;
  }

  std::vector<uint64_t> current_sizes() const {
    std::vector<uint64_t> sizes;
    for (const Image& one : images_) sizes.push_back(one.size());
    return sizes;
  }

  void count(Window* window) {
    for (const std::vector<Op>* ops : {&window->mutators, &window->reads}) {
      for (const Op& op : *ops) {
        ++report_.ops[static_cast<size_t>(chosen_as(op))];
        if (op.result >= 0 || expected_error(op.kind, static_cast<int>(-op.result))) continue;
        error(std::string(op_name(op.kind)) +
                  (op.via == Via::kCall ? "" : " (" + std::string(op_name(chosen_as(op))) + ")") + " of " +
                  std::to_string(op.length) + " bytes at " + std::to_string(op.offset) + " of file " +
                  std::to_string(window->files[op.slot]),
              op.result);
      }
    }
    std::erase_if(window->reads, [](const Op& op) { return op.result < 0; });
  }

  // Reads back what the window may have changed, checks it all, and makes the images what the files now hold.
  void end_window(Window* window) {
    quiet_buffers_.clear();
    for (int slot = 0; slot < 2; ++slot) {
      if (window->base[static_cast<size_t>(slot)] != nullptr) read_back(window, slot);
    }
    if (failed_) return;
    const std::array<Image*, 2> images{&image(window->files[0]),
                                       window->base[1] == nullptr ? nullptr : &image(window->files[1])};
    if (const std::optional<State> state = linearize(*window)) {
      settle(*window, *state, images);
      return;
    }
    convict(*window);
    for (size_t slot = 0; slot < 2; ++slot) {
      if (images[slot] != nullptr) resync(window->files[slot]);
    }
  }

  void read_back(Window* window, int slot) {
    uint64_t low = std::numeric_limits<uint64_t>::max();
    uint64_t high = 0;
    bool resizes = false;
    const uint64_t size = window->base[static_cast<size_t>(slot)]->size();
    const auto touch = [&](const Op& op, uint64_t offset) {
      const bool moves = op.kind == OpKind::kAppend || op.kind == OpKind::kTruncate || op.kind == OpKind::kFalloc ||
                         op.kind == OpKind::kUnshare || op.kind == OpKind::kCollapse || op.kind == OpKind::kInsert;
      resizes = resizes || moves || offset + op.length > size;
      low = std::min(low, op.kind == OpKind::kAppend ? size : offset);
      high = std::max(high, offset + op.length);
    };
    for (const Op& op : window->mutators) {
      if (op.slot == slot) touch(op, op.offset);
      if (op_has_source(op.kind) && op.source_slot == slot) touch(op, op.source_offset);
    }
    if (resizes) {
      read_quietly(window, slot, std::min(low, size > 0 ? size - 1 : 0), std::numeric_limits<uint64_t>::max());
      return;
    }
    if (low < high) read_quietly(window, slot, low, high);
    read_quietly(window, slot, size > 0 ? size - 1 : 0, size + 64);  // the size
  }

  // Adds reads of [low, high), in pieces, to the window; stops at the end of the file.
  void read_quietly(Window* window, int slot, uint64_t low, uint64_t high) {
    while (low < high && !failed_) {
      Op op;
      op.slot = static_cast<uint8_t>(slot);
      op.quiescent = true;
      op.offset = low;
      op.length = std::min({kChunk, options_.max_operation, high - low});
      quiet_buffers_.push_back(std::make_unique_for_overwrite<unsigned char[]>(op.length));
      op.invoked = ++quiet_clock_;
      execute(system_, window->files, &op, quiet_buffers_.back().get());
      op.returned = ++quiet_clock_;
      if (op.result < 0) {
        fail("read of file " + std::to_string(window->files[op.slot]), op.result);
        return;
      }
      window->reads.push_back(op);
      low += op.length;
      if (static_cast<uint64_t>(op.result) < op.length) return;
    }
  }

  void check_file(int file) {
    if (failed_) return;
    Window window = begin_window(file, file);
    quiet_buffers_.clear();
    read_quietly(&window, 0, 0, std::numeric_limits<uint64_t>::max());
    if (failed_ || linearize(window)) return;
    convict(window);
    resync(file);
  }

  void convict(const Window& window) {
    if (report_.linearizable()) report_.first_fault_seconds = elapsed();
    const Diagnosis found = diagnose(window, minimized_++ < kMostMinimized);
    report_.torn += found.torn;
    report_.foreign += found.foreign;
    report_.lost += found.lost;
    const size_t weight = found.witness.mutators.size() + found.witness.reads.size();
    if (!report_.witness.empty() && weight >= witness_weight_) return;
    witness_weight_ = weight;
    report_.witness = explain(found.witness, found.fault);
  }

  // After a conviction the model is no longer known: what is there becomes the truth.
  void resync(int file) {
    Window window = begin_window(file, file);
    quiet_buffers_.clear();
    read_quietly(&window, 0, 0, std::numeric_limits<uint64_t>::max());
    if (failed_) return;
    Image content;
    for (const Op& op : window.reads) content.insert(content.end(), op.data, op.data + op.result);
    image(file).swap(content);
  }

  void finish() {
    if (!created_) return;
    if (const int synced = system_.sync(); synced != 0) error("the sync after the run", synced);
    const int status = system_.finish();
    if (status != 0) error("sync and close", status);
    if (failed_) return;
    for (int file = 0; file < options_.files; ++file) {
      std::vector<unsigned char> content;
      if (const int result = system_.reread(file, &content); result != 0) {
        error("reading file " + std::to_string(file) + " anew", result);
        continue;
      }
      if (content == image(file)) continue;
      Window window = begin_window(file, file);
      Op op;
      op.quiescent = true;
      op.length = std::max(content.size(), image(file).size()) + 1;
      op.invoked = ++quiet_clock_;
      op.returned = ++quiet_clock_;
      op.result = static_cast<int64_t>(content.size());
      op.data = content.data();
      window.reads.push_back(op);
      if (report_.linearizable()) report_.first_fault_seconds = elapsed();
      ++report_.lost;
      if (report_.witness.empty()) report_.witness = "after closing, read anew:\n" + explain(window, Fault::kLost);
    }
  }

  System& system_;
  const JudgeOptions options_;
  const std::chrono::steady_clock::time_point start_;
  JudgeReport report_;
  std::vector<Image> images_;  // what each file holds between windows
  std::vector<unsigned char> write_buffer_;
  std::vector<std::unique_ptr<unsigned char[]>> quiet_buffers_;  // of the current window's quiescent reads
  uint64_t last_operation_ = 0;
  uint64_t quiet_clock_ = 0;  // instants after the crew's last
  uint64_t minimized_ = 0;
  size_t witness_weight_ = 0;
  bool created_ = false;
  bool failed_ = false;
};

}  // namespace

JudgeReport judge(System& system, const JudgeOptions& options) {
  JudgeOptions sane = options;
  sane.files = std::clamp(sane.files, 1, kMaxFiles);
  sane.file_size = std::max<uint64_t>(sane.file_size, 1 << 20);
  sane.max_operation = std::clamp<uint64_t>(sane.max_operation, 4096, 1 << 20);
  return Leader(system, sane).run();
}

}  // namespace quire::judge
