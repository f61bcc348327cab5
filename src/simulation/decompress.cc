// Reading plain, gzip and xz files; see decompress.h. One loop feeds all three.
#include "simulation/decompress.h"

#include <lzma.h>
#include <zlib.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <memory>

#include "base/check.h"
#include "base/error.h"

namespace quire::simulation {

namespace {

constexpr std::size_t kChunkBytes = 64 << 10;
constexpr std::uint64_t kMostXzMemory = std::uint64_t{1} << 30;

// Appends what the input decompresses to.
class Decoder {
 public:
  virtual ~Decoder() = default;
  // `size` bytes of the file, the last ones where `last` (then once more with none). The cause is recorded on failure.
  virtual Status decode(const char* data, std::size_t size, bool last, std::string& out) = 0;
};

class PlainDecoder final : public Decoder {
 public:
  Status decode(const char* data, std::size_t size, bool, std::string& out) override {
    out.append(data, size);
    return {};
  }
};

class GzipDecoder final : public Decoder {
 public:
  GzipDecoder() { CHECK(inflateInit2(&stream_, kGzipWindow) == Z_OK); }
  ~GzipDecoder() override { (void)inflateEnd(&stream_); }

  Status decode(const char* data, std::size_t size, bool last, std::string& out) override {
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data));  // zlib does not write there
    stream_.avail_in = static_cast<uInt>(size);
    while (stream_.avail_in > 0) {
      if (ended_) (void)inflateReset(&stream_);  // the next member
      char buffer[kChunkBytes];
      stream_.next_out = reinterpret_cast<Bytef*>(buffer);
      stream_.avail_out = sizeof buffer;
      const int rc = inflate(&stream_, Z_NO_FLUSH);
      out.append(buffer, sizeof buffer - stream_.avail_out);
      const std::uint64_t offset = offset_ + size - stream_.avail_in;
      if (rc != Z_OK && rc != Z_STREAM_END) {
        return fail_with(EINVAL, "offset %llu: not gzip data (%s)", static_cast<unsigned long long>(offset),
                         stream_.msg != nullptr ? stream_.msg : "damaged");
      }
      ended_ = rc == Z_STREAM_END;
    }
    offset_ += size;
    if (last && !ended_) {
      return fail_with(EINVAL, "offset %llu: the gzip data is cut short", static_cast<unsigned long long>(offset_));
    }
    return {};
  }

 private:
  static constexpr int kGzipWindow = 16 + MAX_WBITS;  // a gzip header, and nothing else

  z_stream stream_{};
  bool ended_ = false;
  std::uint64_t offset_ = 0;
};

class XzDecoder final : public Decoder {
 public:
  XzDecoder() { CHECK(lzma_stream_decoder(&stream_, kMostXzMemory, LZMA_CONCATENATED) == LZMA_OK); }
  ~XzDecoder() override { lzma_end(&stream_); }

  Status decode(const char* data, std::size_t size, bool last, std::string& out) override {
    stream_.next_in = reinterpret_cast<const std::uint8_t*>(data);
    stream_.avail_in = size;
    lzma_ret rc = LZMA_OK;
    do {
      char buffer[kChunkBytes];
      stream_.next_out = reinterpret_cast<std::uint8_t*>(buffer);
      stream_.avail_out = sizeof buffer;
      rc = lzma_code(&stream_, last ? LZMA_FINISH : LZMA_RUN);
      out.append(buffer, sizeof buffer - stream_.avail_out);
    } while (rc == LZMA_OK && (stream_.avail_in > 0 || stream_.avail_out == 0 || last));
    if (rc == LZMA_OK || rc == LZMA_STREAM_END || (rc == LZMA_BUF_ERROR && !last)) return {};
    const auto offset = static_cast<unsigned long long>(stream_.total_in);
    if (rc == LZMA_BUF_ERROR) return fail_with(EINVAL, "offset %llu: the xz data is cut short", offset);
    if (rc == LZMA_MEMLIMIT_ERROR) return fail_with(ENOMEM, "unpacking takes more than 1 GiB of memory");
    if (rc == LZMA_MEM_ERROR) return fail_with(ENOMEM, "out of memory for unpacking");
    return fail_with(EINVAL, "offset %llu: not xz data, or damaged", offset);
  }

 private:
  lzma_stream stream_ = LZMA_STREAM_INIT;
};

std::unique_ptr<Decoder> make_decoder(const std::string& path) {
  if (path.ends_with(".gz")) return std::make_unique<GzipDecoder>();
  if (path.ends_with(".xz")) return std::make_unique<XzDecoder>();
  return std::make_unique<PlainDecoder>();
}

struct CloseFile {
  void operator()(std::FILE* file) const { (void)std::fclose(file); }
};

}  // namespace

Result<std::string> read_decompressed(const std::string& path) {
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "re"));
  if (file == nullptr) return fail_with(errno, "cannot be opened: %m");
  const std::unique_ptr<Decoder> decoder = make_decoder(path);
  std::string content;
  std::string chunk(kChunkBytes, '\0');
  bool last = false;
  while (!last) {
    const std::size_t size = std::fread(chunk.data(), 1, chunk.size(), file.get());
    if (std::ferror(file.get()) != 0) return fail_with(errno, "cannot be read: %m");
    last = size == 0;
    QUIRE_TRY(decoder->decode(chunk.data(), size, last, content));
  }
  return content;
}

}  // namespace quire::simulation
