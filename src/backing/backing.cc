// What a backing answers that has no range operations, nor a way through a host.
#include "backing/backing.h"

#include <cerrno>

#include "base/error.h"

namespace quire {

namespace {

Status unsupported(const char* operation) { return fail_with(EOPNOTSUPP, "this file cannot %s", operation); }

}  // namespace

Status Backing::write_through(std::uint64_t, std::span<const iovec>) {
  return unsupported("be written through a host");
}
Status Backing::allocate(std::uint64_t, std::uint64_t, bool) { return unsupported("allocate blocks ahead"); }
Status Backing::punch(std::uint64_t, std::uint64_t) { return unsupported("punch holes"); }
Status Backing::zero(std::uint64_t, std::uint64_t, bool) { return unsupported("zero a range"); }
Status Backing::unshare(std::uint64_t, std::uint64_t) { return unsupported("unshare a range"); }
Status Backing::collapse(std::uint64_t, std::uint64_t) { return unsupported("collapse a range"); }
Status Backing::insert(std::uint64_t, std::uint64_t) { return unsupported("insert a range"); }
Status Backing::clone(Backing&, std::uint64_t, std::uint64_t, std::uint64_t) { return unsupported("share blocks"); }
Result<std::uint64_t> Backing::dedupe(Backing&, std::uint64_t, std::uint64_t, std::uint64_t) {
  return fail(unsupported("share blocks").errnum());
}
Status Backing::exchange(Backing&, std::uint64_t, std::uint64_t, std::uint64_t) {
  return unsupported("exchange ranges");
}
Result<std::uint64_t> Backing::seek_data(std::uint64_t) { return fail(unsupported("find its data").errnum()); }
Result<std::uint64_t> Backing::seek_hole(std::uint64_t) { return fail(unsupported("find its holes").errnum()); }

}  // namespace quire
