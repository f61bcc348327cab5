#include "sync/sequence.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

#include "base/random.h"

namespace quire {
namespace {

TEST(Sequence, OddWhileWriting) {
  Sequence sequence;
  const std::uint64_t begin = sequence.read_begin();
  EXPECT_FALSE(Sequence::is_odd(begin));
  EXPECT_TRUE(sequence.validate(begin));
  sequence.write_begin();
  EXPECT_TRUE(sequence.odd());
  EXPECT_TRUE(Sequence::is_odd(sequence.read_begin()));
  EXPECT_FALSE(sequence.validate(begin));
  sequence.write_end();
  EXPECT_FALSE(sequence.odd());
  validate_fence();
  EXPECT_FALSE(sequence.unchanged(begin));
  EXPECT_TRUE(sequence.validate(sequence.read_begin()));
}

// Every alignment of both sides against memcpy and memset, with guard bytes on each side.
TEST(RacyCopy, EveryAlignmentAndLength) {
  constexpr std::size_t kRoom = 4096;
  alignas(8) std::array<unsigned char, kRoom> folio, buffer, expected;
  Random random(7);
  for (int i = 0; i < 4'000; ++i) {
    for (auto& byte : folio) byte = static_cast<unsigned char>(i);
    for (auto& byte : buffer) byte = static_cast<unsigned char>(random.next());
    const std::size_t size = random.below(i % 8 == 0 ? 3000 : 40);
    const std::size_t at = random.below(40), from = random.below(40);
    expected = folio;
    std::memcpy(&expected[at], &buffer[from], size);
    racy_copy_to_folio(&folio[at], &buffer[from], size);
    ASSERT_EQ(folio, expected) << size << " bytes, " << from << " to " << at;

    expected = buffer;
    std::memcpy(&expected[from], &folio[at], size);
    buffer[from] ^= 0xff;  // undone by the copy, or by the line after it
    if (size == 0) buffer[from] ^= 0xff;
    racy_copy_from_folio(&buffer[from], &folio[at], size);
    ASSERT_EQ(buffer, expected) << size << " bytes, " << at << " to " << from;

    expected = folio;
    std::memset(&expected[at], 0, size);
    racy_zero_folio(&folio[at], size);
    ASSERT_EQ(folio, expected) << size << " bytes at " << at;
  }
}

// One writer stamps its generation into every byte (the last but one zeroes); a copy that validates is of one
// generation. The length and both alignments vary, so that words, heads and tails all take part.
TEST(Sequence, ValidatedCopyIsNeverTorn) {
  constexpr std::size_t kRoom = 6000;
  constexpr int kWrites = 10'000;
  Sequence sequence;
  alignas(64) static unsigned char folio[kRoom + 8];
  std::memset(folio, 0, sizeof folio);
  Atomic<bool> stop;
  Atomic<std::uint64_t> valid, torn;
  std::vector<std::thread> readers;
  for (std::uint64_t t = 0; t < 2; ++t) {
    readers.emplace_back([&, t] {
      std::array<unsigned char, kRoom + 8> buffer;
      Random random(t + 1);
      while (!stop.load(memory_order_relaxed)) {
        const std::size_t at = random.below(8), size = 1 + random.below(random.one_in(2) ? 64 : kRoom - 8);
        const std::uint64_t begin = sequence.read_begin();
        if (Sequence::is_odd(begin)) continue;
        racy_copy_from_folio(buffer.data(), folio + at, size);
        if (!sequence.validate(begin)) continue;
        valid.fetch_add(1, memory_order_relaxed);
        const auto generation = static_cast<unsigned char>(begin / 2 % 251);
        for (std::size_t i = 0; i < size; ++i) {
          if (buffer[i] != generation) {
            torn.fetch_add(1, memory_order_relaxed);
            break;
          }
        }
      }
    });
  }
  std::array<unsigned char, kRoom + 8> source;
  for (int i = 1; i <= kWrites; ++i) {
    const auto generation = static_cast<unsigned char>(i % 251);
    source.fill(generation);
    sequence.write_begin();
    if (generation == 0) {
      racy_zero_folio(folio, sizeof folio);
    } else {
      racy_copy_to_folio(folio, source.data(), sizeof folio);
    }
    sequence.write_end();
    if (i % 64 == 0) std::this_thread::yield();
  }
  while (valid.load(memory_order_relaxed) == 0) std::this_thread::yield();
  stop.store(true, memory_order_relaxed);
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(torn.load(memory_order_relaxed), 0u);
}

}  // namespace
}  // namespace quire
