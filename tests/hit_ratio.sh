#!/usr/bin/env bash
# quire bench hit-ratio: its JSON, its table and where each goes, the traces it reads, what it says of files that are no
# trace (exit status 1) and of wrong command lines (exit status 2 and the usage).
#
# usage: tests/hit_ratio.sh BUILD_DIR
set -euo pipefail

if [[ $# -ne 1 || ! -x $1/quire ]]; then
  echo "usage: tests/hit_ratio.sh BUILD_DIR" >&2
  exit 2
fi
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
quire=$(cd "$1" && pwd)/quire
here=$(mktemp -d "${TMPDIR:-/tmp}/quire-hit-ratio.XXXXXX")
trap 'rm -rf "$here"' EXIT
cd "$here"
failures=0 status=0
# shellcheck source=tests/command_test.bash
source "$tests/command_test.bash"
# run ARGUMENTS...: its exit status in $status, its output in stdout and stderr.
run() { run_quire bench "$@"; }
# holds WHAT FILTER [FILE]: jq's filter is true of the JSON.
holds() { jq -e "$2" "${3:-stdout}" >/dev/null 2>&1 || fail "$1"; }
# refused STATUS TEXT ARGUMENTS...: that exit status, TEXT on stderr, nothing on stdout.
refused() {
  local expected=$1 text=$2
  shift 2
  run "$@"
  if [[ $status -ne $expected || -s stdout ]] || ! grep -qF -- "$text" stderr; then fail "$*: exit status $status"; fi
  if [[ $expected -eq 2 ]] && ! grep -q '^Usage: quire bench' stderr; then fail "$*: no usage"; fi
}

# A loop over 100 blocks ten times: LRU misses always, and where all fit each policy misses 100 times.
for ((round = 0; round < 10; round++)); do
  seq 1000 1099
  echo '*'
done >loop.trace
gzip -k loop.trace
xz -k loop.trace
all=$("$quire" bench --help | sed -n 's/.*--policy NAME,\.\.\.:{\(.*\),all}.*/\1/p')

run hit-ratio --trace loop.trace --json -
[[ $status -eq 0 ]] || fail "text: exit status $status"
grep -q '^loop.trace ' stderr || fail "--json -: the table is not on stderr"
keys='["policy","trace","size_fraction","frames","requests","misses","miss_ratio"]'
holds "keys" "all(.[]; keys_unsorted == $keys)"
holds "every policy at every size" "length == 5 * (\"$all\" | split(\",\") | length)"
holds "sizes" '[.[] | select(.policy == "lru") | [.size_fraction, .frames]] == [[0.01,1],[0.05,5],[0.1,10],[0.2,20],[0.4,40]]'
holds "types" 'all(.[]; .trace == "loop.trace" and .requests == 1000 and .misses >= 100 and .misses <= 1000)'
holds "ratios" 'all(.[]; .miss_ratio == .misses / .requests)'
holds "LRU on a loop" 'all(.[] | select(.policy == "lru"); .misses == 1000)'
for policy in lru clock 2q arc lirs wtinylfu s3fifo quire; do
  holds "$policy is there" "any(.[]; .policy == \"$policy\")"
done

for name in loop.trace.gz loop.trace.xz; do
  run hit-ratio --trace "$here/$name" --policy arc,lru --sizes 1 --json out.json
  [[ $status -eq 0 ]] || fail "$name: exit status $status"
  grep -q "^$name " stdout || fail "--json FILE: the table is not on stdout"
  holds "$name" "[.[] | [.trace, .policy, .frames, .misses]] == [[\"$name\",\"arc\",100,100],[\"$name\",\"lru\",100,100]]" out.json
done

run hit-ratio --trace loop.trace --trace loop.trace.gz --policy lru --policy all --sizes 0.2 --sizes 0.4
[[ $status -eq 0 && $(grep -c '^loop.trace' stdout) -eq 4 ]] || fail "two traces, two sizes: exit status $status"
grep -q '^mean of 4 ' stdout || fail "the mean of all"
grep -q '^mean of 2 .*>= 32' stdout || fail "the mean without small cells"

printf '1\n2x\n' >text
printf '\1\0\0\0\2' >binary
head -c 20 loop.trace.gz >cut.gz
head -c 40 loop.trace.xz >cut.xz
: >empty
refused 1 "text: line 2: '2x'" hit-ratio --trace text
refused 1 "binary: offset 4:" hit-ratio --trace binary
refused 1 "cut.gz: offset 20:" hit-ratio --trace loop.trace --trace cut.gz
refused 1 "cut.xz: offset 40:" hit-ratio --trace cut.xz
refused 1 "empty: holds no block number" hit-ratio --trace empty
refused 1 "cannot write no/such.json" hit-ratio --trace loop.trace --json no/such.json

refused 2 "--trace" hit-ratio
refused 2 "does not exist" hit-ratio --trace nowhere
refused 2 "--policy" hit-ratio --trace loop.trace --policy fifo
for size in 0 -1 1.01 nan '' x; do
  refused 2 "--sizes" hit-ratio --trace loop.trace "--sizes=$size"
done
refused 2 "works with hit-ratio only" mixed --trace loop.trace
refused 2 "works with hit-ratio only" short-read --sizes 0.1
refused 2 "works with hit-ratio only" rand-read --policy lru
for option in --path=. --threads=1 --depth=1 --seconds=1 --file-size=1M --memory=64M --file=loop.trace; do
  refused 2 "${option%%=*}: does not work with hit-ratio" hit-ratio --trace loop.trace "$option"
done

if [[ $failures -ne 0 ]]; then
  echo "hit_ratio: $failures failures" >&2
  exit 1
fi
echo "hit_ratio: all cases hold"
