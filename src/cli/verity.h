// verity enable, measure, check and status: the work behind the commands. Each returns an exit code and has reported
// what went wrong, for every file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace quire {

struct VerityEnableCommand {
  std::string file;
  std::string algorithm = "sha256";
  std::uint64_t block_size = 4096;
  std::vector<unsigned char> salt;
  std::string signature;  // path; empty: none
};
int enable_verity_of(const VerityEnableCommand& command);

int measure_verity(const std::vector<std::string>& files);

struct VerityCheckCommand {
  std::vector<std::string> files;
  std::string digest;        // that each must have; empty: any
  std::string certificates;  // path; empty: none
  bool json = false;
};
int check_verity_of(const VerityCheckCommand& command);

int verity_status_of(const std::vector<std::string>& files, bool json);

}  // namespace quire
