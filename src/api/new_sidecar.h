// A sidecar while it is made: nobody sees it until it is whole and durable, and then it is there in one step.
//
//   without a name (O_TMPFILE; where there is none, as .NAME.verity.XXXXXX) --write--> ... --finish: header, fsync-->
//   durable --publish: link or rename, which replace nothing--> FILE.verity --settle: fsync of the directory--> durable
//   there
//
// After a crash at any point there is no sidecar or a whole one; a file .NAME.verity.XXXXXX may stay behind where there
// is no O_TMPFILE. Thread safety: one thread. No lock is taken.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <span>
#include <string>

#include "host/host_file.h"
#include "quire/result.h"

namespace quire {

class NewSidecar {
 public:
  // path: absolute. tmpfile: try O_TMPFILE first; without, as on a host that has none.
  explicit NewSidecar(std::string path, bool tmpfile = true) : path_(std::move(path)), tmpfile_(tmpfile) {}
  ~NewSidecar();  // what is not published is gone
  NewSidecar(const NewSidecar&) = delete;
  NewSidecar& operator=(const NewSidecar&) = delete;

  Status create(std::uint64_t size);  // ENOSPC at once, where the host can tell; the errnos of open
  Status write(std::uint64_t offset, std::span<const char> bytes);
  // `of`: the file it belongs to, whose owner (where permitted) and permission to read it takes.
  Status finish(std::span<const char> header, const struct stat& of);
  Status publish();  // EEXIST: there is one
  Status settle();   // on failure it is gone again

 private:
  Status create_named();
  void remove_temporary();

  const std::string path_;
  const bool tmpfile_;
  std::string directory_;
  std::string temporary_;  // empty: it has no name
  HostDescriptors file_, directory_file_;
};

}  // namespace quire
