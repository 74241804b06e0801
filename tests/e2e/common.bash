# Sourced by the scripts here. Gives each a folder of its own (removed at the end), a job directory of
# its own, `moeprof`, `fake_guest`, and a few questions to ask. Silent on success; exit status only.
set -eu
B=$(cd "${B:-build}" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
T=$(mktemp -d)
trap 'code=$?; [ $code -eq 0 ] || { echo "--- ${BASH_SOURCE[1]:-$0} line $LINENO"; cat "$T"/*.err 2>/dev/null; }; rm -rf "$T"' EXIT
mkdir -m 700 "$T/job"
export MOEPROF="dir=$T/job"
unset CUDA_INJECTION64_PATH LD_PRELOAD
cd "$T"

moeprof() { "$B/moeprof" "$@"; }
guest="$B/fake_guest"
if [ ! -x "$guest" ]; then
    guest="$T/fake_guest"
    (cd "$root" && ${CC:-cc} -std=c11 -D_GNU_SOURCE -I. -O1 -o "$guest" tests/mock/fake_guest.c profiler/core/shm.c profiler/core/base.c)
fi

fail() { echo "$*" >&2; exit 1; }
# expect CODE COMMAND..: runs it, stderr to run.err, and wants that exit code.
expect() {
    local want=$1 got=0
    shift
    "$@" >run.out 2>run.err || got=$?
    [ "$got" = "$want" ] || fail "exit code $got, not $want: $*"
}
# said TEXT: the last `expect` said so on stderr.
said() { grep -qF -- "$1" run.err || fail "not said: $1"; }
# json FILE EXPR: a Python expression over the report `r` of a profile must hold.
json() {
    moeprof report --json "$1" >report.json || fail "no report of $1"
    python3 -c 'import json, sys; r = json.load(open("report.json")); sys.exit(not eval(sys.argv[1]))' "$2" ||
        fail "does not hold for $1: $2"
}
# sql FILE QUERY: the first value.
sql() { python3 -c 'import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone()[0])' "$@"; }
# wait_for SECONDS COMMAND..: until it succeeds.
wait_for() {
    local tries=$(($1 * 20))
    shift
    until "$@" 2>/dev/null; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || fail "waited in vain: $*"
        sleep 0.05
    done
}
