// Where a benchmark's JSON and its table go.
#pragma once

#include <cstdio>
#include <string>

namespace quire {

class JsonFile {
 public:
  // path: a file (opened now, so that a wrong name is said before the work), "-" for standard output (the table then
  // goes to stderr), or empty. Throws BenchError.
  explicit JsonFile(const std::string& path);
  ~JsonFile();
  JsonFile(const JsonFile&) = delete;
  JsonFile& operator=(const JsonFile&) = delete;

  bool wanted() const { return file_ != nullptr; }
  std::FILE* table() const { return path_ == "-" ? stderr : stdout; }

  // All of it, once; only where it is wanted. Throws BenchError.
  void write(const std::string& text);

 private:
  const std::string path_;
  std::FILE* file_ = nullptr;
};

}  // namespace quire
