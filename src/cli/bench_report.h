// The table as it grows, and the JSON array at the end.
#pragma once

#include <string>
#include <vector>

#include "cli/bench.h"
#include "cli/bench_json.h"

namespace quire {

class BenchReport {
 public:
  // json: as JsonFile's path. Throws BenchError.
  explicit BenchReport(const std::string& json) : json_(json) {}

  // Prints rows measured against each other: the last column compares each with quire's, if it is among them.
  void add(const std::vector<BenchRow>& rows);
  // Writes the JSON. Throws BenchError.
  void finish();

 private:
  JsonFile json_;
  bool header_printed_ = false;
  std::vector<BenchRow> rows_;
};

}  // namespace quire
