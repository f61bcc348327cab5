#!/usr/bin/env bash
# The public API and the command on files of ext4, XFS, btrfs and tmpfs, each on a fresh image: the tests of src/api and
# src/host in it, and copies of files of awkward sizes and shapes, compared byte by byte.
#
# usage: tests/host_filesystems.sh BUILD_DIR [FS]...      (as root; exits 77 with a line SKIP where nothing can be mounted)
set -euo pipefail

if [[ ${1:-} != --inside ]]; then
  if [[ $# -lt 1 || ! -x $1/quire ]]; then
    echo "usage: tests/host_filesystems.sh BUILD_DIR [ext4|xfs|btrfs|tmpfs]..." >&2
    exit 2
  fi
  build=$(cd "$1" && pwd)
  shift
  [[ $# -gt 0 ]] || set -- ext4 xfs btrfs tmpfs
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  ran=0 failures=0
  for fs in "$@"; do
    status=0
    tools/with-loop-image "$fs" 512M -- "$PWD/tests/host_filesystems.sh" --inside "$build" '{}' || status=$?
    case $status in
      0) ran=$((ran + 1)) && echo "- $fs" ;;
      77) echo "- $fs: left out" ;;
      *) failures=$((failures + 1)) && echo "- $fs: FAILED with status $status" ;;
    esac
  done
  if [[ $failures -ne 0 ]]; then
    echo "host_filesystems: $failures file systems failed" >&2
    exit 1
  fi
  if [[ $ran -eq 0 ]]; then
    echo "SKIP host_filesystems: no file system could be mounted"
    exit 77
  fi
  exit 0
fi

# Inside: $2 is the build folder, $3 an empty file system.
build=$2 dir=$3
quire=$build/quire
export TMPDIR=$dir

# The stress tests run elsewhere at length; here it is the file system that differs.
for tests in api_tests host_tests; do
  if [[ -x $build/$tests ]]; then
    "$build/$tests" --gtest_brief=1 --gtest_filter='-*ManySmallFiles*:CheckDeathTest*' >"$dir/log" 2>&1 || {
      cat "$dir/log"
      exit 1
    }
    grep -E '^\[ +PASSED' "$dir/log" | sed "s/^/$tests: /"
    rm "$dir/log"
  else
    echo "$tests is not built"
  fi
done

copy_and_compare() {
  local source=$1
  "$quire" cp --memory 8M "$source" "$dir/copy"
  cmp "$source" "$dir/copy"
  "$quire" cat --memory 8M "$source" | cmp - "$source"
  [[ $(stat -c %s "$dir/copy") == $(stat -c %s "$source") ]]
}
for size in 0 1 511 512 4095 4096 4097 65537 1048577 33554431; do
  head -c "$size" /dev/urandom >"$dir/source"
  copy_and_compare "$dir/source"
done
# Sparse, with a hole at its end; then unwritten blocks where the file system has them.
rm "$dir/source"
head -c 5000 /dev/urandom | dd of="$dir/source" bs=1 seek=10000000 status=none
truncate --size 40000001 "$dir/source"
copy_and_compare "$dir/source"
if fallocate --offset 0 --length 9000000 "$dir/source" 2>/dev/null; then copy_and_compare "$dir/source"; fi
# A longer file is replaced by a shorter one.
head -c 12345 /dev/urandom >"$dir/short"
"$quire" cp --memory 8M "$dir/short" "$dir/copy"
cmp "$dir/short" "$dir/copy"
# Too little room: an error that names the file, and a copy that is not called complete.
if [[ $(stat -f -c %T "$dir") != btrfs ]]; then
  truncate --size 1G "$dir/large"
  status=0
  message=$(timeout 120 "$quire" cp --memory 64M "$dir/large" "$dir/copy" 2>&1) || status=$?
  if ! [[ $status -eq 1 && $message == *"$dir/copy"* && $message =~ (No space|errno 28) ]]; then
    echo "a copy to a full file system ended with status $status and said: $message"
    exit 1
  fi
fi
