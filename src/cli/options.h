// Option kinds that several commands share. Pulls in CLI11: for *_command(s).cc only.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "cli/size.h"

namespace quire {

// An option that takes a size above zero; `size` keeps its value where the option is not given.
inline CLI::Option* add_size_option(CLI::App& app, const std::string& name, std::uint64_t& size,
                                    const std::string& description) {
  const auto set = [&size, name](const std::string& text) {
    const auto parsed = parse_size(text);
    if (!parsed || *parsed == 0) {
      throw CLI::ValidationError(name, "'" + text + "' is not a size: write bytes above 0, or 64K, 64M, 1G, 64MiB");
    }
    size = *parsed;
  };
  return app.add_option_function<std::string>(name, set, description)->type_name("SIZE");
}

// The same for an offset, which may be zero, up to the largest off_t.
inline CLI::Option* add_offset_option(CLI::App& app, const std::string& name, std::uint64_t& offset,
                                      const std::string& description) {
  const auto set = [&offset, name](const std::string& text) {
    const auto parsed = parse_size(text);
    if (!parsed || *parsed > INT64_MAX) {
      throw CLI::ValidationError(name, "'" + text + "' is not an offset: write bytes from 0 on, or 64K, 64M, 64MiB");
    }
    offset = *parsed;
  };
  return app.add_option_function<std::string>(name, set, description)->type_name("OFFSET");
}

inline bool all_hex(const std::string& text) {
  return text.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
}

// Of a digest as fs-verity has them; the complaint, or nothing.
inline std::string check_digest(const std::string& text) {
  const std::size_t colon = text.find(':');
  const std::string name = CLI::detail::to_lower(text.substr(0, colon == std::string::npos ? 0 : colon));
  const std::string digits = text.substr(colon == std::string::npos ? 0 : colon + 1);
  const bool sha256 = digits.size() == std::size_t{64} && (colon == std::string::npos || name == "sha256");
  const bool sha512 = digits.size() == std::size_t{128} && (colon == std::string::npos || name == "sha512");
  if (all_hex(digits) && (sha256 || sha512)) return "";
  return "'" + text + "' is no digest: write sha256: and 64 hexadecimal digits, or sha512: and 128";
}

// What a file that is read must be, where fs-verity is on for it.
inline void add_trust_options(CLI::App& app, std::string& digest, std::string& certificates) {
  app.add_option("--digest", digest, "refuse a file whose fs-verity digest is another")
      ->check(CLI::Validator([](std::string& text) { return check_digest(text); }, ""))
      ->type_name("DIGEST");
  app.add_option("--require-signature", certificates,
                 "refuse a file whose fs-verity digest none of these certificates (PEM, or one in DER) has signed")
      ->type_name("CERT")
      ->check(CLI::ExistingFile);
}

// Throws where the range would end past the largest off_t.
inline void check_range_end(const std::string& option, std::uint64_t offset, std::uint64_t length) {
  if (offset > INT64_MAX || length > INT64_MAX - offset) {
    throw CLI::ValidationError(option, "the range would end past the largest offset, " + std::to_string(INT64_MAX));
  }
}

}  // namespace quire
