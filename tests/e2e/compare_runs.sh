# Two recorded runs side by side: what is said, the JSON against its schema, wrong use.
. "$(dirname "$0")/common.bash"

expect 0 moeprof run -o eager.moeprof -- "$guest" steps=30 fast
expect 0 moeprof run -o grouped.moeprof -- "$guest" steps=25 grouped fast
expect 0 moeprof compare eager.moeprof grouped.moeprof
head -1 run.out | grep -q '^after is faster: 1\.[0-9]* times the model FLOPs' || fail "no verdict first: $(head -1 run.out)"
grep -q 'unpaired: confounded by time, clock and data' run.out || fail "the caveat is missing"
python3 -c 'import sys; sys.exit(any(len(x.rstrip("\n")) > 100 for x in open("run.out", encoding="utf-8")))' || fail "wider than 100 columns"

expect 0 moeprof compare eager.moeprof grouped.moeprof --md
[ "$(wc -l <run.out)" -le 60 ] || fail "more than 60 lines of Markdown"
for f in "$root"/tests/golden/compare_*.json; do
    python3 "$root/tests/e2e/json_schema.py" "$root/report/schema/compare.schema.json" "$f"
done
moeprof compare --json grouped.moeprof eager.moeprof >c.json
python3 "$root/tests/e2e/json_schema.py" "$root/report/schema/compare.schema.json" c.json
python3 -c '
import json
c = json.load(open("c.json"))
assert c["speedup"]["verdict"] == "slower" and c["speedup"]["low"] <= c["speedup"]["value"] <= c["speedup"]["high"] < 1
assert abs(c["speedup"]["value"] - c["after"]["mfu"] / c["before"]["mfu"]) < 1e-9
assert [d["name"] for d in c["differences"]] == ["experts run as"] and "mfu" in c["worse"]
assert len(c["before"]["seconds"]) == c["before"]["steps"] == 22 and not c["is_paired"]'

expect 2 moeprof compare eager.moeprof
said "two profiles are needed, 1 given"
expect 2 moeprof compare eager.moeprof grouped.moeprof --md --json
said "exclude each other"
expect 1 moeprof compare eager.moeprof missing.moeprof
said "cannot open 'missing.moeprof'"
echo text >text.txt
expect 1 moeprof compare text.txt grouped.moeprof
said "not a moeprof profile"
