#!/usr/bin/env bash
# `quire top` and `quire residency` on running processes: what they print is sound JSON, text and SVG; what cannot be
# watched is refused with a sentence and exit status 1; a wrong command line with exit status 2 and its usage.
#
# usage: tests/see.sh BUILD_DIR
set -euo pipefail

if [[ $# -ne 1 || ! -x $1/quire ]]; then
  echo "usage: tests/see.sh BUILD_DIR" >&2
  exit 2
fi
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
quire=$(realpath "$1/quire")
work=$(mktemp -d "${TMPDIR:-/tmp}/quire-see.XXXXXX")
chmod 755 "$work"
cd "$work"
background=()
finish() {
  for pid in "${background[@]}"; do
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap finish EXIT
failures=0 status=0
# shellcheck source=tests/command_test.bash
source "$tests/command_test.bash"
# run COMMAND...: its exit status in $status, its output in stdout and stderr.
run() { run_quire "$@"; }
# holds WHAT FILTER: jq finds FILTER true of each object in stdout.
holds() { jq -se "length > 0 and all($2)" stdout >jq.log 2>&1 || fail "$1 ($2)"; }
# refused SENTENCE COMMAND...: exit status 1 and one line on stderr that says so.
refused() {
  local sentence=$1
  shift
  run "$@"
  { [[ $status -eq 1 && ! -s stdout && $(wc -l <stderr) -eq 1 ]] && grep -qE "^quire: .*$sentence" stderr; } ||
    fail "$*: exit status $status"
}
wrong() {
  run "$@"
  { [[ $status -eq 2 && ! -s stdout ]] && grep -q '^Usage: quire' stderr; } || fail "$*: exit status $status"
}
# start_torture SECONDS: in the background, published; its process in $pid once it can be watched.
start_torture() {
  mkdir -p files
  QUIRE_PUBLISH=1 "$quire" torture --path files --seconds "$1" --ops read,write,append >torture.log 2>&1 &
  pid=$!
  background+=("$pid")
  local i
  for ((i = 0; i < 200; ++i)); do
    run top "$pid" --count 1 --interval 0.25
    if [[ $status -eq 0 && -s stdout ]]; then return; fi
    sleep 0.1
  done
  fail "torture cannot be watched"
  exit 1
}

start_torture 300
[[ $(head -n 1 stdout) == *"hit %"*"fills/s"*"writeback/s"* && $(wc -l <stdout) -eq 2 ]] || fail "lines of top"

# --- top ---
run top "$pid" --count 2 --interval 0.5 --json
[[ $status -eq 0 && $(wc -l <stdout) -eq 2 ]] || fail "top --count 2 --json"
holds "top" ".pid == $pid and .cache == 1 and .memory_bytes == 4194304"
holds "the interval" '.seconds > 0.2 and .seconds < 30'
holds "the hit ratio" '.hit_ratio > 0 and .hit_ratio <= 1 and .hits_per_second > 0'
holds "memory" '.used_bytes > 0 and .used_bytes <= .memory_bytes and .dirty_bytes <= .dirty_limit_bytes'
holds "rates" '.fills_per_second >= 0 and .evictions_per_second >= 0 and .refaults_per_second >= 0'
holds "totals" '.total.fills > 0 and .total.writeback_bytes > 0 and .total.device_write_bytes > 0'
jq -se '.[0].total.hits < .[1].total.hits and any(.writeback_bytes_per_second > 0)' stdout >jq.log || fail "counts go on"

# --- residency; a file has the same identity under any name ---
file=$(find files -name '.quire-torture-*' | head -n 1)
odd="$work/<a&\"b>'
c"
ln "$file" "$odd"
for name in "$file" "$odd"; do
  run residency "$pid" "$name" --json
  [[ $status -eq 0 ]] || fail "residency --json"
  jq -se --arg name "$name" '.[0].file == $name' stdout >jq.log || fail "the file's name"
  holds "residency" '.page_size == 4096 and .resident_bytes == ([.runs[] | select(.state != "ghost").length] + [0] | add)'
  holds "what is dirty" '.dirty_bytes == ([.runs[] | select(.state | IN("dirty", "writeback", "unflushed")).length] + [0] | add)'
  holds "runs" '[.runs[] | (.offset % 4096 == 0) and (.length > 0) and (.length % 4096 == 0)] | all'
  holds "their order" '.runs as $r | [range(1; $r | length) | $r[. - 1].offset + $r[. - 1].length <= $r[.].offset] | all'
  run residency "$pid" "$name" --svg image.svg
  [[ $status -eq 0 && ! -s stdout ]] || fail "residency --svg"
  python3 -c 'import sys, xml.dom.minidom as d; sys.exit(d.parse("image.svg").documentElement.tagName != "svg")' \
    2>stderr || fail "the image is no SVG"
done
run residency "$pid" "$file" --svg -
grep -q '^<svg ' stdout || fail "residency --svg -"
run residency "$pid" "$file"
{ [[ $status -eq 0 ]] && grep -q '^process .*, cache 1, handles: 1$' stdout && grep -q 'in the cache (' stdout &&
  grep -q '^# clean .*D dirty .*W writeback .*g ghost .*\. not in the cache$' stdout; } || fail "the text"

# --- the live view, on a terminal ---
if command -v script >/dev/null; then
  (sleep 3 && printf q) | TERM=xterm timeout 60 script -qec "stty rows 30 cols 100; '$quire' top $pid" /dev/null \
    >stdout 2>stderr || fail "top on a terminal: exit status $?"
  { grep -aq 'hit ratio' stdout && grep -aq 'writeback' stdout; } || fail "top on a terminal"
  TERM=no-such-terminal timeout 10 script -qec "'$quire' top $pid --count 1" /dev/null >stdout 2>stderr </dev/null ||
    fail "top --count on a terminal: exit status $?"
  grep -aq 'fills/s' stdout || fail "lines on a terminal"
fi

# --- what cannot be watched ---
echo x >other
refused "other is not cached by process $pid" residency "$pid" other
refused "missing: No such file" residency "$pid" missing
sleep 300 &
sleeper=$!
background+=("$sleeper")
refused "process $sleeper has no published cache: .*QUIRE_PUBLISH" top "$sleeper"
refused "process $sleeper has no published cache" residency "$sleeper" other
refused "there is no process 4194304" top 4194304
refused "there is no process 4194304" residency 4194304 other
refused "cannot write .*: No such file" residency "$pid" "$file" --svg missing/image.svg
if [[ $(id -u) -eq 0 ]] && command -v setpriv >/dev/null; then
  # (From a directory that everybody may look into, an ordinary user may run the build.)
  if setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$quire"; then
    status=0
    setpriv --reuid 65534 --regid 65534 --clear-groups "$quire" top "$pid" >stdout 2>stderr || status=$?
    { [[ $status -eq 1 ]] && grep -q "^quire: no permission to look into process $pid" stderr; } ||
      fail "another user: exit status $status"
  fi
fi
wrong top
wrong top 0
wrong top -- -1
wrong top x
wrong top "$pid" --interval 0.1
wrong top "$pid" --count 0
wrong residency "$pid"
wrong residency "$pid" "$file" other
wrong residency "$pid" "$file" --json --svg -

# --- a process that ends while it is watched, killed or not ---
run_top_to_the_end() {
  status=0
  timeout 60 "$quire" top "$pid" --interval 0.25 --json >stdout 2>stderr || status=$?
  { [[ $status -eq 1 ]] && grep -q "^quire: process $pid has ended" stderr; } || fail "$1: exit status $status"
  holds "$1" ".pid == $pid"
}
(sleep 1.5 && kill -9 "$pid") &
run_top_to_the_end "a process that is killed"
refused "there is no process $pid|process $pid has ended" residency "$pid" "$odd"
start_torture 3
run_top_to_the_end "a process that ends"
wait "$pid" || fail "torture, watched: $(cat torture.log)"

# Without the variable, or with 0, nothing is published.
QUIRE_PUBLISH=0 "$quire" torture --path files --seconds 300 >torture.log 2>&1 &
pid=$!
background+=("$pid")
sleep 1
refused "process $pid has no published cache" top "$pid"

if [[ $failures -ne 0 ]]; then
  echo "see: $failures cases failed" >&2
  exit 1
fi
echo "see: all cases hold"
