#!/usr/bin/env bash
# quire fallocate, clone, dedupe and exchange, and quire bench range-mix: each does what it says to files of ext4, XFS,
# btrfs and tmpfs, is refused with a sentence and exit status 1 where the file system has no such operation, and answers a
# wrong command line with exit status 2 and its usage.
#
# usage: tests/range_commands.sh BUILD_DIR      (first where TMPDIR lies; without root only there)
set -euo pipefail

if [[ ${1:-} != --inside ]]; then
  if [[ $# -ne 1 || ! -x $1/quire ]]; then
    echo "usage: tests/range_commands.sh BUILD_DIR" >&2
    exit 2
  fi
  build=$(cd "$1" && pwd)
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  here=$(mktemp -d "${TMPDIR:-/tmp}/quire-ranges.XXXXXX")
  trap 'rm -rf "$here"' EXIT
  failures=0
  tests/range_commands.sh --inside "$build" "$here" here || failures=1
  for fs in ext4 xfs btrfs tmpfs; do
    status=0
    tools/with-loop-image "$fs" 512M -- "$PWD/tests/range_commands.sh" --inside "$build" '{}' "$fs" || status=$?
    case $status in
      0 | 77) ;;
      *) failures=$((failures + 1)) && echo "- $fs: FAILED with status $status" ;;
    esac
  done
  if [[ $failures -ne 0 ]]; then
    echo "range_commands: failures on $failures file systems" >&2
    exit 1
  fi
  echo "range_commands: all cases hold"
  exit 0
fi

# Inside: $2 is the build folder, $3 a directory, $4 the file system's name.
quire=$2/quire dir=$3 fs=$4
cd "$dir"
failures=0

fail() {
  echo "- $fs: $1: FAILED"
  sed 's/^/    /' stderr >&2
  failures=$((failures + 1))
}
# run COMMAND...: its exit status in $status, its output in stdout and stderr.
run() {
  status=0
  timeout 60 "$quire" "$@" >stdout 2>stderr || status=$?
}
# done_or_refused WHAT FILE: the command was done, or said in one sentence that this file system has no such thing;
# false in the second case.
done_or_refused() {
  if [[ $status -eq 0 ]]; then return 0; fi
  if [[ $status -ne 1 || $(wc -l <stderr) -ne 1 ]] || ! grep -q "^quire: .*$2" stderr; then
    fail "$1: exit status $status"
  elif ! grep -qiE 'not supported|does not|cannot' stderr; then
    fail "$1: the sentence does not say what is missing"
  fi
  return 1
}
equal() { cmp "$2" "$3" >stderr 2>&1 || fail "$1: other bytes"; }
size_is() { [[ $(stat -c %s "$2") == "$3" ]] || fail "$1: $(stat -c %s "$2") bytes, not $3"; }
fresh() { cp original file; }
zeros() { head -c "$1" /dev/zero; }
# part FILE OFFSET LENGTH
part() { dd if="$1" bs=64K iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none; }
head -c 200000 /dev/urandom >original

# --- fallocate ---
# fallocate_makes WHAT OPTION...: with these options it makes of a fresh file what standard input holds, or is refused.
fallocate_makes() {
  local what=$1
  shift
  cat >expected
  fresh
  run fallocate "$@" file
  if done_or_refused "$what" file; then equal "$what" file expected; fi
}
fallocate_makes punch --offset 100 --length 5000 --punch-hole --memory 4M < <(
  part original 0 100 && zeros 5000 && part original 5100 194900
)
fallocate_makes zero --zero-range --offset 4K --length 64K < <(
  part original 0 4096 && zeros 65536 && part original 69632 130368
)
[[ $status -eq 0 ]] || fail "zeroing always works"
fallocate_makes "zero, keeping the size" --zero-range --keep-size --offset 199990 --length 1M < <(
  part original 0 199990 && zeros 10
)
fallocate_makes collapse --collapse-range --offset 64K --length 64K < <(
  part original 0 65536 && part original 131072 68928
)
fallocate_makes insert --insert-range --offset 64K --length 4K < <(
  part original 0 65536 && zeros 4096 && part original 65536 134464
)
fallocate_makes unshare --unshare-range --keep-size --length 200000 <original
fresh
run fallocate --length 1M file
if done_or_refused allocate file; then
  size_is allocate file 1048576
  run fallocate --keep-size --length 2M file
  size_is "allocate, keeping the size" file 1048576
  [[ $(($(stat -c %b file) * 512)) -ge 2097152 ]] || fail "allocate, keeping the size: no blocks were allocated"
  run fallocate --length 64KiB made
  size_is "a file that was missing" made 65536
fi

# --- clone, dedupe, exchange ---
run clone --memory 4M original copy
if done_or_refused clone original; then
  equal clone original copy
  run clone --from-offset 8K --offset 64K --length 4K original copy
  { part original 0 65536 && part original 8192 4096 && part original 69632 130368; } >expected
  equal "clone of a range" copy expected
  rm copy
  cp original copy
  run dedupe original copy
  [[ $status -eq 0 && $(cat stdout) == "200000 bytes shared" ]] || fail "dedupe: status $status, $(cat stdout)"
  equal dedupe original copy
  printf x | dd of=copy bs=1 seek=100000 conv=notrunc status=none
  run dedupe --offset 96K --from-offset 96K --length 4K original copy
  { [[ $status -eq 1 && ! -s stdout ]] && grep -q 'original.*copy.*differ' stderr; } || fail "dedupe of other bytes"
  run dedupe --length 64K original copy
  [[ $status -eq 0 && $(cat stdout) == "65536 bytes shared" ]] || fail "dedupe of a range: status $status"
else
  [[ ! -e copy ]] || fail "a clone that was refused left a file"
  cp original copy
  run dedupe original copy
  [[ $status -eq 1 && ! -s stdout ]] || fail "dedupe where nothing is shared: status $status"
fi
fresh
head -c 200000 /dev/urandom >second
cp second other
run exchange --length 128K --from-offset 4K --offset 64K file other
if done_or_refused exchange file; then
  { part original 0 4096 && part second 65536 131072 && part original 135168 64832; } >expected
  equal exchange file expected
  { part second 0 65536 && part original 4096 131072 && part second 196608 3392; } >expected
  equal "exchange, the other side" other expected
elif [[ $fs == xfs-exchange ]]; then
  fail "exchange, which this file system has"
else
  equal "exchange that was refused" file original
  equal "exchange that was refused" other second
fi

# --- what is wrong with the files, or with the command line ---
# refused NAME COMMAND...: exit status 1, one sentence that names the file.
refused() {
  local name=$1
  shift
  run "$@"
  { [[ $status -eq 1 && ! -s stdout ]] && grep -q "^quire: .*$name" stderr; } || fail "$*: exit status $status"
}
refused missing fallocate --punch-hole --length 4K missing
[[ ! -e missing ]] || fail "a file was made to punch a hole into it"
refused missing clone missing copy
refused missing dedupe original missing
refused missing exchange original missing
refused original dedupe --from-offset 1G original copy
# wrong COMMAND...: exit status 2 and the usage.
wrong() {
  run "$@"
  { [[ $status -eq 2 && ! -s stdout ]] && grep -q '^Usage: quire' stderr; } || fail "$*: exit status $status"
}
wrong fallocate
wrong fallocate file
wrong fallocate --length 0 file
wrong fallocate --length 4KB file
wrong fallocate --length 4K --offset -1 file
wrong fallocate --length 4K --offset 8E file
wrong fallocate --length 4K --offset 9223372036854775807 file
wrong fallocate --length 4K --punch-hole --zero-range file
wrong fallocate --length 4K --collapse-range --keep-size file
wrong fallocate --length 4K --insert-range --collapse-range file
wrong fallocate --length 4K --memory none file
wrong clone original
wrong clone --offset x original copy
wrong dedupe --length 0 original copy
wrong exchange --from-offset 9223372036854775807 --length 1 original other
wrong exchange original other third
wrong bench range-mix --file-size 4K

# --- the benchmark: a row for each system, operation and mode ---
run bench range-mix --path "$dir" --seconds 0.02 --file-size 1M --json -
if [[ $status -ne 0 ]]; then
  fail "bench range-mix: exit status $status"
else
  for mode in alone mixed; do
    for op in read write; do
      for system in quire kernel; do
        tr -d ' \n' <stdout | grep -qE "\"scenario\":\"range-mix\",\"op\":\"$op\",\"system\":\"$system\",[^}]*\"mode\":\"$mode\"" ||
          fail "bench range-mix: no row of $system for $op, $mode"
      done
    done
  done
  [[ -z $(find . -name '.quire-bench*') ]] || fail "bench range-mix left files behind"
fi

# XFS with what exchanging ranges needs. Older mkfs.xfs does not know the feature; its bit in the superblock is all there
# is to it. (The mount is in the namespace that with-loop-image has made.)
exchange_image() {
  truncate -s 320M exchange.img
  mkfs.xfs -q -f exchange.img
  local features
  features=$(xfs_db -r -c 'sb 0' -c 'print features_incompat' exchange.img)
  xfs_db -x -c 'sb 0' -c "write -d features_incompat $((${features##*=} | 0x40))" exchange.img
  mkdir exchange
  mount -o loop exchange.img exchange
}
if [[ $fs == xfs ]]; then
  PATH=$PATH:/usr/sbin:/sbin
  if (set -e && exchange_image) >stdout 2>stderr; then
    "$0" --inside "$2" "$dir/exchange" xfs-exchange || failures=$((failures + 1))
    umount exchange
  else
    echo "- xfs-exchange: left out: $(tail -n 1 stderr)"
  fi
fi

if [[ $failures -ne 0 ]]; then
  echo "- $fs: $failures cases failed" >&2
  exit 1
fi
echo "- $fs"
