// Another process with a cache of its own, told what to do over a socket: this same test program, started again.
#pragma once

#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <csignal>

#include "api/api_test_util.h"

namespace quire::api_testing {

inline constexpr const char* kPeerVariable = "QUIRE_TEST_PEER_FD";

struct PeerOrder {
  char what;  // 'o' open, 'c' close, 'w' write the path's bytes at offset flags, 'u' become an ordinary user
  int flags;
  char path[512];
};
struct PeerReply {
  int errnum;
  char message[1024];
};

class Peer {
 public:
  Peer() {
    int sockets[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
    socket_ = sockets[0];
    constexpr int kPeersFd = 200;
    std::string variable = std::string(kPeerVariable) + "=" + std::to_string(kPeersFd);
    std::vector<char*> environment{variable.data()};
    for (char** e = environ; *e != nullptr; ++e) environment.push_back(*e);
    environment.push_back(nullptr);
    char name[] = "quire-test-peer";
    char* arguments[] = {name, nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, sockets[1], kPeersFd);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    EXPECT_EQ(posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, arguments, environment.data()), 0);
    posix_spawn_file_actions_destroy(&actions);
    ::close(sockets[1]);
  }
  ~Peer() {
    kill();
    ::close(socket_);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  // Each returns 0 or an errno; message() is the peer's quire_error_message().
  int open(const std::string& path, int flags) { return order('o', flags, path); }
  int close() { return order('c', 0, ""); }
  int write(const std::string& bytes, int offset) { return order('w', offset, bytes); }
  int become_ordinary_user() { return order('u', 0, ""); }
  const std::string& message() const { return message_; }

  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    EXPECT_EQ(waitpid(pid_, nullptr, 0), pid_);
    pid_ = -1;
  }

  // In the started program: obeys until the other end is closed.
  [[noreturn]] static void serve(int socket);

 private:
  int order(char what, int flags, const std::string& path) {
    PeerOrder sent = {};
    sent.what = what;
    sent.flags = flags;
    EXPECT_LT(path.size(), sizeof sent.path);
    std::memcpy(sent.path, path.data(), std::min(path.size(), sizeof sent.path - 1));
    EXPECT_EQ(::send(socket_, &sent, sizeof sent, MSG_NOSIGNAL), static_cast<ssize_t>(sizeof sent));
    PeerReply reply = {};
    const ssize_t n = ::recv(socket_, &reply, sizeof reply, 0);
    EXPECT_EQ(n, static_cast<ssize_t>(sizeof reply)) << "the peer died";
    message_ = reply.message;
    return n == static_cast<ssize_t>(sizeof reply) ? reply.errnum : -1;
  }

  int socket_ = -1;
  pid_t pid_ = -1;
  std::string message_;
};

}  // namespace quire::api_testing
