// Sizes on the command line: what is read, what is refused, and that what is printed is read back.
#include "cli/size.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

TEST(ParseSize, PlainBytes) {
  EXPECT_EQ(parse_size("0"), 0u);
  EXPECT_EQ(parse_size("4096"), 4096u);
  EXPECT_EQ(parse_size("4096B"), 4096u);
  EXPECT_EQ(parse_size("18446744073709551615"), UINT64_MAX);
}

TEST(ParseSize, BinaryUnits) {
  EXPECT_EQ(parse_size("64K"), 64u << 10);
  EXPECT_EQ(parse_size("64k"), 64u << 10);
  EXPECT_EQ(parse_size("64KiB"), 64u << 10);
  EXPECT_EQ(parse_size("64MiB"), 64u << 20);
  EXPECT_EQ(parse_size("64mib"), 64u << 20);
  EXPECT_EQ(parse_size("1G"), std::uint64_t{1} << 30);
  EXPECT_EQ(parse_size("3T"), std::uint64_t{3} << 40);
  EXPECT_EQ(parse_size("2P"), std::uint64_t{2} << 50);
  EXPECT_EQ(parse_size("1E"), std::uint64_t{1} << 60);
}

TEST(ParseSize, OverflowIsRefused) {
  EXPECT_EQ(parse_size("15E"), std::uint64_t{15} << 60);
  EXPECT_EQ(parse_size("16E"), std::nullopt);
  EXPECT_EQ(parse_size("18446744073709551616"), std::nullopt);
  EXPECT_EQ(parse_size("99999999999999999999999K"), std::nullopt);
}

TEST(ParseSize, OtherTextIsRefused) {
  for (const char* text : {"", "K", "-1", "+1", " 1", "1 ", "1 K", "1.5G", "0x10", "64KB", "64MB", "64Ki", "64KiBs",
                           "4096x", "1KK", "64iB", "M64", "ten", "1\n"}) {
    EXPECT_EQ(parse_size(text), std::nullopt) << '"' << text << '"';
  }
}

TEST(FormatSize, ShortestExactForm) {
  EXPECT_EQ(format_size(0), "0");
  EXPECT_EQ(format_size(1), "1");
  EXPECT_EQ(format_size(1023), "1023");
  EXPECT_EQ(format_size(4096), "4K");
  EXPECT_EQ(format_size(4097), "4097");
  EXPECT_EQ(format_size(std::uint64_t{1} << 30), "1G");
  EXPECT_EQ(format_size(std::uint64_t{1536} << 20), "1536M");
}

TEST(FormatSize, IsReadBack) {
  for (unsigned shift = 0; shift < 64; ++shift) {
    for (const std::uint64_t delta : {UINT64_MAX, std::uint64_t{0}, std::uint64_t{1}}) {
      const std::uint64_t size = (std::uint64_t{1} << shift) + delta;
      EXPECT_EQ(parse_size(format_size(size)), size);
    }
  }
}

}  // namespace
}  // namespace quire
