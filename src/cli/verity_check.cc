// `quire verity check`: every block of files against their sidecars, and a line for each that is bad.
#include <fmt/core.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/progress.h"
#include "cli/support.h"
#include "cli/verity.h"

namespace quire {

namespace {

// What the callbacks of one file's check work on.
struct Checked {
  Checked(const std::string& name, bool as_json) : file(name), json(as_json) {}
  const std::string& file;
  const bool json;
  Progress progress{"verity check", 0};
  nlohmann::ordered_json bad = nlohmann::ordered_json::array();
};

// Beside the file itself, wherever a link to it is.
std::string sidecar_of(const std::string& file) {
  std::error_code error;
  const auto target = std::filesystem::canonical(file, error);
  return (error ? file : target.string()) + ".verity";
}

// Of the digests, and of what else there is.
std::string what_is_wrong(const quire_verity_bad_block& bad) {
  if (bad.error != 0) return fmt::format("cannot be read ({}), expected {}", errno_text(bad.error), bad.expected);
  return fmt::format("expected {}, found {}", bad.expected, bad.found);
}

void print_bad(const std::string& file, const quire_verity_bad_block& bad) {
  std::string line;
  switch (bad.kind) {
    case QUIRE_BAD_DATA:
      line =
          fmt::format("{}: data block of {} bytes at offset {}: {}", file, bad.length, bad.offset, what_is_wrong(bad));
      break;
    case QUIRE_BAD_HASH:
      line = fmt::format("{}: hash block of {} bytes at offset {}: {}", sidecar_of(file), bad.length, bad.offset,
                         what_is_wrong(bad));
      break;
    default:
      line = fmt::format("{}: {} bytes at offset {} cannot be verified: their hash block at offset {} of {} is bad",
                         file, bad.length, bad.offset, bad.hash_offset, sidecar_of(file));
  }
  print_note("%s", line.c_str());
}

nlohmann::ordered_json to_json(const quire_verity_bad_block& bad) {
  constexpr const char* kKinds[] = {"data", "hash", "unverified"};
  nlohmann::ordered_json json{{"kind", kKinds[bad.kind]}, {"offset", bad.offset}, {"length", bad.length}};
  if (bad.kind == QUIRE_BAD_UNVERIFIED) json["hash_offset"] = bad.hash_offset;
  if (bad.expected != nullptr) json["expected"] = bad.expected;
  if (bad.found != nullptr) json["found"] = bad.found;
  if (bad.error != 0) json["error"] = errno_text(bad.error);
  return json;
}

void tell_bad(void* arg, const quire_verity_bad_block* bad) {
  Checked& checked = *static_cast<Checked*>(arg);
  checked.progress.clear();
  print_bad(checked.file, *bad);
  if (checked.json) checked.bad.push_back(to_json(*bad));
}

void print_json(const Checked& checked, const quire_verity_counts& counts, int errnum) {
  nlohmann::ordered_json json{{"file", checked.file}, {"ok", errnum == 0}};
  if (counts.digest[0] != '\0') {
    json["digest"] = counts.digest;
    json["data_blocks"] = counts.data_blocks;
    json["hash_blocks"] = counts.hash_blocks;
    json["bad_data_blocks"] = counts.bad_data_blocks;
    json["bad_hash_blocks"] = counts.bad_hash_blocks;
    json["unverified_blocks"] = counts.unverified_blocks;
    json["bad"] = checked.bad;
  }
  if (errnum != 0) json["error"] = quire_error_message();
  fmt::print("{}\n", json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

int check_one(const std::string& file, const VerityCheckCommand& command) {
  Checked checked(file, command.json);
  quire_verity_check_options options{};
  options.struct_size = sizeof options;
  options.digest = command.digest.empty() ? nullptr : command.digest.c_str();
  options.certificates = command.certificates.empty() ? nullptr : command.certificates.c_str();
  options.bad_block = tell_bad;
  options.progress = [](void* arg, std::uint64_t done, std::uint64_t total) {
    static_cast<Checked*>(arg)->progress.update(done, total);
  };
  options.arg = &checked;
  quire_verity_counts counts{};
  counts.struct_size = sizeof counts;
  const int errnum = quire_verity_check(file.c_str(), &options, &counts) == 0 ? 0 : errno;
  checked.progress.clear();
  if (command.json) print_json(checked, counts, errnum);
  if (errnum != 0) return report_quire_error();
  if (!command.json) fmt::print("{} {}: {} data blocks good\n", counts.digest, file, counts.data_blocks);
  return 0;
}

}  // namespace

int check_verity_of(const VerityCheckCommand& command) {
  int exit_code = 0;
  for (const std::string& file : command.files) {
    if (check_one(file, command) != 0) exit_code = 1;
  }
  return exit_code;
}

}  // namespace quire
