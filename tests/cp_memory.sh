#!/usr/bin/env bash
# `quire cp` keeps to the memory it was given: its peak resident size is at most --memory and 32 MiB more, however large
# the file, and the copy is right.
#
# usage: tests/cp_memory.sh BUILD_DIR [FILE_MIB [MEMORY_MIB]]     (default 512 16; the promise is 2048 64)
set -euo pipefail

if [[ $# -lt 1 || $# -gt 3 || ! -x $1/quire ]]; then
  echo "usage: tests/cp_memory.sh BUILD_DIR [FILE_MIB [MEMORY_MIB]]" >&2
  exit 2
fi
quire=$1/quire file_mib=${2:-512} memory_mib=${3:-16}
extra_mib=32
if nm -D "$quire" "$1"/libquire.so 2>/dev/null | grep -qE '__(asan|tsan)_init'; then
  echo "SKIP cp_memory: a sanitizer's own memory is counted, too"
  exit 77
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/quire-cp.XXXXXX")
trap 'rm -rf "$work"' EXIT
free_kib=$(df --output=avail -k "$work" | tail -n 1)
if ((free_kib < (2 * file_mib + 256) * 1024)); then
  echo "SKIP cp_memory: $work has too little room for two files of $file_mib MiB"
  exit 77
fi

# Bytes that no block has in common, the last block partial.
head -c 16777216 /dev/urandom >"$work/unit"
for ((i = 0; i < file_mib; i += 16)); do cat "$work/unit"; done | head -c "$((file_mib * 1048576))" >"$work/source"
echo "the end" >>"$work/source"
rm "$work/unit"

# Prints the peak resident size in KiB of the command (exec'd as the only child), exits with its status.
peak_kib() {
  python3 - "$@" <<'PYTHON'
import os, resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
PYTHON
}
command -v python3 >/dev/null || { echo "SKIP cp_memory: no python3"; exit 77; }

peak=$(peak_kib "$quire" cp --memory "${memory_mib}M" "$work/source" "$work/copy")
cmp "$work/source" "$work/copy"
limit=$(((memory_mib + extra_mib) * 1024))
echo "cp of $file_mib MiB with --memory ${memory_mib}M: peak $peak KiB, limit $limit KiB"
if ((peak > limit)); then
  echo "cp_memory: over the limit" >&2
  exit 1
fi
