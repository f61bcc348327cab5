// A scenario: a few threads with a few operations each on a small world of files in memory, and what must hold. The
// runner (runner.cc) tries its schedules; with a defect switched on, it has to fail.
//
//   class ReadAgainstPunch final : public Scenario { ... };
//   RACE(read_against_punch, ReadAgainstPunch, {Defect::hit_without_gate_recheck});
//
// A scenario is made anew for each schedule: setup() and check() run alone, run(i) side by side. Nothing may depend on
// addresses, on the real time or on what an earlier schedule left: a schedule must replay.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/defect.h"
#include "fs/file_for_test.h"
#include "ram/ram_disk_for_test.h"
#include "testing/scheduler/scheduler.h"

namespace quire::races {

using testing_support::AlignedBytes;
using testing_support::OddBacking;
using testing_support::RamDisk;
using testing_support::TestCache;
using testing_support::TestFile;

class Scenario {
 public:
  virtual ~Scenario() = default;
  virtual void setup() = 0;
  virtual std::vector<scheduling::NamedBody> threads() = 0;
  virtual void check() {}

  // Set by the runner.
  scheduling::FiberScheduler* scheduler = nullptr;

 protected:
  // Ends the schedule as failed unless `holds`. what: what should have been.
  void expect(bool holds, const std::string& what) {
    if (!holds) scheduler->fail(what);
  }
};

// Files in memory behind one small cache. Numbers of files are fixed, so that every schedule begins alike.
class World {
 public:
  explicit World(unsigned block_size = 4096, std::uint32_t frames = PageCache::kMinFrames)
      : disk_(block_size, 512), cache_(frames) {}
  ~World() {
    disk_.heal();
    files_.clear();
  }

  RamDisk& disk() { return disk_; }
  PageCache& cache() { return cache_.cache; }
  // Makes the next file, numbered from 0, holding `bytes` on the disk and nothing in the cache.
  TestFile& add_file(const std::string& bytes = "");
  TestFile& file(std::size_t number) { return *files_[number]; }
  OddBacking& backing(std::size_t number) { return *backings_[number]; }

  // What a read of count bytes at offset returns ("error ERRNO" if it fails).
  std::string read(std::size_t number, std::uint64_t offset, std::size_t count, unsigned flags = 0);
  // 0 or an errno; a short write fails.
  int write(std::size_t number, std::uint64_t offset, const std::string& bytes, unsigned flags = 0);
  int append(std::size_t number, const std::string& bytes) { return write(number, 0, bytes, kIoAppend); }
  // Reads the pages that hold [offset, offset + count): they are resident, and the lookaside knows them.
  void warm(std::size_t number, std::uint64_t offset, std::size_t count);
  // The 2^order pages from `page` on, from the disk, as one folio.
  void warm_large(std::size_t number, std::uint64_t page, unsigned order);
  // Reclaims clean folios until `want` frames have come free or none is left to take. Returns how many.
  std::uint32_t reclaim(std::uint32_t want);

 private:
  RamDisk disk_;
  TestCache cache_;
  std::vector<OddBacking*> backings_;
  std::vector<std::unique_ptr<TestFile>> files_;
};

// `count` times the letter.
inline std::string letters(char letter, std::size_t count) { return std::string(count, letter); }
inline constexpr std::size_t kPage = 4096;

// All bytes are the same letter of `allowed`.
bool is_all_of_one(const std::string& bytes, const std::string& allowed);

struct RegisteredRace {
  const char* name;
  std::function<std::unique_ptr<Scenario>()> make;
  std::vector<Defect> defects;  // each has to be caught
};
std::vector<RegisteredRace>& registered_races();
bool register_race(RegisteredRace race);

#define RACE(name, type, ...)                                                           \
  [[maybe_unused]] static const bool registered_##name = ::quire::races::register_race( \
      ::quire::races::RegisteredRace{#name, [] { return std::make_unique<type>(); }, __VA_ARGS__})

}  // namespace quire::races
