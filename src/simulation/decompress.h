// Whole files into memory, decompressed where their names say so.
// Place: simulation, under trace.h.
#pragma once

#include <string>

#include "quire/result.h"

namespace quire::simulation {

// The bytes of the file; of what it holds where the name ends in .gz (zlib; several members in a row are one file) or
// .xz (liblzma). A file that is cut short or damaged is EINVAL, and the recorded cause says after how many of its
// bytes.
Result<std::string> read_decompressed(const std::string& path);

}  // namespace quire::simulation
