# top without a terminal: text, JSON, and exit codes.
. tests/e2e/top_lib.bash
build_fake

expect() { # CODE PATTERN ARGS...: exit code, and what is said
    want=$1 pattern=$2
    shift 2
    out=$("$TOP" top "$@" 2>&1)
    code=$?
    [ "$code" = "$want" ] || fail "top $*: exit $code instead of $want: $out"
    printf '%s\n' "$out" | grep -qE -- "$pattern" || fail "top $*: does not say '$pattern': $out"
}

expect 1 "no training runs under moeprof: start one with" --once
expect 1 "no training runs under moeprof" # not a terminal: as --once
expect 3 "process 4194304 is gone" 4194304
expect 1 "process $$ does not run under moeprof" $$ --once
expect 2 "'x' is not a PID" x
expect 2 "unknown option '--nonsense'" --nonsense
expect 2 "--interval wants seconds" --interval 0
expect 0 "Exit codes" --help
expect 1 "cannot|not" --replay "$WORK/none.moeprof" --once

start_job sleep
sleep 0.3
expect 1 "no training runs" --once # a guest that never trained is no job
start_job steps=100000 layers=4 experts=16 grouped
for _ in $(seq 300); do
    "$TOP" top --once "$JOB" 2>&1 | grep -qE "MFU ~?[0-9.]+ %" && break
    sleep 0.1
done
expect 0 "PID $JOB  " --once
expect 0 "MFU ~?[0-9.]+ %" "$JOB"
"$TOP" top --once --ascii | LC_ALL=C grep -q '[^ -~]' && fail "--ascii prints other characters"
LC_ALL=C "$TOP" top --once | LC_ALL=C grep -q '[^ -~]' && fail "characters beyond ASCII in the C locale"
"$TOP" top --json >"$WORK/top.json" || fail "--json failed"
python3 tests/e2e/json_schema.py profiler/cli/schema/top.schema.json "$WORK/top.json" || fail "JSON is not as its schema says"
python3 - "$WORK/top.json" "$JOB" <<'PY' || fail "JSON is not as promised"
import json, sys
top = json.load(open(sys.argv[1]))
assert top["schema_version"] == 1
job, = top["jobs"]
assert job["pid"] == int(sys.argv[2]) and job["state"] == "recording"
step = job["last_step"]
booked = sum(p["seconds"] for p in step["phases"]) + step["idle_seconds"]
assert abs(booked - step["seconds"]) < 1e-6, (booked, step["seconds"])
assert 0 < job["utilisation"]["mfu"]["value"] <= job["utilisation"]["hfu"]["value"] < 1
assert job["gpu"]["memory_used_bytes"] is None and job["rank"] is None
assert [l["layer"] for l in job["expert_layers"]] == [0, 1, 2, 3]
assert all(l["time_basis"] == "apportioned" for l in job["expert_layers"])
PY
"$TOP" top --once >/dev/full 2>/dev/null && fail "a full disk goes unnoticed"
exit 0
