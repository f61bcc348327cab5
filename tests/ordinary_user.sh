#!/usr/bin/env bash
# quire works for an ordinary user: user 65534 with the usual limit on locked memory (8 MiB) copies, reads and writes
# its own files, and is told clearly, with the file's name, what it may not do.
#
# usage: tests/ordinary_user.sh BUILD_DIR      (as root; exits 77 with a line SKIP otherwise)
set -euo pipefail

if [[ $# -ne 1 || ! -f $1/CMakeCache.txt ]]; then
  echo "usage: tests/ordinary_user.sh BUILD_DIR" >&2
  exit 2
fi
skip() {
  echo "SKIP ordinary_user: $1"
  exit 77
}
[[ $EUID -eq 0 ]] || skip "only root can become another user (run the command by hand instead: you are one already)"
command -v setpriv >/dev/null && command -v prlimit >/dev/null || skip "no setpriv or prlimit (util-linux)"
memlock=8388608
as_user() {
  prlimit --memlock=$memlock:$memlock setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs \
    --inh-caps=-all env -u HOME TMPDIR="$work" "$@"
}

# A place that the user can reach: the checkout may lie where only root can look.
work=''
for base in "${TMPDIR:-/tmp}" /tmp /var/tmp; do
  candidate=$(mktemp -d "$base/quire-user.XXXXXX" 2>/dev/null) || continue
  chmod 755 "$candidate"
  if setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$candidate"; then
    work=$candidate
    break
  fi
  rmdir "$candidate"
done
[[ -n $work ]] || skip "no directory that an ordinary user can reach"
trap 'rm -rf "$work"' EXIT

cmake --install "$1" --prefix "$work/install" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
chmod -R a+rX "$work/install"
quire=$work/install/bin/quire
[[ -x $quire ]] || { echo "ordinary_user: no quire command in $1" >&2; exit 1; }

own=$work/own
install -d -o 65534 -g 65534 -m 700 "$own"
failures=0
# check WHAT COMMAND...: one case; prints it, counts a failure.
check() {
  local what=$1
  shift
  if "$@" >"$work/out" 2>&1; then
    echo "- $what"
  else
    echo "- $what: FAILED"
    sed 's/^/    /' "$work/out"
    failures=$((failures + 1))
  fi
}
# refused NAME COMMAND...: the command must exit with 1, write nothing to stdout, and name the file on stderr.
refused() {
  local name=$1 status=0
  shift
  as_user timeout 60 "$@" >"$work/stdout" 2>"$work/stderr" || status=$?
  cat "$work/stderr"
  if [[ $status -ne 1 ]]; then echo "exit status $status, not 1"; return 1; fi
  if [[ -s $work/stdout ]]; then echo "wrote $(stat -c %s "$work/stdout") bytes to its output"; return 1; fi
  grep -qF -- "$name" "$work/stderr" || { echo "the message does not name $name"; return 1; }
}
says() { grep -qiE -- "$1" "$work/stderr" || { echo "the message does not say: $1"; return 1; }; }

head -c 20971733 /dev/urandom >"$own/source"  # ends inside a block
chown 65534:65534 "$own/source"

cat_is_equal() { as_user timeout 120 "$quire" cat --memory 8M "$own/source" | cmp - "$own/source"; }
copy_is_equal() {
  as_user timeout 120 "$quire" cp --memory 8M "$own/source" "$own/copy" && cmp "$own/source" "$own/copy" &&
    [[ $(stat -c %u "$own/copy") == 65534 ]]
}
overwrite_is_equal() {
  head -c 3000001 "$own/source" >"$own/short"
  chown 65534:65534 "$own/short"
  as_user timeout 120 "$quire" cp --memory 8M "$own/short" "$own/copy" && cmp "$own/short" "$own/copy"
}
stat_says_size() { as_user "$quire" stat "$own/source" | grep -F 20971733; }
default_memory() { as_user timeout 120 "$quire" cat "$own/source" | cmp - "$own/source"; }

check "cat with 8 MiB of locked memory" cat_is_equal
check "cp to a new file, owned by the user" copy_is_equal
check "cp over a longer file" overwrite_is_equal
check "stat" stat_says_size
check "cat with the default memory" default_memory
memlock=0
check "cat with no locked memory at all" cat_is_equal
check "cp with no locked memory at all" copy_is_equal
memlock=8388608

echo secret >"$work/roots-own"
chmod 600 "$work/roots-own"
unreadable() { refused roots-own "$quire" cat "$work/roots-own" && says "permission denied"; }
check "a file of root's cannot be read" unreadable

cp "$own/source" "$own/read-only"
chown 65534:65534 "$own/read-only"
chmod 444 "$own/read-only"
unwritable() {
  refused read-only "$quire" cp "$own/short" "$own/read-only" && says "permission denied|read-only" &&
    cmp "$own/source" "$own/read-only"
}
check "a read-only file is not written, and is as it was" unwritable

no_new_file() { refused new-file "$quire" cp "$own/short" "$work/new-file" && [[ ! -e $work/new-file ]]; }
check "no file can be made in root's directory" no_new_file

missing() { refused no-such-file "$quire" cat "$own/no-such-file" && says "no such file"; }
check "a missing file" missing

if [[ $failures -ne 0 ]]; then
  echo "ordinary_user: $failures cases failed" >&2
  exit 1
fi
echo "ordinary_user: all cases hold"
