// The C++ API over the C one: one meaning for both.
#include <sys/mman.h>

#include <array>
#include <cerrno>

#include "api/api_checks.h"
#include "api/handles.h"
#include "base/error.h"
#include "cache/residency.h"
#include "quire/quire.hpp"

namespace quire {
namespace {

Result<std::size_t> counted(ssize_t n) {
  if (n < 0) return fail(errno);
  return static_cast<std::size_t>(n);
}

Status done(int rc) {
  if (rc != 0) return fail(errno);
  return {};
}

unsigned io_flags(Access access) {
  constexpr unsigned kFlags[] = {0, kIoBuffered, kIoDirect};
  return kFlags[static_cast<unsigned>(access)];
}

Status submit(quire_file* file, AsyncRequest& request, std::uint64_t offset, quire_completion_fn done_fn,
              void* argument, Access access) {
  request.file = &impl(file);
  request.io_flags = io_flags(access);
  request.done = done_fn;
  request.argument = argument;
  return done(submit_request(request, static_cast<off_t>(offset)));
}

// A read or write whose way the call itself names.
template <typename Operation>
Result<std::size_t> transfer(quire_file* handle, const char* what, iovec v, std::uint64_t offset, Access access,
                             Operation operation) {
  FileImpl& file = impl(handle);
  int errnum = check_not_forked(file.inode->mapping.cache).errnum();
  if (errnum == 0) errnum = check_range(v.iov_len, static_cast<off_t>(offset));
  if (errnum == 0) {
    const auto moved = operation(file, std::span<const iovec>(&v, 1), offset, io_flags(access));
    if (moved.ok()) return moved;
    errnum = moved.errnum();
  }
  report_error(errnum, "%s of %zu bytes at offset %lld of %s", what, v.iov_len, static_cast<long long>(offset),
               file.path.c_str());
  return fail(errnum);
}

}  // namespace

File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    if (file_ != nullptr) quire_close(file_);
    file_ = std::exchange(other.file_, nullptr);
  }
  return *this;
}

File::~File() {
  if (file_ != nullptr) quire_close(file_);
}

Result<std::size_t> File::read(std::span<std::byte> to, std::uint64_t offset) {
  return counted(quire_pread(file_, to.data(), to.size(), static_cast<off_t>(offset)));
}

Result<std::size_t> File::read(std::span<std::byte> to, std::uint64_t offset, Access access) {
  return transfer(file_, "read", iovec{to.data(), to.size()}, offset, access, file_read);
}

Result<std::size_t> File::write(std::span<const std::byte> from, std::uint64_t offset, Access access) {
  return transfer(file_, "write", iovec{const_cast<std::byte*>(from.data()), from.size()}, offset, access, file_write);
}

Result<std::size_t> File::readv(std::span<const iovec> to, std::uint64_t offset, int rwf_flags) {
  return counted(quire_preadv2(file_, to.data(), static_cast<int>(to.size()), static_cast<off_t>(offset), rwf_flags));
}

Result<std::size_t> File::write(std::span<const std::byte> from, std::uint64_t offset) {
  return counted(quire_pwrite(file_, from.data(), from.size(), static_cast<off_t>(offset)));
}

Result<std::size_t> File::writev(std::span<const iovec> from, std::uint64_t offset, int rwf_flags) {
  return counted(
      quire_pwritev2(file_, from.data(), static_cast<int>(from.size()), static_cast<off_t>(offset), rwf_flags));
}

Status File::submit_read(std::span<std::byte> to, std::uint64_t offset, quire_completion_fn done_fn, void* argument,
                         Access access) {
  AsyncRequest request;
  request.kind = AsyncRequest::Kind::read;
  request.buffer = to.data();
  request.count = to.size();
  return submit(file_, request, offset, done_fn, argument, access);
}

Status File::submit_write(std::span<const std::byte> from, std::uint64_t offset, quire_completion_fn done_fn,
                          void* argument, Access access) {
  AsyncRequest request;
  request.kind = AsyncRequest::Kind::write;
  request.buffer = const_cast<std::byte*>(from.data());
  request.count = from.size();
  return submit(file_, request, offset, done_fn, argument, access);
}

Status File::submit_sync(quire_completion_fn done_fn, void* argument) {
  return done(quire_submit_fsync(file_, done_fn, argument));
}

Result<std::size_t> File::append(std::span<const std::byte> from) {
  const iovec v{const_cast<std::byte*>(from.data()), from.size()};
  return counted(quire_pwritev2(file_, &v, 1, 0, RWF_APPEND));
}

Status File::truncate(std::uint64_t size) { return done(quire_ftruncate(file_, static_cast<off_t>(size))); }
Status File::sync() { return done(quire_fsync(file_)); }
Status File::data_sync() { return done(quire_fdatasync(file_)); }

Status File::sync_range(std::uint64_t offset, std::uint64_t length, unsigned flags) {
  return done(quire_sync_file_range(file_, static_cast<off_t>(offset), static_cast<off_t>(length), flags));
}

Result<std::uint64_t> File::size() const {
  struct stat st;
  if (quire_fstat(file_, &st) != 0) return fail(errno);
  return static_cast<std::uint64_t>(st.st_size);
}

Status File::advise(std::uint64_t offset, std::uint64_t length, int advice) {
  return done(quire_fadvise(file_, static_cast<off_t>(offset), static_cast<off_t>(length), advice));
}

Status File::allocate(int mode, std::uint64_t offset, std::uint64_t length) {
  return done(quire_fallocate(file_, mode, static_cast<off_t>(offset), static_cast<off_t>(length)));
}

Result<std::uint64_t> File::seek_data(std::uint64_t offset) {
  return counted(quire_seek_data(file_, static_cast<off_t>(offset)));
}

Result<std::uint64_t> File::seek_hole(std::uint64_t offset) {
  return counted(quire_seek_hole(file_, static_cast<off_t>(offset)));
}

Status File::clone_range(std::uint64_t from, File& target, std::uint64_t offset, std::size_t length) {
  return done(quire_clone_range(file_, static_cast<off_t>(from), target.file_, static_cast<off_t>(offset), length));
}

Result<std::size_t> File::dedupe_range(std::uint64_t from, File& target, std::uint64_t offset, std::size_t length) {
  return counted(quire_dedupe_range(file_, static_cast<off_t>(from), target.file_, static_cast<off_t>(offset), length));
}

Status File::exchange_range(std::uint64_t from, File& other, std::uint64_t offset, std::size_t length) {
  return done(quire_exchange_range(file_, static_cast<off_t>(from), other.file_, static_cast<off_t>(offset), length));
}

Result<std::size_t> File::copy_range(std::uint64_t from, File& target, std::uint64_t offset, std::size_t length) {
  return counted(quire_copy_range(file_, static_cast<off_t>(from), target.file_, static_cast<off_t>(offset), length));
}

Result<std::vector<quire_residency_run>> File::residency() const {
  std::vector<quire_residency_run> all;
  std::array<quire_residency_run, 256> some;
  std::uint64_t from = 0;
  for (;;) {
    const ssize_t count = quire_residency(file_, static_cast<off_t>(from), some.data(), some.size());
    if (count < 0) return fail(errno);
    for (const quire_residency_run& run : std::span(some.data(), static_cast<std::size_t>(count))) {
      std::size_t known = all.size();
      if (!append_run(run, all, &known)) all.push_back(run);
      from = run.offset + run.length;
    }
    if (count < static_cast<ssize_t>(some.size())) return all;
  }
}

Result<std::string> File::draw_residency(const char* name, int format) const {
  const auto found = residency();
  QUIRE_TRY(found);
  const auto length = size();
  QUIRE_TRY(length);
  const auto& runs = found.value();
  std::string text(4096, '\0');
  for (;;) {
    const ssize_t n =
        quire_residency_draw(name, length.value(), runs.data(), runs.size(), format, text.data(), text.size());
    if (n < 0) return fail(errno);
    const bool fits = static_cast<std::size_t>(n) < text.size();
    text.resize(static_cast<std::size_t>(n) + (fits ? 0 : 1));
    if (fits) return text;
  }
}

Result<std::span<std::byte>> File::map(std::uint64_t offset, std::size_t length, int prot, MapOptions options) {
  void* const base =
      quire_mmap2(file_, static_cast<off_t>(offset), length, prot, options.prefault ? QUIRE_MAP_PREFAULT : 0);
  if (base == MAP_FAILED) return fail(errno);
  return std::span(static_cast<std::byte*>(base), length);
}

Status Cache::unmap(std::span<std::byte> views) { return done(quire_munmap(cache_, views.data(), views.size())); }

Status Cache::sync_view(std::span<std::byte> bytes) { return done(quire_msync(cache_, bytes.data(), bytes.size())); }

Status File::close() {
  if (file_ == nullptr) return {};
  const int rc = quire_close(file_);
  if (rc == 0) file_ = nullptr;
  return done(rc);
}

Cache& Cache::operator=(Cache&& other) noexcept {
  if (this != &other) {
    if (cache_ != nullptr) quire_cache_destroy(cache_, QUIRE_DISCARD);
    cache_ = std::exchange(other.cache_, nullptr);
  }
  return *this;
}

Cache::~Cache() {
  if (cache_ != nullptr) quire_cache_destroy(cache_, QUIRE_DISCARD);
}

Result<Cache> Cache::create(const CacheConfig& config) {
  quire_options options{sizeof(quire_options), config.memory, config.io_depth, config.flags};
  quire_cache* cache = quire_cache_create(&options);
  if (cache == nullptr) return fail(errno);
  return Cache(cache);
}

Result<File> Cache::open(const char* path, int flags, mode_t mode) {
  quire_file* file = quire_open(cache_, path, flags, mode);
  if (file == nullptr) return fail(errno);
  return File(file);
}

Result<unsigned> Cache::reap(unsigned min, unsigned max) {
  const int ran = quire_reap(cache_, min, max);
  if (ran < 0) return fail(errno);
  return static_cast<unsigned>(ran);
}

Result<int> Cache::event_fd() {
  const int fd = quire_eventfd(cache_);
  if (fd < 0) return fail(errno);
  return fd;
}

Status Cache::resize(std::size_t memory) { return done(quire_cache_resize(cache_, memory)); }

Result<File> Cache::open_fd(int fd) {
  quire_file* file = quire_fdopen(cache_, fd);
  if (file == nullptr) return fail(errno);
  return File(file);
}

std::string Cache::stats_json() const {
  std::string text(4096, '\0');
  for (;;) {
    const ssize_t length = quire_stats_json(cache_, text.data(), text.size());
    if (length < 0) return {};
    const bool fits = static_cast<std::size_t>(length) < text.size();
    text.resize(static_cast<std::size_t>(length) + (fits ? 0 : 1));
    if (fits) return text;
  }
}

Status Cache::destroy(bool discard) {
  if (cache_ == nullptr) return {};
  const int rc = quire_cache_destroy(cache_, discard ? QUIRE_DISCARD : 0);
  if (rc == 0) cache_ = nullptr;
  return done(rc);
}

}  // namespace quire
