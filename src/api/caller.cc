// The cold half of caller.h: what does lie in a view.
#include "api/caller.h"

#include <algorithm>
#include <cerrno>

#include "base/error.h"

namespace quire {

Status copy_in_from_view(void* to, const void* from, std::size_t count) {
  const auto loaded = view_load(from, std::span(static_cast<char*>(to), count));
  QUIRE_TRY(loaded);
  if (loaded.value() == count) return {};
  return fail_with(EFAULT, "the view that an argument lies in ends after %zu of its %zu bytes", loaded.value(), count);
}

Status copy_out_whole(void* to, const void* from, std::size_t count) {
  const auto stored = copy_out(to, from, count);
  QUIRE_TRY(stored);
  if (stored.value() == count) return {};
  return fail_with(EFAULT, "the view that the answer goes to ends after %zu of its %zu bytes", stored.value(), count);
}

Result<std::size_t> copy_out_text(char* buffer, std::size_t size, const std::string& text) {
  if (size != 0) {
    const std::size_t n = std::min(size - 1, text.size());
    if (__builtin_expect(touches_views(buffer, n + 1), 0)) {
      const std::string part(text, 0, n);
      QUIRE_TRY(copy_out_whole(buffer, part.c_str(), n + 1));
    } else {
      std::memcpy(buffer, text.data(), n);
      buffer[n] = '\0';
    }
  }
  return text.size();
}

Status CallerString::get(const char* given) {
  if (__builtin_expect(!in_views(given), 1)) {
    text_ = given;
    return {};
  }
  constexpr std::size_t kPiece = 256;
  for (;;) {
    char piece[kPiece];
    const auto loaded = view_load(given + copy_.size(), piece);
    if (!loaded.ok()) return fail_with(EFAULT, "a string lies in a view that ends before it does");
    const char* const end = std::find(piece, piece + loaded.value(), '\0');
    copy_.append(piece, static_cast<std::size_t>(end - piece));
    if (end != piece + loaded.value()) break;
  }
  text_ = copy_.c_str();
  return {};
}

}  // namespace quire
