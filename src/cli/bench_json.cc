// Opening and writing the JSON of a benchmark; see bench_json.h.
#include "cli/bench_json.h"

#include <cerrno>
#include <utility>

#include "cli/bench.h"
#include "cli/support.h"

namespace quire {

JsonFile::JsonFile(const std::string& path) : path_(path) {
  if (path.empty()) return;
  file_ = path == "-" ? stdout : std::fopen(path.c_str(), "we");
  if (file_ == nullptr) throw BenchError("cannot write " + path + ": " + errno_text(errno));
}

JsonFile::~JsonFile() {
  if (file_ != nullptr && file_ != stdout) (void)std::fclose(file_);
}

void JsonFile::write(const std::string& text) {
  std::FILE* const file = std::exchange(file_, nullptr);
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size() && std::fflush(file) == 0;
  const int errnum = errno;
  const bool closed = file == stdout || std::fclose(file) == 0;
  if (!written || !closed) throw BenchError("cannot write " + path_ + ": " + errno_text(written ? errno : errnum));
}

}  // namespace quire
