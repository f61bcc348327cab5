#!/usr/bin/env bash
# The installed tree is enough to build against: the README's example with the CMake package and with pkg-config, a C
# program both ways, the command run from there; and libquire.so shows its public interface, all of it, and no more.
#
# usage: tests/install_test.sh BUILD_DIR
#
# The README's examples are the code blocks (cpp or c) that follow a line <!-- example -->. Each is run with one
# argument, the path of a file of 1 MiB, in a directory of its own, and must exit 0.
set -euo pipefail

if [[ $# -ne 1 || ! -f $1/CMakeCache.txt ]]; then
  echo "usage: tests/install_test.sh BUILD_DIR" >&2
  exit 2
fi
build=$(realpath "$1")
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/moved

fail() {
  echo "install_test: $*" >&2
  exit 1
}

# Installed in one place and then moved: nothing in it may depend on where it was put first.
cmake --install "$build" --prefix "$work/first" >"$work/log" 2>&1 || { cat "$work/log"; fail "cmake --install failed"; }
mv "$work/first" "$prefix"
library=$(find "$prefix" -name libquire.so)
[[ -n $library ]] || fail "no libquire.so was installed"
library_dir=$(dirname "$library")

echo "- SONAME"
soname=$(readelf -d "$library" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
[[ $soname =~ ^libquire\.so\.[0-9]+$ ]] || fail "SONAME is '$soname'"
[[ -e $library_dir/$soname ]] || fail "$soname is not installed"

echo "- exported symbols"
nm -DC --defined-only "$library" | cut -d' ' -f2- | sed 's/@@\?QUIRE_[0-9]*$//' >"$work/symbols"
if grep -vE '^(A QUIRE_[0-9]+$|[A-Za-z] quire_[a-z0-9_]+$|[A-Za-z] ((typeinfo|typeinfo name|vtable) for )?quire::)' \
  "$work/symbols" >"$work/foreign"; then
  head -20 "$work/foreign" >&2
  fail "libquire.so exports the $(wc -l <"$work/foreign") symbols above, which are not its public interface"
fi
if grep -E ' quire::(detail|internal)::' "$work/symbols" >&2; then fail "internal symbols are exported"; fi
grep -oE '\bquire_[a-z0-9_]+ *\(' "$prefix/include/quire/quire.h" | tr -d ' (' | sort -u >"$work/declared"
# What the header's comments mention with a parenthesis is declared there too.
[[ $(wc -l <"$work/declared") -ge 30 ]] || fail "quire.h declares only $(wc -l <"$work/declared") functions"
sed -n 's/^[Ti] \(quire_[a-z0-9_]*\)$/\1/p' "$work/symbols" | sort -u >"$work/exported"
if ! diff "$work/declared" "$work/exported" >&2; then
  fail "quire.h and libquire.so differ (< declared only, > exported only)"
fi

echo "- each public header compiles alone, warnings as errors"
for header in "$prefix"/include/quire/*.h; do
  echo "#include <quire/$(basename "$header")>" >"$work/alone.cc"
  c++ -std=c++20 -Wall -Wextra -Wshadow -Werror -fsyntax-only -I"$prefix/include" "$work/alone.cc"
done
echo '#include <quire/quire.h>' >"$work/alone.c"
cc -std=c11 -Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror -fsyntax-only -I"$prefix/include" "$work/alone.c"

head -c 1048576 /dev/urandom >"$work/data"

# build_and_run NAME c|cpp: builds $work/NAME/main.SUFFIX both ways against the installed tree and runs it.
build_and_run() {
  local name=$1 suffix=$2 dir=$work/$1 language=CXX compiler=(c++ -std=c++20) program
  if [[ $suffix == c ]]; then language=C compiler=(cc -std=gnu11); fi
  cat >"$dir/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.25)
project($name LANGUAGES $language)
find_package(quire 0.1 REQUIRED)
add_executable(by_cmake main.$suffix)
target_link_libraries(by_cmake PRIVATE quire::quire)
CMAKE
  if ! { cmake -S "$dir" -B "$dir/build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" && cmake --build "$dir/build"; } \
    >"$work/log" 2>&1; then
    cat "$work/log" >&2
    fail "$name does not build with find_package(quire)"
  fi
  local flags
  flags=$(PKG_CONFIG_PATH=$library_dir/pkgconfig pkg-config --cflags --libs quire)
  # shellcheck disable=SC2086 # flags are words
  "${compiler[@]}" -Wall -Wextra "$dir/main.$suffix" -o "$dir/by_pkg_config" $flags ||
    fail "$name does not build with pkg-config"
  mkdir "$dir/run"
  for program in build/by_cmake by_pkg_config; do
    cp "$work/data" "$dir/run/data"
    (cd "$dir/run" && LD_LIBRARY_PATH=$library_dir timeout 60 "$dir/$program" data >"$work/log" 2>&1) ||
      { cat "$work/log" >&2; fail "$name ($program) exits with an error"; }
  done
}

echo "- a C program"
mkdir "$work/c_program"
cat >"$work/c_program/main.c" <<'C'
#include <fcntl.h>
#include <quire/quire.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Reads the file through quire and by read(2), compares, writes 5,000 bytes across a page edge and syncs. */
int main(int argc, char **argv) {
  static char through_quire[1 << 20], plain[1 << 20];
  quire_options options = {sizeof options, 16u << 20, 0, 0};
  quire_cache *cache = quire_cache_create(&options);
  quire_file *file = cache && argc == 2 ? quire_open(cache, argv[1], O_RDWR, 0) : NULL;
  if (!file) return fprintf(stderr, "open: %s\n", quire_error_message()), 1;
  int fd = open(argv[1], O_RDONLY);
  if (quire_pread(file, through_quire, sizeof through_quire, 0) != (ssize_t)sizeof through_quire) return 2;
  if (read(fd, plain, sizeof plain) != (ssize_t)sizeof plain) return 3;
  if (memcmp(through_quire, plain, sizeof plain) != 0) return 4;
  memset(through_quire + 4000, 'q', 5000);
  if (quire_pwrite(file, through_quire + 4000, 5000, 4000) != 5000) return 5;
  if (quire_fsync(file) != 0) return fprintf(stderr, "fsync: %s\n", quire_error_message()), 6;
  if (quire_close(file) != 0) return fprintf(stderr, "close: %s\n", quire_error_message()), 7;
  if (quire_cache_destroy(cache, 0) != 0) return fprintf(stderr, "destroy: %s\n", quire_error_message()), 8;
  if (pread(fd, plain, sizeof plain, 0) != (ssize_t)sizeof plain) return 9;
  return memcmp(through_quire, plain, sizeof plain) == 0 ? 0 : 10;
}
C
build_and_run c_program c

echo "- the README's examples"
awk -v out="$work/example" '
  /^<!-- example -->/ { marked = 1; next }
  marked && /^```(cpp|c)$/ {
    n++; suffix = substr($0, 4); dir = out n; file = dir "/main." suffix
    system("mkdir -p " dir); marked = 0; inside = 1; next
  }
  inside && /^```/ { inside = 0; close(file); next }
  inside { print > file }' "$root/README.md"
examples=0
for main in "$work"/example*/main.*; do
  [[ -f $main ]] || continue
  build_and_run "$(basename "$(dirname "$main")")" "${main##*.}"
  examples=$((examples + 1))
done
[[ $examples -ge 1 ]] || fail "README.md marks no code block with <!-- example -->"

echo "- the installed command"
if [[ -x $build/quire ]]; then
  env -u LD_LIBRARY_PATH "$prefix/bin/quire" cat "$work/data" | cmp - "$work/data" || fail "quire cat differs"
  if readelf -d "$prefix/bin/quire" "$library" | grep -E '(RPATH|RUNPATH)' | grep -F "$build"; then
    fail "an installed file refers to the build folder"
  fi
fi
echo "install_test: $soname, $(wc -l <"$work/exported") C functions, $examples example(s) from the README"
