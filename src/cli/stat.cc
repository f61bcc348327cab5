// `quire stat`: a file's attributes as the cache sees them, and the cache's counters on one line.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/file_operations.h"
#include "cli/support.h"

namespace quire {

namespace {

std::string mode_text(mode_t mode) {
  std::string text = S_ISBLK(mode) ? "b" : "-";
  for (int shift = 6; shift >= 0; shift -= 3) {
    const unsigned bits = (mode >> shift) & 7;
    text += (bits & 4) ? 'r' : '-';
    text += (bits & 2) ? 'w' : '-';
    text += (bits & 1) ? 'x' : '-';
  }
  if (mode & S_ISUID) text[3] = (mode & S_IXUSR) ? 's' : 'S';
  if (mode & S_ISGID) text[6] = (mode & S_IXGRP) ? 's' : 'S';
  if (mode & S_ISVTX) text[9] = (mode & S_IXOTH) ? 't' : 'T';
  return text;
}

std::string time_text(const timespec& time) {
  tm parts{};
  char date[64];
  char zone[16];
  if (localtime_r(&time.tv_sec, &parts) == nullptr) return fmt::format("{}.{:09}", time.tv_sec, time.tv_nsec);
  (void)std::strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &parts);
  (void)std::strftime(zone, sizeof zone, "%z", &parts);
  return fmt::format("{}.{:09} {}", date, time.tv_nsec, zone);
}

// The counters that are not zero, nested ones by dotted names.
void append_counters(const nlohmann::ordered_json& value, const std::string& name, std::string& line) {
  if (value.is_object()) {
    for (const auto& [key, child] : value.items()) append_counters(child, name.empty() ? key : name + "." + key, line);
  } else if (!value.is_array() && !value.is_null() && !(value.is_number() && value == 0)) {
    line += fmt::format("{}{} {}", line.empty() ? "" : ", ", name, value.dump());
  }
}

// Empty where the library cannot say: quire_error_message() tells why.
std::string cache_counters(quire_cache* cache) {
  std::vector<char> text(16384);
  const ssize_t length = quire_stats_json(cache, text.data(), text.size());
  if (length < 0) return {};
  if (static_cast<std::size_t>(length) >= text.size()) {
    text.resize(static_cast<std::size_t>(length) + 4096);  // room for counters that grow meanwhile
    if (quire_stats_json(cache, text.data(), text.size()) < 0) return {};
  }
  const auto statistics = nlohmann::ordered_json::parse(text.data(), nullptr, false);
  std::string line;
  if (!statistics.is_discarded()) append_counters(statistics, "", line);
  return line.empty() ? "all counters zero" : line;
}

}  // namespace

int stat_file(const ReadFile& wanted, std::uint64_t memory) {
  const std::string& path = wanted.path;
  CachePtr cache = make_cache(memory);
  if (!cache) return report_quire_error();
  FilePtr file = open_to_read(cache, path, wanted.digest, wanted.certificates);
  if (!file) return report_quire_error();
  struct stat st {};
  if (quire_fstat(file.get(), &st) != 0) return report_quire_error();
  const std::string counters = cache_counters(cache.get());
  if (counters.empty()) return report_quire_error();

  fmt::print("  File: {}\n", path);
  fmt::print("  Size: {:<15} Blocks: {:<10} IO Block: {:<6} {}\n", st.st_size, st.st_blocks, st.st_blksize,
             S_ISBLK(st.st_mode) ? "block device" : "regular file");
  fmt::print("Device: {},{:<11} Inode: {:<11} Links: {}\n", major(st.st_dev), minor(st.st_dev), st.st_ino, st.st_nlink);
  fmt::print("  Mode: {:04o}/{}  Uid: {}  Gid: {}\n", st.st_mode & 07777, mode_text(st.st_mode), st.st_uid, st.st_gid);
  fmt::print("Access: {}\nModify: {}\nChange: {}\n", time_text(st.st_atim), time_text(st.st_mtim),
             time_text(st.st_ctim));
  fmt::print(" Cache: {}\n", counters);
  if (!close_file(file) || !close_cache(cache)) return report_quire_error();
  return 0;
}

}  // namespace quire
