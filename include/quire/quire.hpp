// The C++ API: quire::Cache and quire::File over the calls of quire.h. Results are errno-valued (quire::Result);
// quire::last_error() is the sentence. Thread safety: every call from any thread; destroying or moving an object alone.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quire/quire.h"
#include "quire/result.h"

namespace quire {

inline const char* last_error() { return quire_error_message(); }

// How one call reaches the file: as its handle was opened (O_DIRECT or not), through the cache, or past it.
enum class Access : unsigned { as_opened, buffered, direct };

struct MapOptions {
  bool prefault = false;  // read and map all before the end of the file, and return its error
};

// A handle on a file. Closes itself at the end; call close() to learn whether writing back succeeded.
class QUIRE_API File {
 public:
  File() = default;
  File(File&& other) noexcept : file_(std::exchange(other.file_, nullptr)) {}
  File& operator=(File&& other) noexcept;
  ~File();  // if close fails, the handle and its dirty bytes stay with the cache
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool is_open() const { return file_ != nullptr; }
  // Bytes read; fewer than asked for only at the end of the file. Errors: EBADF, EINVAL, EIO and the host's.
  Result<std::size_t> read(std::span<std::byte> to, std::uint64_t offset);
  Result<std::size_t> read(std::span<std::byte> to, std::uint64_t offset, Access access);
  Result<std::size_t> readv(std::span<const iovec> to, std::uint64_t offset, int rwf_flags = 0);
  // Bytes written. Errors: EBADF, EINVAL, EFBIG, EIO, ENOSPC (block devices).
  Result<std::size_t> write(std::span<const std::byte> from, std::uint64_t offset);
  Result<std::size_t> write(std::span<const std::byte> from, std::uint64_t offset, Access access);
  Result<std::size_t> writev(std::span<const iovec> from, std::uint64_t offset, int rwf_flags = 0);
  // Asynchronous: quire.h says when `done` runs, and with what. The buffers stay the request's until then.
  Status submit_read(std::span<std::byte> to, std::uint64_t offset, quire_completion_fn done, void* argument,
                     Access access = Access::as_opened);
  Status submit_write(std::span<const std::byte> from, std::uint64_t offset, quire_completion_fn done, void* argument,
                      Access access = Access::as_opened);
  Status submit_sync(quire_completion_fn done, void* argument);
  // Writes at the end, atomically with respect to every other append; rwf_flags as for writev.
  Result<std::size_t> append(std::span<const std::byte> from);
  Status truncate(std::uint64_t size);
  Status sync();       // data and metadata durable (D1)
  Status data_sync();  // data, and the metadata needed to read it
  // flags: SYNC_FILE_RANGE_*; length 0: to the end. quire.h says what each does; nothing becomes durable by it.
  Status sync_range(std::uint64_t offset, std::uint64_t length, unsigned flags);
  Result<std::uint64_t> size() const;
  // advice: POSIX_FADV_*; length 0: to the end. quire.h says what each does. EINVAL for any other.
  Status advise(std::uint64_t offset, std::uint64_t length, int advice);
  // Range operations; quire.h says what each does, and its errors. mode: FALLOC_FL_* of linux/falloc.h.
  Status allocate(int mode, std::uint64_t offset, std::uint64_t length);
  Result<std::uint64_t> seek_data(std::uint64_t offset);  // ENXIO: no data from there on
  Result<std::uint64_t> seek_hole(std::uint64_t offset);
  // From this file's [from, from + length) to the target's [offset, offset + length).
  Status clone_range(std::uint64_t from, File& target, std::uint64_t offset, std::size_t length);
  Result<std::size_t> dedupe_range(std::uint64_t from, File& target, std::uint64_t offset, std::size_t length);
  Status exchange_range(std::uint64_t from, File& other, std::uint64_t offset, std::size_t length);
  Result<std::size_t> copy_range(std::uint64_t from, File& target, std::uint64_t offset, std::size_t length);
  // What of the file is in the cache: ascending runs, neighbours alike merged; quire.h says how exact that is.
  Result<std::vector<quire_residency_run>> residency() const;
  // Drawn, as quire_residency_draw does; format: QUIRE_DRAW_JSON, QUIRE_DRAW_TEXT or QUIRE_DRAW_SVG.
  Result<std::string> draw_residency(const char* name, int format) const;
  // A view of [offset, offset + length); quire.h says what it is. prot: PROT_READ, with
  // PROT_WRITE or without. Unmapped by Cache::unmap.
  Result<std::span<std::byte>> map(std::uint64_t offset, std::size_t length, int prot, MapOptions options = {});
  Status close();
  quire_file* c_handle() const { return file_; }

 private:
  friend class Cache;
  explicit File(quire_file* file) : file_(file) {}
  quire_file* file_ = nullptr;
};

struct CacheConfig {
  std::size_t memory = 0;  // bytes, metadata included; 0: a quarter of the machine's memory
  unsigned io_depth = 0;   // 0: 128
  unsigned flags = 0;      // QUIRE_NO_IO_URING, QUIRE_NO_DIRECT, QUIRE_PUBLISH, QUIRE_NO_SIGNAL_HANDLER
};

// As quire_verity_options.
struct VerityOptions {
  const char* hash_alg = "sha256";
  unsigned block_size = 4096;  // bytes
  std::span<const std::byte> salt = {}, signature = {};
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
};

// A page cache. Files are closed before it ends.
class QUIRE_API Cache {
 public:
  Cache() = default;
  Cache(Cache&& other) noexcept : cache_(std::exchange(other.cache_, nullptr)) {}
  Cache& operator=(Cache&& other) noexcept;
  ~Cache();  // drops what could not be written back: call destroy() to learn of it
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  static Result<Cache> create(const CacheConfig& config = {});
  Result<File> open(const char* path, int flags, mode_t mode = 0644);
  Result<File> open_fd(int fd);
  std::string stats_json() const;
  Status resize(std::size_t memory);                  // bytes, metadata included; quire.h says what it waits for
  Result<unsigned> reap(unsigned min, unsigned max);  // how many callbacks ran; quire.h says what it waits for
  Result<int> event_fd();                             // polls readable while there is something to reap
  Status unmap(std::span<std::byte> views);           // all that lie there; quire_munmap
  Status sync_view(std::span<std::byte> bytes);       // quire_msync
  // Turns fs-verity on for a file; quire.h says what that means, and its errors.
  Status enable_verity(const char* path, const VerityOptions& options = {});
  Status destroy(bool discard = false);
  quire_cache* c_handle() const { return cache_; }

 private:
  explicit Cache(quire_cache* cache) : cache_(cache) {}
  quire_cache* cache_ = nullptr;
};

// fs-verity of a file by its path: quire.h says what each does, and its errors. "sha256:HEX" or "sha512:HEX":
QUIRE_API Result<std::string> verity_digest(const char* path);
QUIRE_API Result<quire_verity_info> verity_status(const char* path);

// As quire_verity_check_options.
struct VerityCheck {
  const char* digest = nullptr;
  const char* certificates = nullptr;
  std::function<void(const quire_verity_bad_block&)> bad_block = {};
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
};
// counts, if given, is filled in where there are bad blocks (EIO), too.
QUIRE_API Result<quire_verity_counts> check_verity(const char* path, const VerityCheck& wanted = {},
                                                   quire_verity_counts* counts = nullptr);

}  // namespace quire
