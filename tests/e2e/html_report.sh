# The files that `moeprof report` writes: which, where, whole or not at all; and how fast, how large and in
# how much memory from 5 million kernel events (goals: page 10 s, 1 GB, 5 MB; trace 1 M events/s).
. "$(dirname "$0")/common.bash"

(cd "$root" && make -s B="$B" "$B/gen_profile") >make.out 2>&1 || { cat make.out; exit 1; }
"$B/gen_profile" a.moeprof >/dev/null
"$B/gen_profile" b.moeprof grouped >/dev/null

expect 0 moeprof report --html a.html --md=a.md --json=a.json --csv csv --trace a.pftrace a.moeprof
said "wrote csv"
[ ! -s run.out ] || fail "something on standard output"
said "wrote a.html"
for f in a.html a.md a.json a.pftrace csv/steps.csv csv/phases.csv csv/layers.csv csv/experts.csv csv/kernels.csv; do
    [ -s "$f" ] || fail "no $f"
done
[ -z "$(ls ./*.part 2>/dev/null)" ] || fail "a part was left over"
[ "$(wc -l <a.md)" -le 60 ] || fail "Markdown of more than 60 lines"
expect 0 moeprof report --md --json=a.json a.moeprof
head -1 run.out | grep -q '^### moeprof: MFU' || fail "no Markdown"
python3 - <<'EOF' || fail "the data in the page are not those of --json"
import json, re
page = open("a.html", encoding="utf-8").read()
block = lambda name: json.loads(re.search('id="moeprof-%s">(.*?)</script>' % name, page, re.S).group(1))
want = json.load(open("a.json"))
report, experts = block("report")[0], block("experts")[0]["layers"]
steps = want["step"]["count"]
assert {k: v for k, v in report.items() if k != "experts"} == {k: v for k, v in want.items() if k != "experts"}
assert sum(len(r["tokens"]) for r in experts) == len(want["experts"])
for e in want["experts"]:
    row = next(r for r in experts if r["layer"] == e["layer"])
    assert abs(row["ns"][e["expert"]] * 1e-9 - e["seconds"] / steps) < 1e-7
EOF

# Two profiles: before and after; a folder each for CSV; one trace of both.
expect 0 moeprof report --html ab.html --csv both_csv --trace ab.pftrace a.moeprof b.moeprof
said "wrote both_csv/b.moeprof"
grep -q 'before: eager' ab.html && grep -q 'after: grouped_mm' ab.html || fail "no before and after"
[ -s both_csv/a.moeprof/steps.csv ] && [ -s both_csv/b.moeprof/steps.csv ] || fail "no folder a profile"

# Runs of the same name in two folders.
mkdir one two && cp a.moeprof one/r.moeprof && cp b.moeprof two/r.moeprof
expect 0 moeprof report --csv same one/r.moeprof two/r.moeprof
[ "$(ls same)" = "$(printf '1-r.moeprof\n2-r.moeprof')" ] || fail "runs of the same name share a folder: $(ls same)"

# One of two cannot be read: the other is reported, the exit code tells.
expect 1 moeprof report --html one.html a.moeprof nowhere.moeprof
grep -q 'before:' one.html && fail "a pair of one"
expect 1 moeprof report --html none.html nowhere.moeprof
[ ! -e none.html ] || fail "a page of nothing"

# Several were given: an array, though one of them could not be read.
expect 1 moeprof report --json=one.json a.moeprof nowhere.moeprof
python3 -c 'import json; r = json.load(open("one.json")); assert isinstance(r, list) and len(r) == 1' || fail "no array"
# What one output fails by costs the others nothing.
echo kept >in-the-way
expect 1 moeprof report --html all.html --md=all.md --trace all.pftrace --csv in-the-way a.moeprof
said "in-the-way"
grep -q '</html>' all.html && [ -s all.md ] && [ -s all.pftrace ] || fail "one output that fails takes others along"
expect 1 moeprof report --trace /nonexistent/x.pftrace --csv csv-all-the-same a.moeprof
said "/nonexistent/x.pftrace"
[ -s csv-all-the-same/steps.csv ] || fail "no tables where the trace has no place"

# Wrong use, and places that cannot be written.
expect 2 moeprof report --trace x --trace-format vhs a.moeprof
expect 2 moeprof report --trace x --trace-format chrome a.moeprof b.moeprof
expect 2 moeprof report --html
expect 1 moeprof report --html /nonexistent/x.html a.moeprof
said "/nonexistent/x.html"
expect 1 moeprof report --csv /nonexistent/x/y a.moeprof
for option in --md --html=- --trace=-; do
    ! moeprof report $option a.moeprof >/dev/full 2>run.err || fail "a full disk goes unnoticed by $option"
    said "cannot write"
done
moeprof report --trace a.json --trace-format chrome a.moeprof 2>/dev/null
python3 - <<'EOF' || fail "the chrome trace is not what it should be"
import json
t = json.load(open("a.json"))
kernel = [e for e in t["traceEvents"] if e.get("cat") == "kernel"]
launch = {e["args"]["correlation"]: e for e in t["traceEvents"] if e.get("cat") == "cuda_runtime"}
assert t["schemaVersion"] == 1 and len(kernel) > 1000
assert all(launch[k["args"]["correlation"]]["ts"] < k["ts"] for k in kernel)
assert sum(e["name"].startswith("ProfilerStep#") for e in t["traceEvents"]) == 12
EOF

# Speed. A machine that does something else as well is given three times the goal's time.
"$B/gen_profile" big.moeprof events=5000000 layers=48 >/dev/null
python3 - "$B/moeprof" <<'EOF' || fail "too slow or too large"
import os, resource, subprocess, sys, time
def run(*args):
    began = time.monotonic()
    subprocess.run([sys.argv[1], "report", *args, "big.moeprof"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began
page, trace = run("--html", "big.html"), run("--trace", "-")
kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
told = "page %.1f s, %d bytes; trace %.1f s; %d KiB" % (page, os.path.getsize("big.html"), trace, kib)
if page > 30 or os.path.getsize("big.html") > 5e6 or trace > 15 or kib > 1 << 20:
    sys.exit(told)
EOF
