// fs-verity in the C++ API, over the C one.
#include <cerrno>

#include "quire/quire.hpp"

namespace quire {
namespace {

using Progress = std::function<void(std::uint64_t, std::uint64_t)>;

}  // namespace

Status Cache::enable_verity(const char* path, const VerityOptions& options) {
  quire_verity_options given = {};
  given.struct_size = sizeof given;
  given.hash_alg = options.hash_alg;
  given.block_size = options.block_size;
  given.salt = options.salt.data();
  given.salt_size = options.salt.size();
  given.signature = options.signature.data();
  given.signature_size = options.signature.size();
  if (options.progress) {
    given.progress = [](void* arg, std::uint64_t done, std::uint64_t total) {
      (*static_cast<const Progress*>(arg))(done, total);
    };
    given.arg = const_cast<Progress*>(&options.progress);
  }
  if (quire_verity_enable(cache_, path, &given) != 0) return fail(errno);
  return {};
}

Result<std::string> verity_digest(const char* path) {
  char digest[QUIRE_DIGEST_MAX];
  if (quire_verity_measure(path, digest, sizeof digest) != 0) return fail(errno);
  return std::string(digest);
}

Result<quire_verity_info> verity_status(const char* path) {
  quire_verity_info info = {};
  info.struct_size = sizeof info;
  if (quire_verity_status(path, &info) != 0) return fail(errno);
  return info;
}

Result<quire_verity_counts> check_verity(const char* path, const VerityCheck& wanted, quire_verity_counts* counts) {
  quire_verity_check_options given = {};
  given.struct_size = sizeof given;
  given.digest = wanted.digest;
  given.certificates = wanted.certificates;
  given.arg = const_cast<VerityCheck*>(&wanted);
  if (wanted.bad_block) {
    given.bad_block = [](void* arg, const quire_verity_bad_block* block) {
      static_cast<const VerityCheck*>(arg)->bad_block(*block);
    };
  }
  if (wanted.progress) {
    given.progress = [](void* arg, std::uint64_t done, std::uint64_t total) {
      static_cast<const VerityCheck*>(arg)->progress(done, total);
    };
  }
  quire_verity_counts found = {};
  found.struct_size = sizeof found;
  const int errnum = quire_verity_check(path, &given, &found) == 0 ? 0 : errno;
  if (counts != nullptr) *counts = found;
  if (errnum != 0) return fail(errnum);
  return found;
}

}  // namespace quire
