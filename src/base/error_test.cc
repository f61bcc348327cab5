// Results, the early return, and the thread's last error as a sentence.
#include "base/error.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>
#include <thread>

namespace quire {
namespace {

TEST(Result, ValueOrErrno) {
  Result<int> good = 7;
  EXPECT_TRUE(good.ok());
  EXPECT_EQ(good.errnum(), 0);
  EXPECT_EQ(*good, 7);
  const Result<int> bad = fail(ENOENT);
  EXPECT_FALSE(bad);
  EXPECT_EQ(bad.errnum(), ENOENT);
  Result<std::unique_ptr<int>> owner = std::make_unique<int>(3);
  EXPECT_EQ(*owner.take(), 3);
  EXPECT_TRUE(Status{}.ok());
  EXPECT_EQ(Status(fail(EIO)).errnum(), EIO);
}

Result<std::string> passes_on(const Status& status, int* reached) {
  QUIRE_TRY(status);
  ++*reached;
  return std::string("through");
}

TEST(Result, TryReturnsEarly) {
  int reached = 0;
  EXPECT_EQ(passes_on(fail(EBUSY), &reached).errnum(), EBUSY);
  EXPECT_EQ(reached, 0);
  EXPECT_EQ(*passes_on({}, &reached), "through");
  EXPECT_EQ(reached, 1);
}

TEST(Error, CauseThenCall) {
  EXPECT_EQ(Status(fail_with(ENOSPC, "the disk %s is full", "A")).errnum(), ENOSPC);
  report_error(ENOSPC, "write at %d of %s", 42, "/some/file");
  EXPECT_EQ(errno, ENOSPC);
  EXPECT_STREQ(error_message(), "write at 42 of /some/file: the disk A is full");
}

TEST(Error, WithoutACauseTheSystemsWords) {
  report_error(ENOENT, "open of %s", "x");
  EXPECT_STREQ(error_message(), "open of x: No such file or directory");
}

TEST(Error, ACauseIsUsedOnceAndForItsErrnoOnly) {
  static_cast<void>(fail_with(EIO, "a cause"));
  report_error(EBADF, "first");
  EXPECT_STREQ(error_message(), "first: Bad file descriptor");
  report_error(EIO, "second");
  EXPECT_STREQ(error_message(), "second: Input/output error") << "it belonged to the call before";
  static_cast<void>(fail_with(EIO, "dealt with"));
  clear_cause();
  report_error(EIO, "third");
  EXPECT_STREQ(error_message(), "third: Input/output error");
}

TEST(Error, PercentMIsTheErrnosText) {
  errno = 0;
  static_cast<void>(fail_with(EACCES, "stat: %m"));
  report_error(EACCES, "open");
  EXPECT_STREQ(error_message(), "open: stat: Permission denied");
}

TEST(Error, LongTextsAreCutAndTheCauseKept) {
  const std::string path(8000, 'p');
  static_cast<void>(fail_with(EIO, "cause %s", std::string(2000, 'c').c_str()));
  report_error(EIO, "read of %s", path.c_str());
  const std::string message = error_message();
  EXPECT_LT(message.size(), 2000u);
  EXPECT_EQ(message.compare(0, 12, "read of pppp"), 0);
  EXPECT_NE(message.find(": cause ccc"), std::string::npos);
}

TEST(Error, EachThreadHasItsOwn) {
  report_error(EIO, "mine");
  std::thread([] {
    EXPECT_STREQ(error_message(), "no error");
    report_error(ENOENT, "theirs");
    EXPECT_STREQ(error_message(), "theirs: No such file or directory");
  }).join();
  EXPECT_STREQ(error_message(), "mine: Input/output error");
}

}  // namespace
}  // namespace quire
