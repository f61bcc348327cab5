// What the verity tests share: a directory, bytes in files, and the programs whose results are the reference.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "verity/digest.h"

namespace quire::verity_testing {

struct Outcome {
  int status = -1;     // 0: success; -1: there is no such program
  std::string output;  // both streams
};

inline Outcome run(const std::vector<std::string>& words) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  Outcome outcome;
  char buffer[4096];
  for (ssize_t got; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;) {
    outcome.output.append(buffer, static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  if (failed == 0 && waitpid(child, &outcome.status, 0) != child) outcome.status = -1;
  return outcome;
}

// `words` has to succeed; gives what it wrote.
inline std::string run_well(const std::vector<std::string>& words) {
  const Outcome outcome = run(words);
  std::string line;
  for (const std::string& word : words) line += word + " ";
  EXPECT_EQ(outcome.status, 0) << line << "\n" << outcome.output;
  return outcome.output;
}

inline std::vector<char> random_bytes(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<char> bytes((count + 7) / 8 * 8);
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    const std::uint64_t word = random.next();
    std::memcpy(&bytes[i], &word, 8);
  }
  bytes.resize(count);
  return bytes;
}

inline std::string hex(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

inline verity::Salt salt_of(std::size_t size) {
  verity::Salt salt;
  salt.size = static_cast<std::uint8_t>(size);
  for (std::size_t i = 0; i < size; ++i) salt.bytes[i] = static_cast<std::uint8_t>(0xa1 + 7 * i);
  return salt;
}

// Every algorithm, block size and length of salt.
inline std::vector<verity::HashParameters> all_parameters() {
  std::vector<verity::HashParameters> all;
  for (const auto algorithm : {verity::HashAlgorithm::sha256, verity::HashAlgorithm::sha512}) {
    for (std::uint32_t size = verity::kMinBlockSize; size <= verity::kMaxBlockSize; size *= 2) {
      for (const std::size_t salt : {0, 1, 32}) {
        all.push_back({.algorithm = algorithm, .block_size = size, .salt = salt_of(salt)});
      }
    }
  }
  return all;
}

inline std::string describe(const verity::HashParameters& parameters) {
  return std::string(verity::algorithm_name(parameters.algorithm)) + ", blocks of " +
         std::to_string(parameters.block_size) + ", salt of " + std::to_string(parameters.salt.size);
}

// The cause that was recorded with the last error, which is forgotten.
inline std::string cause(int errnum) {
  report_error(errnum, "test");
  return error_message();
}

inline ::testing::AssertionResult says(int errnum, const std::string& part) {
  const std::string message = cause(errnum);
  if (message.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "not \"" << part << "\" but " << message;
}

class VerityTest : public ::testing::Test {
 protected:
  VerityTest() {
    const char* base = std::getenv("TMPDIR");
    dir_ = std::string(base != nullptr && *base != '\0' ? base : "/tmp") + "/quire-verity.XXXXXX";
    EXPECT_NE(mkdtemp(dir_.data()), nullptr) << dir_ << ": " << std::strerror(errno);
  }
  ~VerityTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
  }

  static bool has_fsverity() { return run({"fsverity", "--version"}).status == 0; }
  static bool has_openssl() { return run({"openssl", "version"}).status == 0; }

  std::string path(const std::string& name) const { return dir_ + "/" + name; }
  std::string write(const std::string& name, std::span<const char> bytes) const {
    std::ofstream file(path(name), std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.close();
    EXPECT_TRUE(file.good()) << path(name);
    return path(name);
  }
  std::vector<char> read(const std::string& name) const {
    std::ifstream file(path(name), std::ios::binary);
    EXPECT_TRUE(file.good()) << path(name);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  // The words of `fsverity digest` with these parameters; files and more options follow.
  static std::vector<std::string> fsverity_digest(const verity::HashParameters& parameters) {
    std::vector<std::string> words = {"fsverity", "digest", "--compact",
                                      "--hash-alg=" + std::string(verity::algorithm_name(parameters.algorithm)),
                                      "--block-size=" + std::to_string(parameters.block_size)};
    if (parameters.salt.size != 0) words.push_back("--salt=" + hex(parameters.salt.view()));
    return words;
  }

  std::string dir_;
};

#define SKIP_WITHOUT_FSVERITY() \
  if (!has_fsverity()) GTEST_SKIP() << "there is no fsverity program to compare with: apt-get install fsverity"
#define SKIP_WITHOUT_OPENSSL() \
  if (!has_openssl()) GTEST_SKIP() << "there is no openssl program to make keys with: apt-get install openssl"

}  // namespace quire::verity_testing
