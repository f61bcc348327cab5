#!/usr/bin/env bash
# `quire verity`: enable, measure, check and status say what they should, on standard output and standard error, with the
# exit statuses of success (0), failure (1) and wrong usage (2); digests are those of the fsverity program; an enabling
# that is killed leaves no sidecar or a whole one.
#
# usage: tests/verity.sh BUILD_DIR
set -euo pipefail

if [[ $# -ne 1 || ! -x $1/quire ]]; then
  echo "usage: tests/verity.sh BUILD_DIR" >&2
  exit 2
fi
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
quire=$(realpath "$1/quire")
work=$(mktemp -d "${TMPDIR:-/tmp}/quire-verity.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
failures=0 status=0
# shellcheck source=tests/command_test.bash
source "$tests/command_test.bash"
# run COMMAND...: its exit status in $status, its output in stdout and stderr.
run() { run_quire verity "$@"; }
# prints TEXT COMMAND...: exit status 0, this on standard output and nothing on standard error.
prints() {
  local text=$1
  shift
  run "$@"
  { [[ $status -eq 0 && $(cat stdout) == "$text" && ! -s stderr ]]; } || fail "$*: exit status $status"
}
# refused SENTENCE COMMAND...: exit status 1 and one line on standard error that says so.
refused() {
  local sentence=$1
  shift
  run "$@"
  { [[ $status -eq 1 && ! -s stdout && $(wc -l <stderr) -eq 1 ]] && grep -qE "^quire: .*$sentence" stderr; } ||
    fail "$*: exit status $status"
}
wrong() {
  run "$@"
  { [[ $status -eq 2 && ! -s stdout ]] && grep -q '^Usage: quire verity' stderr; } || fail "$*: exit status $status"
}
# holds WHAT FILTER: jq finds FILTER true of each object in stdout.
holds() { jq -se "length > 0 and all($2)" stdout >jq.log 2>&1 || fail "$1 ($2)"; }
flip() { printf '%b' "\\x$(printf '%02x' $((0x$(byte_of "$1" "$2") ^ 1)))" |
  dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
byte_of() { od -An -tx1 -j "$2" -N 1 "$1" | tr -d ' '; }
digest() {
  if command -v fsverity >/dev/null; then fsverity digest "$@"; fi
}

# --- enable and measure: the digests of fsverity ---
head -c 3000001 /dev/urandom >file
head -c 5000 file >small
: >empty
run enable file
expected=$(digest file)
[[ $status -eq 0 && ! -s stderr && $(cat stdout) == "${expected:-$(cat stdout)}" ]] || fail "enable: status $status"
[[ $(cat stdout) =~ ^sha256:[0-9a-f]{64}\ file$ ]] || fail "enable: not in the form of fsverity digest"
file_digest=$(cut -d ' ' -f 1 stdout)
prints "$file_digest file" measure file
run enable small --hash-alg SHA512 --block-size 1K --salt 00ffAB
expected=$(digest small --hash-alg=sha512 --block-size=1024 --salt=00ffab)
[[ $status -eq 0 && $(cat stdout) == "${expected:-$(cat stdout)}" ]] || fail "enable with parameters: status $status"
run enable empty
expected=$(digest empty)
[[ $status -eq 0 && $(cat stdout) == "${expected:-$(cat stdout)}" ]] || fail "enable of an empty file: status $status"
run measure file small empty
[[ $status -eq 0 && $(wc -l <stdout) -eq 3 ]] || fail "measure of three files: status $status"
refused "fs-verity is on for it already.*file.verity" enable file
cp small plain
run measure plain file missing
[[ $status -eq 1 && $(cat stdout) == "$file_digest file" && $(wc -l <stderr) -eq 2 ]] || fail "measure goes on: $status"
grep -q "plain.*fs-verity is not on" stderr || fail "measure of a plain file"
mkfifo fifo
refused "FIFO" enable fifo
refused "directory" enable .
refused "No such file" enable missing
refused "malformed signature" enable plain --signature small
refused "limit" enable plain --signature file
[[ ! -e plain.verity ]] || fail "a refused enabling left a sidecar"

# --- status ---
run status file plain
[[ $status -eq 0 && $(grep -c 'Verity: on' stdout) -eq 1 && $(grep -c 'Verity: off' stdout) -eq 1 ]] || fail status
run status --json file small
holds "status --json" '.verity and (.digest | startswith("sha"))'
run status --json small
holds "status --json" '.hash_alg == "sha512" and .block_size == 1024 and .salt == "00ffab" and .file_size == 5000'
run status --json plain
holds "status --json" '.verity == false'

# --- check ---
prints "$file_digest file: 733 data blocks good" check file
run check file small empty --json
[[ $status -eq 0 ]] || fail "check of three files: status $status"
holds "check --json" '.ok and .bad == []'
run check --digest "$file_digest" file
[[ $status -eq 0 ]] || fail "check --digest: status $status"
refused "its digest is $file_digest, and sha256:0{64} is wanted" check --digest "$(printf '%064d' 0)" file
flip file 1000000
flip file 2999999
run check small file --json
[[ $status -eq 1 && $(wc -l <stderr) -eq 3 ]] || fail "check of a bad file: status $status"
for offset in 999424 2998272; do
  grep -qE "^quire: file: data block .*at offset $offset: expected sha256:[0-9a-f]{64}, found sha256:" stderr ||
    fail "check does not name the block at $offset"
done
jq -se '.[0].ok and (.[1] | (.ok | not) and .bad_data_blocks == 2 and
  (.bad | map(.offset)) == [999424, 2998272] and (.bad | all(.kind == "data" and .expected != .found)))' \
  stdout >jq.log || fail "check --json of a bad file"
flip file 1000000
flip file 2999999
flip file.verity $((65536 + 4096))
run check file
[[ $status -eq 1 && ! -s stdout ]] || fail "check of a bad tree: status $status"
grep -qE "^quire: .*/file.verity: hash block of 4096 bytes at offset 69632: expected" stderr || fail "bad hash block"
grep -qE "^quire: file: 524288 bytes at offset 0 cannot be verified: .*offset 69632" stderr || fail "unverified range"
flip file.verity $((65536 + 4096))
flip file.verity 50
refused "damaged" check file
flip file.verity 50
prints "$file_digest file: 733 data blocks good" check file
refused "fs-verity is not on" check plain

# --- signatures ---
if command -v fsverity >/dev/null && command -v openssl >/dev/null; then
  for name in one two; do
    openssl req -newkey rsa:2048 -nodes -x509 -days 100 -subj "/CN=$name" -keyout $name.key -out $name.pem 2>/dev/null
  done
  fsverity sign plain plain.sig --key=one.key --cert=one.pem >/dev/null
  run enable plain --signature plain.sig
  [[ $status -eq 0 ]] || fail "enable --signature: status $status"
  run check plain --require-signature one.pem
  [[ $status -eq 0 ]] || fail "check --require-signature: status $status"
  refused "rejected" check plain --require-signature two.pem
  refused "not signed" check file --require-signature one.pem
fi

# --- a file that is written, or changes, meanwhile; one that is killed ---
head -c 100000000 /dev/zero | tr '\0' x >large
for delay in 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.13 0.16 0.2 0.3; do
  { timeout -s KILL "$delay" "$quire" verity enable large >/dev/null 2>&1 || true; } 2>/dev/null
  if [[ -e large.verity ]]; then
    run check large
    [[ $status -eq 0 ]] || fail "killed after $delay s: the sidecar is not whole"
    rm large.verity
  fi
done
[[ -z $(find . -name '.large*') ]] || fail "a killed enabling left files behind"

# --- wrong command lines ---
wrong
wrong frobnicate file
wrong enable
wrong enable file small
wrong enable --block-size 3000 small
wrong enable --block-size 128K small
wrong enable --hash-alg md5 small
wrong enable --salt 123 small
wrong enable --salt xy small
wrong enable --salt "$(printf '%066d' 0)" small
wrong enable --signature missing small
wrong measure
wrong check
wrong check --digest sha256:12 file
wrong check --digest "sha512:$(printf '%064d' 0)" file
wrong check --require-signature missing file
wrong status --frob file

if [[ $failures -ne 0 ]]; then
  echo "verity: $failures failures" >&2
  exit 1
fi
echo "verity: all cases hold"
