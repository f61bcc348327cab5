# shellcheck shell=bash
# For scripts that test the command, to be sourced once $quire, $failures and $status are set, in a directory of their
# own: one case after the other, what fails is told and counted in $failures.
# shellcheck disable=SC2034,SC2154 # the scripts' own

fail() {
  echo "- $1: FAILED"
  sed 's/^/    /' stdout stderr >&2
  failures=$((failures + 1))
}
# run_quire ARGUMENT...: its exit status in $status, its output in stdout and stderr.
run_quire() {
  status=0
  timeout 60 "$quire" "$@" >stdout 2>stderr || status=$?
}
