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

}  // namespace quire
