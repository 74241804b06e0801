# A job from start to report: the file, the figures, their sums, the size, the layout of the text.
. "$(dirname "$0")/common.bash"

expect 0 moeprof run -o a.moeprof -- "$guest" steps=30
said "recorded 30 steps"
[ "$(ls)" = "$(printf 'a.moeprof\njob\nrun.err\nrun.out')" ] || [ -x fake_guest ] || fail "other files: $(ls)"
[ ! -s run.out ] || fail "the recorder wrote to stdout"
[ -z "$(ls job)" ] || fail "the job directory was left full: $(ls job)"

json a.moeprof 'r["schema_version"] == 1 and r["run"]["gpu"] == "NVIDIA H100 80GB HBM3"'
json a.moeprof 'r["run"]["experts_backend"] == "eager" and r["run"]["is_complete"] and r["run"]["end"] == "exit"'
json a.moeprof 'r["step"]["count"] == 27 and 0.06 < r["step"]["median_seconds"] < 0.066'
json a.moeprof '0.1 < r["mfu"]["value"] <= r["hfu"]["value"] < 1 and r["mfu"]["convention"] and r["mfu"]["basis"] == "apportioned"'
json a.moeprof 'r["coverage"]["attributed_ratio"] >= 0.99 and r["coverage"]["dropped_records"] == 0'
json a.moeprof 'abs(sum(p["seconds"] for p in r["phases"]) + r["idle"]["seconds"] - r["traced"]["window_seconds"]) < 1e-8'
json a.moeprof 'len(r["experts"]) == 4 * 128 and sum(e["tokens"] for e in r["experts"]) == 27 * 4 * 4096 * 8'
json a.moeprof 'all(e["basis"] == "measured" and e["shared_basis"] == "apportioned" for e in r["experts"])'
# What is shared out adds up to what dispatch and combine took.
json a.moeprof 'abs(sum(e["shared_seconds"] for e in r["experts"]) - sum(p["seconds"] for p in r["phases"] if p["phase"] in ("dispatch", "combine"))) < 1e-7'
for f in report.json "$root"/tests/golden/report_*.json; do
    python3 "$root/tests/e2e/json_schema.py" "$root/report/schema/report.schema.json" "$f"
done

moeprof report a.moeprof >text
head -1 text | grep -q '^MFU ~[0-9.]* %, [0-9 ]* useful tokens/s' || fail "no verdict first: $(head -1 text)"
sed -n 2p text | grep -q 'causal, useful tokens' || fail "no convention under the MFU"
python3 -c 'import sys; sys.exit(any(len(x.rstrip("\n")) > 100 for x in open("text", encoding="utf-8")))' || fail "wider than 100 columns"
moeprof report --peak 500 a.moeprof | sed -n 2p | grep -q 'given 500' || fail "--peak is not used"

# At most 12 bytes a kernel event; the whole file, with everything else in it.
expect 0 moeprof run -o big.moeprof -- "$guest" steps=25 layers=8
events=$(sql big.moeprof "SELECT sum(n) FROM chunk")
[ "$(sql big.moeprof "SELECT value FROM meta WHERE key = 'n_unbalanced'")" = 0 ] || fail "steps do not add up"
[ "$(stat -c %s big.moeprof)" -le $((12 * events)) ] || fail "$(stat -c %s big.moeprof) bytes for $events events"

# Bursts: step time and MFU of all steps, times by phase of the traced ones.
expect 0 moeprof run -o b.moeprof -- "$guest" steps=30 burst=6/3/3
json b.moeprof 'r["step"]["untraced_count"] == 11 and r["step"]["count"] >= 22 and 5 <= r["traced"]["count"] < 15'
json b.moeprof 'r["mfu"]["value"] > 0.1 and 0.06 < r["step"]["untraced_median_seconds"] < 0.066'
json b.moeprof 'abs(sum(p["seconds"] for p in r["phases"]) + r["idle"]["seconds"] - r["traced"]["window_seconds"]) < 1e-8'

# Grouped kernels: layer exact, experts shared out, and said so. Few steps, unknown GPU: said, not guessed.
expect 0 moeprof run -o g.moeprof -- "$guest" steps=3 grouped unknown-gpu
json g.moeprof 'all(e["basis"] == "apportioned" for e in r["experts"]) and r["step"]["count"] == 2'
json g.moeprof 'r["mfu"]["value"] is None and "--peak" in r["mfu"]["why_not"] and r["mfu"]["basis"] == "unknown"'
json g.moeprof 'any("whole step" in n for n in r["notes"])'
expect 0 moeprof run -o one.moeprof -- "$guest" steps=1
json one.moeprof 'r["step"]["recorded"] == 1 and any("no whole step" in n for n in r["notes"])'

# What is damaged is named, of several files too, with what to do about it.
damaged() { # WHY SQL
    cp a.moeprof hurt.moeprof
    python3 -c 'import sqlite3, sys; d = sqlite3.connect("hurt.moeprof"); d.execute(sys.argv[1]); d.commit()' "$2"
    expect 1 moeprof report a.moeprof hurt.moeprof --trace trace.json
    said "profile 'hurt.moeprof' is damaged: $1; use another copy of it, or record it again"
}
damaged "not a chunk of records" "UPDATE chunk SET records = x'00'"
damaged "compressed records are damaged" "UPDATE chunk SET records = substr(records, 1, 40)"
damaged "chunk claims 1 records, 3 events" "UPDATE chunk SET records = x'4d504331' || x'01000000' || x'03000000'"
damaged "compressed records are damaged" "UPDATE route SET counts = x'00'"
damaged "it claims a layer of -5 experts" "UPDATE route SET n_expert = -5"
