// The table as it grows, and the JSON array at the end.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "cli/bench.h"

namespace quire {

class BenchReport {
 public:
  // json: a file (opened now, so that a wrong name is said before the work), "-" for standard output (the table then
  // goes to stderr), or empty. Throws BenchError.
  explicit BenchReport(const std::string& json);
  ~BenchReport();
  BenchReport(const BenchReport&) = delete;
  BenchReport& operator=(const BenchReport&) = delete;

  // Prints rows measured against each other: the last column compares each with quire's, if it is among them.
  void add(const std::vector<BenchRow>& rows);
  // Writes the JSON. Throws BenchError.
  void finish();

 private:
  const std::string json_path_;
  std::FILE* table_;
  std::FILE* json_ = nullptr;
  bool header_printed_ = false;
  std::vector<BenchRow> rows_;
};

}  // namespace quire
