// Reading traces: both forms, plain and compressed, and what is said of files that are no trace.
#include "simulation/trace.h"

#include <gtest/gtest.h>
#include <lzma.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "base/error.h"

namespace quire::simulation {
namespace {

using Blocks = std::vector<Block>;

std::string gzip(const std::string& bytes) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, bytes.size()) + 64, '\0');
  std::string in = bytes;
  stream.next_in = reinterpret_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  EXPECT_EQ(deflateEnd(&stream), Z_OK);
  return out;
}

std::string xz(const std::string& bytes) {
  std::string out(lzma_stream_buffer_bound(bytes.size()), '\0');
  std::size_t size = 0;
  EXPECT_EQ(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC64, nullptr, reinterpret_cast<const std::uint8_t*>(bytes.data()),
                                    bytes.size(), reinterpret_cast<std::uint8_t*>(out.data()), &size, out.size()),
            LZMA_OK);
  out.resize(size);
  return out;
}

std::string little_endian(const std::vector<std::uint32_t>& numbers) {
  std::string bytes;
  for (const std::uint32_t number : numbers) {
    for (unsigned shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(number >> shift));
  }
  return bytes;
}

class TraceFile : public ::testing::Test {
 protected:
  TraceFile() : directory_(std::filesystem::temp_directory_path() / ("quire-trace-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(directory_);
  }
  ~TraceFile() override { std::filesystem::remove_all(directory_); }

  std::string path(const std::string& name) const { return (directory_ / name).string(); }

  Result<Trace> read(const std::string& name, const std::string& bytes) {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return read_trace(path(name));
  }
  // What is said of the file, without its name; empty where it was read.
  std::string error(const std::string& name, const std::string& bytes, int errnum = EINVAL) {
    const Result<Trace> trace = read(name, bytes);
    if (trace) return "";
    EXPECT_EQ(trace.errnum(), errnum);
    report_error(trace.errnum(), "%s", "F");
    return error_message();
  }

 private:
  const std::filesystem::path directory_;
};

TEST_F(TraceFile, Text) {
  auto trace = read("small.trace", "70\n5\n70\n18446744073709551615\n5\n");
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->name, "small.trace");
  EXPECT_EQ(trace->requests, (Blocks{0, 1, 0, 2, 1}));
  EXPECT_EQ(trace->blocks, 3U);
}

TEST_F(TraceFile, LinesThatAreSkippedAndEndsOfLines) {
  auto trace = read("t", "1\r\n*\n\n * 7\n  2\t\n   \n1");
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->requests, (Blocks{0, 1, 0}));
}

TEST_F(TraceFile, Binary) {
  auto trace = read("t.bin", little_endian({7, 0xffffffff, 7, 0x01020304}));
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->requests, (Blocks{0, 1, 0, 2}));
}

TEST_F(TraceFile, Gzip) {
  auto text = read("t.trace.gz", gzip("3\n*\n4\n3\n"));
  ASSERT_TRUE(text);
  EXPECT_EQ(text->name, "t.trace.gz");
  EXPECT_EQ(text->requests, (Blocks{0, 1, 0}));
  auto binary = read("b.gz", gzip(little_endian({9, 8, 9})));
  ASSERT_TRUE(binary);
  EXPECT_EQ(binary->requests, (Blocks{0, 1, 0}));
  auto members = read("m.gz", gzip("1\n2\n") + gzip("1\n"));
  ASSERT_TRUE(members);
  EXPECT_EQ(members->requests, (Blocks{0, 1, 0}));
}

TEST_F(TraceFile, Xz) {
  auto text = read("t.trace.xz", xz("3\n*\n4\n3\n"));
  ASSERT_TRUE(text);
  EXPECT_EQ(text->requests, (Blocks{0, 1, 0}));
  auto binary = read("b.xz", xz(little_endian({9, 8, 9})) + xz(little_endian({8})));
  ASSERT_TRUE(binary);
  EXPECT_EQ(binary->requests, (Blocks{0, 1, 0, 1}));
}

// More than one chunk on both sides of the decompressors.
TEST_F(TraceFile, Long) {
  constexpr std::uint32_t kRequests = 300'000;
  std::vector<std::uint32_t> numbers(kRequests);
  for (std::uint32_t i = 0; i < kRequests; ++i) numbers[i] = i * 2654435761U;
  Blocks expected(kRequests);
  std::iota(expected.begin(), expected.end(), 0U);
  const std::string bytes = little_endian(numbers);
  for (auto& [name, content] :
       {std::pair<std::string, std::string>{"l", bytes}, {"l.gz", gzip(bytes)}, {"l.xz", xz(bytes)}}) {
    auto trace = read(name, content);
    ASSERT_TRUE(trace) << name;
    EXPECT_TRUE(trace->requests == expected) << name;
  }
}

TEST_F(TraceFile, WrongText) {
  EXPECT_EQ(error("t", "1\n2x\n"), "F: line 2: '2x' is no block number (one decimal number a line)");
  EXPECT_EQ(error("t", "*\n\n-1\n"), "F: line 3: '-1' is no block number (one decimal number a line)");
  EXPECT_EQ(error("t", "1 2\n"), "F: line 1: '1 2' is no block number (one decimal number a line)");
  EXPECT_EQ(error("t", "18446744073709551616\n"), "F: line 1: '18446744073709551616' is beyond 64 bits");
  EXPECT_EQ(error("t", std::string(5000, '\n') + "\x01\n"),
            "F: line 5001: '?' is no block number (one decimal number a line)");
  EXPECT_EQ(error("t", std::string(60, 'a')),
            "F: line 1: '" + std::string(40, 'a') + "...' is no block number (one decimal number a line)");
}

TEST_F(TraceFile, Nothing) {
  for (const char* bytes : {"", "\n", "*\n*\n"}) EXPECT_EQ(error("t", bytes), "F: holds no block number");
  EXPECT_EQ(error("t.gz", gzip("")), "F: holds no block number");
}

TEST_F(TraceFile, WrongBinary) {
  EXPECT_EQ(error("t", little_endian({1, 2}) + "abc"),
            "F: offset 8: a binary trace of 32-bit block numbers ends after 3 bytes of one");
}

TEST_F(TraceFile, DamagedCompression) {
  const std::string zipped = gzip("1\n2\n3\n");
  const std::string size = std::to_string(zipped.size() - 1);
  EXPECT_EQ(error("t.gz", zipped.substr(0, zipped.size() - 1)), "F: offset " + size + ": the gzip data is cut short");
  EXPECT_EQ(error("t.gz", ""), "F: offset 0: the gzip data is cut short");
  EXPECT_NE(error("t.gz", "1\n2\n").find("not gzip data"), std::string::npos);
  EXPECT_NE(error("t.gz", zipped + "garbage").find("not gzip data"), std::string::npos);
  std::string packed = xz("1\n2\n3\n");
  const std::string cut = packed.substr(0, packed.size() - 1);
  EXPECT_EQ(error("t.xz", cut), "F: offset " + std::to_string(cut.size()) + ": the xz data is cut short");
  EXPECT_EQ(error("t.xz", ""), "F: offset 0: the xz data is cut short");
  EXPECT_NE(error("t.xz", "1\n2\n3\n4\n5\n6\n7\n").find("not xz data"), std::string::npos);
  packed[packed.size() / 2] = static_cast<char>(packed[packed.size() / 2] ^ 0x10);
  EXPECT_NE(error("t.xz", packed).find("damaged"), std::string::npos);
}

TEST_F(TraceFile, WhatCannotBeRead) {
  const Result<Trace> missing = read_trace(path("missing"));
  EXPECT_EQ(missing.errnum(), ENOENT);
  const Result<Trace> directory = read_trace(path("."));
  EXPECT_EQ(directory.errnum(), EISDIR);
}

}  // namespace
}  // namespace quire::simulation
