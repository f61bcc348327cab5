// `quire verity`: fs-verity turned on, measured, looked at. The check is in verity_check.cc.
#include "cli/verity.h"

#include <fmt/core.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "cli/progress.h"
#include "cli/support.h"

namespace quire {

namespace {

constexpr std::uint64_t kMemory = std::uint64_t{4} << 20;  // the cache is there for the lock on the file
constexpr std::size_t kMostSignature = 65536;              // to be read; the library's limit is lower

// False, after a message.
bool read_file(const std::string& path, std::vector<char>* bytes) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  bytes->resize(kMostSignature);
  file.read(bytes->data(), static_cast<std::streamsize>(bytes->size()));
  bytes->resize(static_cast<std::size_t>(file.gcount()));
  if (file.bad() || (file.gcount() == 0 && errno != 0)) {
    report_error("cannot read the signature %s: %s", path.c_str(), errno_text(errno).c_str());
    return false;
  }
  if (!bytes->empty()) return true;
  report_error("the signature %s is empty", path.c_str());
  return false;
}

std::string hex(const unsigned char* bytes, std::size_t size) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

int print_digest(const std::string& file) {
  char digest[QUIRE_DIGEST_MAX];
  if (quire_verity_measure(file.c_str(), digest, sizeof digest) != 0) return report_quire_error();
  fmt::print("{} {}\n", digest, file);
  return 0;
}

nlohmann::ordered_json to_json(const std::string& file, const quire_verity_info& info) {
  nlohmann::ordered_json json{{"file", file}, {"verity", info.enabled != 0}};
  if (info.enabled == 0) return json;
  json["digest"] = info.digest;
  json["hash_alg"] = info.hash_alg;
  json["block_size"] = info.block_size;
  json["salt"] = hex(info.salt, info.salt_size);
  json["root_hash"] = info.root_hash;
  json["file_size"] = info.file_size;
  json["tree_size"] = info.tree_size;
  json["signature_size"] = info.signature_size;
  return json;
}

void print_status(const std::string& file, const quire_verity_info& info) {
  fmt::print("     File: {}\n   Verity: {}\n", file, info.enabled != 0 ? "on" : "off");
  if (info.enabled == 0) return;
  fmt::print("   Digest: {}\n", info.digest);
  fmt::print("     Hash: {}, blocks of {} bytes\n", info.hash_alg, info.block_size);
  fmt::print("     Salt: {}\n", info.salt_size != 0 ? hex(info.salt, info.salt_size) : "none");
  fmt::print("Root hash: {}\n", info.root_hash);
  fmt::print("     Size: {} bytes, and {} of hash tree\n", info.file_size, info.tree_size);
  fmt::print("Signature: {}\n", info.signature_size != 0 ? fmt::format("{} bytes", info.signature_size) : "none");
}

}  // namespace

int enable_verity_of(const VerityEnableCommand& command) {
  std::vector<char> signature;
  if (!command.signature.empty() && !read_file(command.signature, &signature)) return 1;
  CachePtr cache = make_cache(kMemory);
  if (!cache) return report_quire_error();
  Progress progress("verity enable", 0);
  quire_verity_options options{};
  options.struct_size = sizeof options;
  options.hash_alg = command.algorithm.c_str();
  options.block_size = static_cast<unsigned>(command.block_size);
  options.salt = command.salt.data();
  options.salt_size = command.salt.size();
  options.signature = signature.data();
  options.signature_size = signature.size();
  options.progress = [](void* arg, std::uint64_t done, std::uint64_t total) {
    static_cast<Progress*>(arg)->update(done, total);
  };
  options.arg = &progress;
  if (quire_verity_enable(cache.get(), command.file.c_str(), &options) != 0) return report_quire_error();
  if (!close_cache(cache)) return report_quire_error();
  return print_digest(command.file);
}

int measure_verity(const std::vector<std::string>& files) {
  int exit_code = 0;
  for (const std::string& file : files) {
    if (print_digest(file) != 0) exit_code = 1;
  }
  return exit_code;
}

int verity_status_of(const std::vector<std::string>& files, bool json) {
  int exit_code = 0;
  for (const std::string& file : files) {
    quire_verity_info info{};
    info.struct_size = sizeof info;
    if (quire_verity_status(file.c_str(), &info) != 0) {
      exit_code = report_quire_error();
    } else if (json) {
      fmt::print("{}\n", to_json(file, info).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    } else {
      print_status(file, info);
    }
  }
  return exit_code;
}

}  // namespace quire
