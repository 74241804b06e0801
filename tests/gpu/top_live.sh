# moeprof top on a training that runs: bash tests/gpu/top_live.sh   (a GPU with 24 GB free; some 50 s)
# --once, then the dashboard in a pseudo-terminal with keys: from a step's closing to the screen, CPU of top.
# B: build folder, with moeprof, libmoeprof.so and top_watch. PYTHON: the interpreter that has torch.
# JOB: another command to train. SECONDS_WATCHED: how long (default 20). OUT_DIR: keeps what was said there.
set -u
B=${B:-build}
T=$(mktemp -d)
out=${OUT_DIR:-$T}
seconds=${SECONDS_WATCHED:-20}
job=${JOB:-${PYTHON:-python3} samples/train_plain.py --model qwen3-30b --layers 2 --experts grouped_mm --steps 100000}
mkdir -p "$out"
mkdir -m 700 "$T/job"
export MOEPROF="dir=$T/job" LC_ALL=C.UTF-8
[ -x "$B/top_watch" ] || make -s B="$B" "$B/top_watch" || exit 1

"$B/moeprof" run -o "$T/live.moeprof" -- $job >"$out/job.log" 2>&1 &
run=$!
trap 'kill -INT $(jobs -p) 2>/dev/null; [ -n "${pid:-}" ] && kill "$pid" 2>/dev/null; wait 2>/dev/null; rm -rf "$T"' EXIT

for _ in $(seq 300); do # until a step is whole
    "$B/moeprof" top --once --ascii >"$out/once.txt" 2>/dev/null && grep -q ' Step [0-9]*: ' "$out/once.txt" && break
    kill -0 $run 2>/dev/null || { echo "the training ended: "; tail -5 "$out/job.log"; exit 1; }
    sleep 0.2
done
pid=$(sed -n 's/^PID \([0-9]*\).*/\1/p' "$out/once.txt" | head -1)
[ -n "$pid" ] || { echo "no job to be seen"; tail -5 "$out/job.log"; exit 1; }
timeout 60 "$B/top_watch" "$T/job" "$pid" "$seconds" "$B/moeprof" >"$out/watch.txt" || exit 1

value() { sed -n "s/^$1 //p" "$out/watch.txt"; }
bad=0
row() { # WHAT VALUE BAR CONDITION
    verdict=pass
    awk "BEGIN { exit !($4) }" || { verdict=FAIL; bad=1; }
    printf '%-44s %14s   %-14s %s\n' "$1" "$2" "$3" $verdict
}
p99=$(value latency_ms_p99) cpu=$(value cpu_ratio) keys=$(value keys_good) of=$(value keys) never=$(value never_shown)
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name --format=csv,noheader | head -1
printf '%-44s %14s   %-14s\n' "moeprof top, live" value bar
row "--once shows an MFU" "$(sed -n 's/^ MFU \(~\?[0-9.]* %\).*/\1/p' "$out/once.txt" | head -1)" "a figure" "$(grep -cE '^ MFU ~?[0-9]' "$out/once.txt") >= 1"
row "record to screen, p50" "$(value latency_ms_p50) ms" "" 1
row "record to screen, p99 of $(value steps) steps" "${p99:-none} ms" "<= 250 ms" "${p99:-9999} <= 250"
row "record to screen, longest" "$(value latency_ms_max) ms" "" 1
row "steps never shown" "${never:-none}" "0" "${never:-1} == 0"
row "CPU of top, of a core" "$(awk "BEGIN { printf \"%.2f %%\", 100 * ${cpu:-1} }")" "< 1 %" "${cpu:-1} < 0.01"
row "keys that showed what they should" "$keys of $of" "all" "${keys:-0} == ${of:-1}"
row "left well, terminal as before" "$(value left_well)" "1" "$(value left_well) == 1"
[ $bad = 0 ] || { grep '^key_' "$out/watch.txt"; [ -z "${OUT_DIR:-}" ] || cp "$T"/live.moeprof* "$out"; }
exit $bad
