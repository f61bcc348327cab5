// The command lines of `quire verity`. The work is in verity.cc and verity_check.cc.
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/verity.h"

namespace quire {

namespace {

constexpr std::size_t kMostSalt = 32;  // bytes

std::vector<unsigned char> parse_salt(const std::string& text) {
  if (text.size() % 2 != 0 || !all_hex(text) || text.size() > 2 * kMostSalt) {
    throw CLI::ValidationError("--salt",
                               "'" + text + "' is no salt: write up to 32 bytes, two hexadecimal digits each");
  }
  std::vector<unsigned char> salt;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    salt.push_back(static_cast<unsigned char>(std::stoul(text.substr(i, 2), nullptr, 16)));
  }
  return salt;
}

std::string check_block_size(std::uint64_t size) {
  const bool known = size >= 1024 && size <= 65536 && (size & (size - 1)) == 0;
  return known ? "" : "is no block size: write a power of two from 1024 to 65536";
}

void add_enable(CLI::App& verity, int& exit_code) {
  static VerityEnableCommand command;
  CLI::App* enable = verity.add_subcommand(
      "enable", "Turn it on: make FILE.verity, and print the digest. From then on quire opens FILE to read only");
  enable->add_option("FILE", command.file, "a regular file that nobody has open for writing")->required();
  enable->add_option("--hash-alg", command.algorithm, "sha256 (default) or sha512")
      ->transform(CLI::IsMember({"sha256", "sha512"}, CLI::ignore_case))
      ->type_name("NAME");
  add_size_option(*enable, "--block-size", command.block_size, "of data and hash tree: 1024 to 65536 (default: 4096)");
  enable
      ->add_option_function<std::string>(
          "--salt", [](const std::string& text) { command.salt = parse_salt(text); },
          "hashed before each block: up to 32 bytes in hexadecimal")
      ->type_name("HEX");
  enable
      ->add_option("--signature", command.signature,
                   "keep this signature of the digest with it, made by fsverity sign (detached PKCS#7, DER)")
      ->type_name("FILE")
      ->check(CLI::ExistingFile);
  enable->callback([&exit_code] {
    const std::string wrong = check_block_size(command.block_size);
    if (!wrong.empty()) throw CLI::ValidationError("--block-size", std::to_string(command.block_size) + " " + wrong);
    exit_code = enable_verity_of(command);
  });
}

void add_check(CLI::App& verity, int& exit_code) {
  static VerityCheckCommand command;
  CLI::App* check = verity.add_subcommand(
      "check",
      "Read whole files from the disk, and hold every block against FILE.verity: each bad one is a line on standard "
      "error, and exit status 1. Without --digest or --require-signature only damage is found, no forger of both "
      "files");
  check->add_option("FILE", command.files, "files for which fs-verity is on")->required();
  add_trust_options(*check, command.digest, command.certificates);
  check->add_flag("--json", command.json, "an object a line for each file, on standard output");
  check->callback([&exit_code] { exit_code = check_verity_of(command); });
}

}  // namespace

void add_verity_command(CLI::App& app, int& exit_code) {
  static std::vector<std::string> files;  // one command line per process, and CLI11 keeps references
  static bool json = false;

  CLI::App* verity =
      app.add_subcommand("verity", "fs-verity, in Linux's format, on any file system: enable, measure, check, status");
  verity->require_subcommand(1);
  add_enable(*verity, exit_code);

  CLI::App* measure = verity->add_subcommand("measure", "Print digests, as fsverity digest does: sha256:HEX FILE");
  measure->add_option("FILE", files, "files for which fs-verity is on")->required();
  measure->callback([&exit_code] { exit_code = measure_verity(files); });

  add_check(*verity, exit_code);

  CLI::App* status = verity->add_subcommand("status", "Show whether it is on, and what FILE.verity says");
  status->add_option("FILE", files, "the files")->required();
  status->add_flag("--json", json, "an object a line for each file");
  status->callback([&exit_code] { exit_code = verity_status_of(files, json); });
}

}  // namespace quire
