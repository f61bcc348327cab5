// Whole files held against their sidecars: flipped bits in data, tree and header, each named and nothing else; holes;
// and whom the caller accepts.
#include <vector>

#include "api/api_test_util.h"
#include "verity/sidecar.h"
#include "verity/verity_test_util.h"

namespace quire::api_testing {
namespace {

struct Bad {
  unsigned kind;
  std::uint64_t offset, length;
  std::string expected, found;
};

class VerityCheck : public verity_testing::VerityTest {
 protected:
  static constexpr std::uint64_t kTree = verity::kSidecarHeaderSize;

  void make(std::size_t size, quire_verity_options options = {}) {
    const auto bytes = verity_testing::random_bytes(size, 3);
    host_write(file_, {bytes.data(), bytes.size()});
    enable(options);
  }
  void enable(quire_verity_options options = {}) {
    options.struct_size = sizeof options;
    ASSERT_EQ(quire_verity_enable(cache_.get(), file_.c_str(), &options), 0) << quire_error_message();
  }
  static void flip(const std::string& file, std::uint64_t offset) {
    std::string byte = host_pread(file, 1, static_cast<off_t>(offset));
    ASSERT_EQ(byte.size(), 1U);
    byte[0] = static_cast<char>(byte[0] ^ 0x10);
    host_pwrite(file, byte, static_cast<off_t>(offset));
  }
  // 0 or an errno.
  int check(const char* digest = nullptr, const char* certificates = nullptr) {
    bad_.clear();
    progress_ = 0;
    counts_ = {};
    counts_.struct_size = sizeof counts_;
    quire_verity_check_options options = {};
    options.struct_size = sizeof options;
    options.digest = digest;
    options.certificates = certificates;
    options.bad_block = [](void* arg, const quire_verity_bad_block* block) {
      const auto text = [](const char* digest_text) { return digest_text != nullptr ? digest_text : ""; };
      static_cast<VerityCheck*>(arg)->bad_.push_back(
          {block->kind, block->offset, block->length, text(block->expected), text(block->found)});
    };
    options.progress = [](void* arg, std::uint64_t done, std::uint64_t) {
      static_cast<VerityCheck*>(arg)->progress_ = done;
    };
    options.arg = this;
    return quire_verity_check(file_.c_str(), &options, &counts_) == 0 ? 0 : errno;
  }
  void expect_only(unsigned kind, std::uint64_t offset, std::uint64_t length) {
    ASSERT_EQ(bad_.size(), 1U);
    EXPECT_EQ(bad_[0].kind, kind);
    EXPECT_EQ(bad_[0].offset, offset);
    EXPECT_EQ(bad_[0].length, length);
    EXPECT_EQ(bad_[0].expected.substr(0, 3), "sha");
    EXPECT_NE(bad_[0].expected, bad_[0].found);
  }

  CachePtr cache_ = make_cache(4 * kMiB);
  const std::string file_ = path("file"), sidecar_ = file_ + ".verity";
  std::vector<Bad> bad_;
  std::uint64_t progress_ = 0;
  quire_verity_counts counts_ = {};
};

TEST_F(VerityCheck, GoodFiles) {
  for (const std::size_t size : {0UL, 1UL, 4096UL, 5'000'000UL}) {
    make(size);
    EXPECT_EQ(check(), 0) << quire_error_message();
    EXPECT_TRUE(bad_.empty());
    EXPECT_EQ(progress_, size);
    EXPECT_EQ(counts_.data_blocks, (size + 4095) / 4096);
    EXPECT_EQ(counts_.bad_data_blocks + counts_.bad_hash_blocks + counts_.unverified_blocks, 0U);
    EXPECT_EQ(check(std::string(counts_.digest).c_str()), 0) << quire_error_message();
    ASSERT_EQ(unlink(sidecar_.c_str()), 0);
  }
}

TEST_F(VerityCheck, V1_ABitOfAnyDataBlock) {
  constexpr std::uint64_t kSize = 3 * kMiB + 100;
  make(kSize);
  for (const std::uint64_t at : {std::uint64_t{0}, std::uint64_t{4095}, std::uint64_t{kMiB + 7}, kSize - 1}) {
    SCOPED_TRACE(at);
    flip(file_, at);
    EXPECT_EQ(check(), EIO);
    EXPECT_MESSAGE_HAS(file_);
    const std::uint64_t begin = at / 4096 * 4096;
    expect_only(QUIRE_BAD_DATA, begin, std::min<std::uint64_t>(4096, kSize - begin));
    EXPECT_EQ(counts_.bad_data_blocks, 1U);
    EXPECT_EQ(progress_, kSize) << "it goes on";
    flip(file_, at);
  }
  for (std::uint64_t at = 0; at < kSize; at += 4096) flip(file_, at);
  EXPECT_EQ(check(), EIO);
  EXPECT_EQ(bad_.size(), kSize / 4096 + 1);
  EXPECT_EQ(counts_.bad_data_blocks, bad_.size());
}

TEST_F(VerityCheck, V1_ABitOfAnyTreeBlock) {
  quire_verity_options options = {};
  options.block_size = 1024;  // 32 digests in a block
  constexpr std::uint64_t kBlocks = 2 * 32 * 32 + 5;
  make(kBlocks * 1024, options);
  // Level 2 has a block, level 1 three, level 0 sixty-five, in this order.
  struct {
    std::uint64_t tree_block, first, count;
  } const cases[] = {{0, 0, kBlocks}, {1, 0, 1024},          {2, 1024, 1024},  {3, 2048, 5},
                     {4, 0, 32},      {4 + 33, 33 * 32, 32}, {4 + 64, 2048, 5}};
  for (const auto& flipped : cases) {
    SCOPED_TRACE(flipped.tree_block);
    const std::uint64_t at = kTree + flipped.tree_block * 1024;
    flip(sidecar_, at + 3);
    EXPECT_EQ(check(), EIO);
    ASSERT_EQ(bad_.size(), 2U);
    EXPECT_EQ(bad_[0].kind, static_cast<unsigned>(QUIRE_BAD_HASH));
    EXPECT_EQ(bad_[0].offset, at);
    EXPECT_EQ(bad_[0].length, 1024U);
    EXPECT_NE(bad_[0].expected, bad_[0].found);
    EXPECT_EQ(bad_[1].kind, static_cast<unsigned>(QUIRE_BAD_UNVERIFIED));
    EXPECT_EQ(bad_[1].offset, flipped.first * 1024);
    EXPECT_EQ(bad_[1].length, flipped.count * 1024);
    EXPECT_EQ(bad_[1].expected, "");
    EXPECT_EQ(counts_.bad_hash_blocks, 1U);
    EXPECT_EQ(counts_.unverified_blocks, flipped.count);
    EXPECT_EQ(counts_.bad_data_blocks, 0U);
    flip(sidecar_, at + 3);
  }
  EXPECT_EQ(check(), 0) << quire_error_message();
}

TEST_F(VerityCheck, V1_ABitOfTheHeaderAndWrongSizes) {
  make(100'000);
  for (const std::uint64_t at : {0, 8, 12, 40, 48, 56, 112, 300, 65000, 65535}) {
    SCOPED_TRACE(at);
    flip(sidecar_, at);
    EXPECT_EQ(check(), EBADMSG);
    quire_verity_info info = {};
    info.struct_size = sizeof info;
    EXPECT_FAILS(EBADMSG, quire_verity_status(file_.c_str(), &info));
    flip(sidecar_, at);
  }
  const auto size = host_stat(sidecar_).st_size;
  for (const off_t wrong : {off_t{0}, off_t{100}, off_t{65536}, size - 1, size + 1}) {
    ASSERT_EQ(truncate(sidecar_.c_str(), wrong), 0);
    EXPECT_EQ(check(), EBADMSG) << wrong;
    ASSERT_EQ(unlink(sidecar_.c_str()), 0);
    enable();
  }
  ASSERT_EQ(truncate(file_.c_str(), 99'999), 0);
  EXPECT_EQ(check(), EBADMSG);
  EXPECT_MESSAGE_HAS("99999");
}

TEST_F(VerityCheck, HolesAreZerosAndNeedNoReading) {
  constexpr off_t kSize = 64 * kMiB + 17;
  host_write(file_, "beginning");
  host_pwrite(file_, named_bytes(1, 0, 300'000), 30 * kMiB + 1000);
  ASSERT_EQ(truncate(file_.c_str(), kSize), 0);
  enable();
  EXPECT_EQ(check(), 0) << quire_error_message();
  EXPECT_EQ(progress_, static_cast<std::uint64_t>(kSize));
  if (has_fsverity()) {
    const std::string digest = verity_testing::run_well({"fsverity", "digest", "--compact", file_});
    EXPECT_EQ(std::string(counts_.digest) + "\n", "sha256:" + digest);
  }
  host_pwrite(file_, "x", 50 * kMiB);  // where there was a hole
  EXPECT_EQ(check(), EIO);
  expect_only(QUIRE_BAD_DATA, 50 * kMiB, 4096);
}

TEST_F(VerityCheck, OnlyTheDigestThatIsNamed) {
  make(10'000);
  ASSERT_EQ(check(), 0) << quire_error_message();
  const std::string digest = counts_.digest;
  EXPECT_EQ(check(digest.c_str()), 0);
  EXPECT_EQ(check(digest.substr(7).c_str()), 0) << "the digits alone";
  // Both files rewritten: consistent, and found out.
  ASSERT_EQ(unlink(sidecar_.c_str()), 0);
  flip(file_, 5000);
  enable();
  EXPECT_EQ(check(), 0);
  EXPECT_EQ(check(digest.c_str()), EKEYREJECTED);
  EXPECT_MESSAGE_HAS(digest);
  EXPECT_EQ(check("sha256:12"), EINVAL);
  EXPECT_EQ(check(nullptr, path("missing").c_str()), ENOENT);
}

TEST_F(VerityCheck, OnlySignaturesThatAreAccepted) {
  SKIP_WITHOUT_FSVERITY();
  SKIP_WITHOUT_OPENSSL();
  make(10'000);
  for (const char* name : {"one", "two"}) {
    verity_testing::run_well({"openssl", "req", "-newkey", "rsa:2048", "-nodes", "-x509", "-days", "100", "-subj",
                              std::string("/CN=") + name, "-keyout", path(std::string(name) + ".key"), "-out",
                              path(std::string(name) + ".pem")});
  }
  verity_testing::run_well(
      {"fsverity", "sign", file_, path("signature"), "--key=" + path("one.key"), "--cert=" + path("one.pem")});
  const std::string one = path("one.pem"), two = path("two.pem");
  EXPECT_EQ(check(nullptr, one.c_str()), EKEYREJECTED);
  EXPECT_MESSAGE_HAS("not signed");
  ASSERT_EQ(unlink(sidecar_.c_str()), 0);
  const std::string signature = host_read(path("signature"));
  quire_verity_options options = {};
  options.signature = signature.data();
  options.signature_size = signature.size();
  enable(options);
  EXPECT_EQ(check(nullptr, one.c_str()), 0) << quire_error_message();
  EXPECT_EQ(check(nullptr, two.c_str()), EKEYREJECTED);
  quire_verity_info info = {};
  info.struct_size = sizeof info;
  ASSERT_EQ(quire_verity_status(file_.c_str(), &info), 0) << quire_error_message();
  EXPECT_EQ(info.signature_size, signature.size());
  // A signature of other bytes is kept, and refused by who asks for one.
  ASSERT_EQ(unlink(sidecar_.c_str()), 0);
  flip(file_, 1);
  enable(options);
  EXPECT_EQ(check(), 0);
  EXPECT_EQ(check(nullptr, one.c_str()), EKEYREJECTED);
}

}  // namespace
}  // namespace quire::api_testing
