// The other process of the lock tests: what Peer starts. One handle at a time, in a cache of its own.
#include "api/peer_test_util.h"

namespace quire::api_testing {
namespace {

// Serves instead of testing where a Peer started this program.
class ServeIfPeer : public ::testing::Environment {
 public:
  void SetUp() override {
    if (const char* fd = std::getenv(kPeerVariable)) Peer::serve(std::atoi(fd));
  }
};
[[maybe_unused]] ::testing::Environment* const registered = ::testing::AddGlobalTestEnvironment(new ServeIfPeer);

int obey(const PeerOrder& order, quire_cache** cache, quire_file** file) {
  if (order.what == 'u') {
    return setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0 ? 0 : errno;
  }
  if (*cache == nullptr) {
    const quire_options options{sizeof(quire_options), 4 * kMiB, 0, 0};
    *cache = quire_cache_create(&options);
    if (*cache == nullptr) return errno;
  }
  switch (order.what) {
    case 'o':
      *file = quire_open(*cache, order.path, order.flags, 0644);
      return *file != nullptr ? 0 : errno;
    case 'c':
      return quire_close(*file) == 0 ? 0 : errno;
    case 'w':
      return quire_pwrite(*file, order.path, std::strlen(order.path), order.flags) >= 0 ? 0 : errno;
    default:
      return ENOSYS;
  }
}

}  // namespace

void Peer::serve(int socket) {
  quire_cache* cache = nullptr;
  quire_file* file = nullptr;
  PeerOrder order;
  while (::recv(socket, &order, sizeof order, 0) == static_cast<ssize_t>(sizeof order)) {
    PeerReply reply = {};
    reply.errnum = obey(order, &cache, &file);
    std::snprintf(reply.message, sizeof reply.message, "%s", quire_error_message());
    if (::send(socket, &reply, sizeof reply, MSG_NOSIGNAL) < 0) break;
  }
  _exit(0);  // what is dirty is lost, as with any process that ends
}

}  // namespace quire::api_testing
