# moeprof swap against a real job on CPU tensors: status, on, off, parity refused, wrong use, a job that is gone.
. "$(dirname "$0")/common.bash"

eval "$(bash "$root/tests/bridge/setup_venv.sh")"
[ -e "$B/libmoeprof.so" ] || fail "no guest library"
job() { # family, what..: starts it; $pid
    MOEPROF_GUEST="$B/libmoeprof.so" PYTHONPATH="$root/tests/bridge" "$python" "$root/tests/bridge/swap_job.py" "$T/job" "$@" 2>job.err &
    pid=$!
    wait_for 120 test -S "job/$pid.sock"
}
end_job() { kill "$pid"; wait "$pid" || fail "the job did not end well"; }
# answer EXPR: holds for the JSON of the last command
answer() { python3 -c 'import json, sys; r = json.load(open("run.out")); sys.exit(not eval(sys.argv[1]))' "$1" || fail "does not hold: $1"; }
trap 'code=$?; kill $pid 2>/dev/null || true; [ $code -eq 0 ] || cat "$T"/*.err "$T/run.out"; rm -rf "$T"' EXIT

for python in "$PY5" "$PY457"; do
    job qwen3_moe
    expect 0 moeprof swap "$pid" status --json
    python3 "$root/tests/e2e/json_schema.py" "$root/profiler/cli/schema/swap.schema.json" run.out
    answer 'r["arm"] == "original" and [x["swappable"] for x in r["layers"]] == [True, True] and r["ok"]'
    expect 0 moeprof swap "$pid" on --json
    python3 "$root/tests/e2e/json_schema.py" "$root/profiler/cli/schema/swap.schema.json" run.out
    answer 'r["arm"] == "moeprof" and len(r["parity"]) == 2 and all(x["passed"] and x["error"] < 1e-5 and min(x["output_cosine"], x["gradient_cosine"]) > 1 - 1e-9 for x in r["parity"])'
    expect 0 moeprof swap "$pid" on --json
    answer 'r["parity"] == []'
    expect 0 moeprof swap "$pid" status
    grep -q 'swapped .*swiglu' run.out || fail "status does not show the swap"
    expect 0 moeprof swap "$pid" off
    expect 0 moeprof swap "$pid" status --json
    answer 'r["arm"] == "original" and not any(x["swapped"] for x in r["layers"])'
    expect 1 moeprof swap "$pid" on --arm nonsense
    said "no arm named 'nonsense'"
    end_job
    expect 3 moeprof swap "$pid" on
done
python=$PY5

# Parity refuses: exit code 4, the layer and the quantity named, nothing swapped.
job qwen3_moe break
wait_for 60 grep -q "as asked" job.err
expect 4 moeprof swap "$pid" on
said "layer 0"
expect 0 moeprof swap "$pid" status --json
answer 'r["arm"] == "original"'
end_job

# Layers that cannot be swapped are named, with the reason.
python=$PY457
job phimoe
expect 1 moeprof swap "$pid" on
said "cannot be swapped: "
end_job
python=$PY5

# A job that ends no step in time: the request is taken back. One that is stopped says nothing at all.
job qwen3_moe stall
wait_for 60 grep -q "as asked" job.err
expect 1 moeprof swap "$pid" on --wait 1
said "no step of process"
kill -STOP "$pid"
expect 1 moeprof swap "$pid" status
said "does not answer"
kill -CONT "$pid"
expect 0 moeprof swap "$pid" status --json
answer 'r["arm"] == "original"'
end_job

expect 2 moeprof swap
expect 2 moeprof swap x on
expect 2 moeprof swap 1 sideways
expect 2 moeprof swap 1 on --wait soon
expect 3 moeprof swap 1 on
said "is it a job"
