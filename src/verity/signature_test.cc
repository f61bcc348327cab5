// Signatures: those that the fsverity program makes, with keys and certificates of the openssl program.
#include "verity/signature.h"

#include <openssl/err.h>

#include <algorithm>

#include "verity/descriptor.h"
#include "verity/merkle_tree.h"
#include "verity/verity_test_util.h"

namespace quire::verity {
namespace {

using verity_testing::cause;
using verity_testing::random_bytes;
using verity_testing::run_well;
using verity_testing::says;

class VeritySignature : public verity_testing::VerityTest {
 protected:
  // NAME.key, and NAME.pem, which vouches for itself.
  void make_signer(const std::string& name, const std::vector<std::string>& more = {}) {
    run_well(
        {"openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path(name + ".key")});
    certify(name, more);
  }
  void certify(const std::string& name, const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = {"openssl", "req",
                                      "-new",    "-x509",
                                      "-days",   "100",
                                      "-subj",   "/CN=" + name,
                                      "-key",    path(name + ".key"),
                                      "-out",    path(name + ".pem")};
    words.insert(words.end(), more.begin(), more.end());
    run_well(words);
  }
  std::vector<std::string> signed_by(const std::string& issuer) {
    return {"-CA", path(issuer + ".pem"), "-CAkey", path(issuer + ".key")};
  }

  static std::vector<char> content() { return random_bytes(10'000, 8); }
  static Digest digest_of_content(HashAlgorithm algorithm = HashAlgorithm::sha256) {
    const auto data = content();
    const HashParameters parameters{.algorithm = algorithm, .salt = {}};
    auto builder = TreeBuilder::create(data.size(), parameters, [](auto, auto) { return Status(); });
    EXPECT_TRUE(builder->add(data));
    auto root = builder->finish();
    return *file_digest({.parameters = parameters, .data_size = data.size(), .root_hash = *root});
  }

  std::vector<std::uint8_t> sign(const std::string& name, const std::vector<std::string>& more = {}) {
    write("content", content());
    std::vector<std::string> words = {"fsverity",
                                      "sign",
                                      path("content"),
                                      path("signature"),
                                      "--key=" + path(name + ".key"),
                                      "--cert=" + path(name + ".pem")};
    words.insert(words.end(), more.begin(), more.end());
    run_well(words);
    return load_signature();
  }
  // With the openssl program, which puts certificates and attributes into its messages unless told otherwise.
  std::vector<std::uint8_t> sign_with_openssl(const std::string& name, const std::vector<std::string>& more) {
    const FormattedDigest formatted = formatted_digest(digest_of_content());
    write("formatted", {reinterpret_cast<const char*>(formatted.bytes.data()), formatted.size});
    std::vector<std::string> words = {
        "openssl",         "cms",  "-sign",           "-binary", "-outform",          "DER",    "-in",
        path("formatted"), "-out", path("signature"), "-signer", path(name + ".pem"), "-inkey", path(name + ".key")};
    words.insert(words.end(), more.begin(), more.end());
    run_well(words);
    return load_signature();
  }
  std::vector<std::uint8_t> load_signature() {
    auto signature = read_signature(path("signature").c_str());
    EXPECT_TRUE(signature) << cause(signature.errnum());
    return signature.take();
  }
  Certificates load(const std::string& file) {
    auto certificates = Certificates::load(path(file).c_str());
    EXPECT_TRUE(certificates) << cause(certificates.errnum());
    return certificates.take();
  }
  void append(const std::string& from, const std::string& to) {
    auto bytes = std::filesystem::exists(path(to)) ? read(to) : std::vector<char>();
    const auto more = read(from);
    bytes.insert(bytes.end(), more.begin(), more.end());
    write(to, bytes);
  }
};

#define SKIP_WITHOUT_PROGRAMS() \
  SKIP_WITHOUT_FSVERITY();      \
  SKIP_WITHOUT_OPENSSL()

TEST_F(VeritySignature, V1_OfFsverityIsAccepted) {
  SKIP_WITHOUT_PROGRAMS();
  make_signer("alice");
  const Certificates alice = load("alice.pem");
  EXPECT_EQ(alice.count(), 1u);
  EXPECT_TRUE(alice.verify(digest_of_content(), sign("alice")));
  EXPECT_TRUE(alice.verify(digest_of_content(HashAlgorithm::sha512), sign("alice", {"--hash-alg=sha512"})));
}

TEST_F(VeritySignature, V1_OfAnRsaKeyIsAccepted) {
  SKIP_WITHOUT_PROGRAMS();
  run_well({"openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", path("rsa.key")});
  certify("rsa");
  EXPECT_TRUE(load("rsa.pem").verify(digest_of_content(), sign("rsa")));
}

TEST_F(VeritySignature, V1_OverAnotherDigestIsRefused) {
  SKIP_WITHOUT_PROGRAMS();
  make_signer("alice");
  const Certificates alice = load("alice.pem");
  const auto signature = sign("alice");
  Digest digest = digest_of_content();
  digest.bytes[31] ^= 1;
  EXPECT_EQ(alice.verify(digest, signature).errnum(), EKEYREJECTED);
  EXPECT_TRUE(says(EKEYREJECTED, "over another digest"));
  EXPECT_EQ(alice.verify(digest_of_content(HashAlgorithm::sha512), signature).errnum(), EKEYREJECTED);
}

TEST_F(VeritySignature, V1_OfAnotherKeyIsRefused) {
  SKIP_WITHOUT_PROGRAMS();
  make_signer("alice");
  make_signer("mallory");
  const auto signature = sign("mallory");
  const Certificates alice = load("alice.pem");
  EXPECT_EQ(alice.verify(digest_of_content(), signature).errnum(), EKEYREJECTED);
  EXPECT_TRUE(says(EKEYREJECTED, "none of the given certificates"));
  // Her certificate along with it is of no help to her.
  EXPECT_EQ(alice.verify(digest_of_content(), sign_with_openssl("mallory", {})).errnum(), EKEYREJECTED);
  EXPECT_TRUE(says(EKEYREJECTED, "none of the given certificates"));
  EXPECT_EQ(Certificates().verify(digest_of_content(), signature).errnum(), EKEYREJECTED);
}

// Somebody who calls herself what the one who is trusted is called, by name and number.
TEST_F(VeritySignature, V1_OfAnotherKeyUnderTheSameNameIsRefused) {
  SKIP_WITHOUT_PROGRAMS();
  make_signer("alice", {"-set_serial", "7"});
  const Certificates alice = load("alice.pem");
  make_signer("alice", {"-set_serial", "7"});
  EXPECT_EQ(alice.verify(digest_of_content(), sign("alice")).errnum(), EKEYREJECTED);
  EXPECT_EQ(alice.verify(digest_of_content(), sign_with_openssl("alice", {})).errnum(), EKEYREJECTED);
  EXPECT_TRUE(load("alice.pem").verify(digest_of_content(), sign("alice")));
}

TEST_F(VeritySignature, V1_OfAnyOfSeveralCertificates) {
  SKIP_WITHOUT_PROGRAMS();
  for (const char* const name : {"alice", "bob", "carol"}) make_signer(name);
  for (const char* const file : {"alice.pem", "bob.key", "bob.pem"}) append(file, "both");  // keys are passed over
  const Certificates both = load("both");
  EXPECT_EQ(both.count(), 2u);
  EXPECT_TRUE(both.verify(digest_of_content(), sign("alice")));
  EXPECT_TRUE(both.verify(digest_of_content(), sign("bob")));
  EXPECT_EQ(both.verify(digest_of_content(), sign("carol")).errnum(), EKEYREJECTED);
}

TEST_F(VeritySignature, V1_CertificateInDer) {
  SKIP_WITHOUT_PROGRAMS();
  make_signer("alice");
  run_well({"openssl", "x509", "-in", path("alice.pem"), "-outform", "DER", "-out", path("alice.der")});
  EXPECT_TRUE(load("alice.der").verify(digest_of_content(), sign("alice")));
}

TEST_F(VeritySignature, V1_SignerThatATrustedCertificateVouchesFor) {
  SKIP_WITHOUT_PROGRAMS();
  make_signer("root");
  make_signer("middle", signed_by("root"));
  auto leaf = signed_by("middle");
  leaf.insert(leaf.end(), {"-addext", "basicConstraints=critical,CA:FALSE"});
  make_signer("leaf", leaf);
  make_signer("other");
  const auto signature = sign_with_openssl("leaf", {"-noattr", "-certfile", path("middle.pem")});
  for (const char* const trusted : {"root.pem", "middle.pem", "leaf.pem"}) {
    EXPECT_TRUE(load(trusted).verify(digest_of_content(), signature)) << trusted << ": " << cause(EKEYREJECTED);
  }
  EXPECT_EQ(load("other.pem").verify(digest_of_content(), signature).errnum(), EKEYREJECTED);
  // Without the certificate between them, there is no way to the root.
  EXPECT_EQ(load("root.pem").verify(digest_of_content(), sign_with_openssl("leaf", {})).errnum(), EKEYREJECTED);

  // Who is no authority vouches for nobody.
  make_signer("puppet", signed_by("leaf"));
  const auto puppets = sign_with_openssl("puppet", {"-certfile", path("leaf.pem")});
  EXPECT_EQ(load("leaf.pem").verify(digest_of_content(), puppets).errnum(), EKEYREJECTED);
}

TEST_F(VeritySignature, V1_AttributesAndKeyIdentifiers) {
  SKIP_WITHOUT_PROGRAMS();
  make_signer("alice");
  const Certificates alice = load("alice.pem");
  Digest other = digest_of_content();
  other.bytes[0] ^= 1;
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{}, {"-nocerts"}, {"-nocerts", "-noattr"}, {"-keyid"}, {"-keyid", "-nocerts"}}) {
    const auto signature = sign_with_openssl("alice", options);
    EXPECT_TRUE(alice.verify(digest_of_content(), signature)) << cause(EKEYREJECTED);
    EXPECT_EQ(alice.verify(other, signature).errnum(), EKEYREJECTED);
  }
}

// As in the kernel.
TEST_F(VeritySignature, V1_NeitherPurposeNorTimeMatters) {
  SKIP_WITHOUT_PROGRAMS();
  make_signer("server", {"-addext", "keyUsage=critical,keyEncipherment", "-addext", "extendedKeyUsage=serverAuth"});
  EXPECT_TRUE(load("server.pem").verify(digest_of_content(), sign("server"))) << cause(EKEYREJECTED);

  make_signer("old");
  run_well({"openssl", "x509", "-in", path("old.pem"), "-signkey", path("old.key"), "-days", "-1", "-out",
            path("expired.pem")});
  EXPECT_NE(verity_testing::run({"openssl", "x509", "-in", path("expired.pem"), "-checkend", "0"}).status, 0);
  std::filesystem::rename(path("expired.pem"), path("old.pem"));
  EXPECT_TRUE(load("old.pem").verify(digest_of_content(), sign("old"))) << cause(EKEYREJECTED);
}

TEST_F(VeritySignature, V1_MalformedSignatures) {
  SKIP_WITHOUT_PROGRAMS();
  make_signer("alice");
  const Certificates alice = load("alice.pem");
  const Digest digest = digest_of_content();
  const auto good = sign("alice");
  const auto refused = [&](std::span<const std::uint8_t> bytes) {
    return alice.verify(digest, bytes).errnum() == EBADMSG && cause(EBADMSG).find("signature") != std::string::npos;
  };
  for (std::size_t size = 0; size < good.size(); ++size) EXPECT_TRUE(refused(std::span(good).first(size))) << size;
  auto longer = good;
  longer.push_back(0);
  EXPECT_TRUE(refused(longer));
  EXPECT_TRUE(refused(std::vector<std::uint8_t>(kMaxSignatureSize + 1)));
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const auto bytes = random_bytes(seed * 7, seed);
    EXPECT_TRUE(refused({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}));
  }
  // With its content inside, it could be a signature of something else.
  EXPECT_TRUE(refused(sign_with_openssl("alice", {"-nodetach"})));
  EXPECT_TRUE(refused(sign_with_openssl("alice", {"-outform", "PEM"})));

  // Only bits that say nothing may differ: none of the key's own numbers, at the end.
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    auto bytes = good;
    bytes[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
    const int errnum = alice.verify(digest, bytes).errnum();
    EXPECT_TRUE(errnum == EBADMSG || errnum == EKEYREJECTED || (errnum == 0 && bit / 8 < good.size() - 64))
        << bit << ": " << errnum;
  }
}

TEST_F(VeritySignature, SignatureFiles) {
  write("longest", std::vector<char>(kMaxSignatureSize, 's'));
  EXPECT_EQ(read_signature(path("longest").c_str())->size(), kMaxSignatureSize);
  write("longer", std::vector<char>(kMaxSignatureSize + 1, 's'));
  EXPECT_EQ(read_signature(path("longer").c_str()).errnum(), EMSGSIZE);
  EXPECT_TRUE(says(EMSGSIZE, "16128"));
  write("empty", {});
  EXPECT_EQ(read_signature(path("empty").c_str()).errnum(), EBADMSG);
  EXPECT_EQ(read_signature(path("absent").c_str()).errnum(), ENOENT);
  EXPECT_TRUE(says(ENOENT, path("absent")));
  EXPECT_EQ(read_signature(dir_.c_str()).errnum(), EISDIR);
}

TEST_F(VeritySignature, CertificateFiles) {
  EXPECT_EQ(Certificates::load(path("absent").c_str()).errnum(), ENOENT);
  EXPECT_TRUE(says(ENOENT, path("absent")));
  EXPECT_EQ(Certificates::load(dir_.c_str()).errnum(), EISDIR);
  write("huge", std::vector<char>((1 << 20) + 1, 'c'));
  EXPECT_EQ(Certificates::load(path("huge").c_str()).errnum(), EFBIG);
  const std::string encrypted =
      "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,"
      "00000000000000000000000000000000\n\nAAAA\n-----END CERTIFICATE-----\n";
  for (const std::string& text : {std::string(), std::string("hello"), std::string("-----BEGIN NOTHING"),
                                  std::string("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                                  std::string("-----BEGIN CERTIFICATE-----\n????\n"), encrypted}) {
    write("text", {text.data(), text.size()});
    EXPECT_EQ(Certificates::load(path("text").c_str()).errnum(), EINVAL) << text;
    EXPECT_TRUE(says(EINVAL, path("text")));
  }
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    write("random", random_bytes(seed * 50, seed));
    EXPECT_EQ(Certificates::load(path("random").c_str()).errnum(), EINVAL);
  }
}

TEST_F(VeritySignature, CertificateFilesCutShort) {
  SKIP_WITHOUT_OPENSSL();
  make_signer("alice");
  const auto whole = read("alice.pem");
  write("cut", std::span(whole).first(whole.size() - 40));
  EXPECT_EQ(Certificates::load(path("cut").c_str()).errnum(), EINVAL);
  append("alice.pem", "two");
  append("cut", "two");
  EXPECT_EQ(Certificates::load(path("two").c_str()).errnum(), EINVAL) << "not the good one alone";
  EXPECT_TRUE(says(EINVAL, "certificate 2 of"));
  EXPECT_EQ(Certificates::load(path("alice.key").c_str()).errnum(), EINVAL) << "a key is no certificate";
  run_well({"openssl", "x509", "-in", path("alice.pem"), "-outform", "DER", "-out", path("alice.der")});
  const auto der = read("alice.der");
  for (std::size_t size = 0; size < der.size(); size += 13) {
    write("cut.der", std::span(der).first(size));
    EXPECT_EQ(Certificates::load(path("cut.der").c_str()).errnum(), EINVAL) << size;
  }
}

// The queue of errors is the thread's, and a program may be in the middle of asking OpenSSL what went wrong.
TEST_F(VeritySignature, LeavesOpensslsErrorsOfOthersAlone) {
  ERR_clear_error();
  ERR_raise(ERR_LIB_USER, 123);
  write("text", std::vector<char>(100, 'x'));
  EXPECT_FALSE(Certificates::load(path("text").c_str()));
  EXPECT_EQ(ERR_GET_REASON(ERR_get_error()), 123);
  EXPECT_EQ(ERR_get_error(), 0u);
}

}  // namespace
}  // namespace quire::verity
