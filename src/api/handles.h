// The C API's handles, and what stands behind them.
#pragma once

#include "api/cache_impl.h"
#include "quire/quire.h"

namespace quire {

inline CacheImpl& impl(quire_cache* cache) { return *reinterpret_cast<CacheImpl*>(cache); }
inline FileImpl& impl(quire_file* file) { return *reinterpret_cast<FileImpl*>(file); }
inline quire_file* handle(FileImpl* file) { return reinterpret_cast<quire_file*>(file); }

}  // namespace quire
