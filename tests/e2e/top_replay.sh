# top on a recorded profile: at its end it says what the report says; in real time it plays; what is
# no profile, damaged, or one step long is a sentence or an honest screen.
. tests/e2e/top_lib.bash
build_fake
[ -e "$B/libmoeprof.so" ] || fail "no libmoeprof.so in $B"

record() { # FILE ARGS...
    file=$1
    shift
    "$TOP" run -o "$file" -- "$B/fake_guest" "$@" >/dev/null 2>&1 || fail "cannot record $file"
}

# Every step watched, and a burst of 4 in 32.
record "$WORK/a.moeprof" steps=40 layers=4 experts=16
record "$WORK/b.moeprof" steps=60 layers=4 experts=16 burst=10/4/28
for file in a b; do
    "$TOP" top --replay "$WORK/$file.moeprof" --json >"$WORK/top.json" || fail "no JSON of a replay"
    "$TOP" report --json "$WORK/$file.moeprof" >"$WORK/report.json" || fail "no report"
    python3 tests/e2e/json_schema.py profiler/cli/schema/top.schema.json "$WORK/top.json" || fail "JSON is not as its schema says"
    python3 - "$WORK" <<'PY' || fail "top and report differ in $file"
import json, sys
top = json.load(open(sys.argv[1] + "/top.json"))["jobs"][0]
report = json.load(open(sys.argv[1] + "/report.json"))
mine, other = top["utilisation"]["mfu_mean"], report["mfu"]
assert top["state"] == "replay" and top["agent"]["coverage_ratio"] > 0.99
assert mine["basis"] == other["basis"], (mine, other)
assert abs(mine["value"] - other["value"]) < 1e-8 * other["value"], (mine, other)
assert len(top["expert_layers"]) == len(report["layers"])
PY
done

record "$WORK/one.moeprof" steps=1 layers=2 experts=8
"$TOP" top --replay "$WORK/one.moeprof" --once >"$WORK/one.txt" || fail "no text of one step"
grep -q 'not a whole step' "$WORK/one.txt" && grep -q 'MFU –' "$WORK/one.txt" || fail "one step is not told as one"

echo "no profile" >"$WORK/text.moeprof"
head -c 20000 "$WORK/a.moeprof" >"$WORK/cut.moeprof"
for bad in text cut; do
    "$TOP" top --replay "$WORK/$bad.moeprof" --once >/dev/null 2>"$WORK/said"
    [ $? = 1 ] && grep -q "$bad.moeprof" "$WORK/said" || fail "$bad.moeprof: $(cat "$WORK/said")"
done
"$TOP" top --replay "$WORK/a.moeprof" 77 2>/dev/null
[ $? = 2 ] || fail "--replay with a PID is not refused"

have_tmux
record "$WORK/long.moeprof" steps=60 layers=4 experts=64
start_shell 100 30
keys "$TOP top --replay $WORK/long.moeprof" Enter
see 'long.moeprof .*replay'
see 'Step [0-9]+:'
step=$(screen | grep -oE 'Step [0-9]+:')
gone "$step" # it plays
keys Space
see PAUSED
keys Space
see 'Step 58:' # to its end, and stays
keys 4
see 'Step 58: .*a column is'
keys q
see '^ready> *$'
