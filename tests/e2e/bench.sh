# moeprof bench: wrong words, no GPU, no bench beside the tool; with a GPU that is not there (tests/mock) what it prints.
. "$(dirname "$0")/common.bash"

expect 0 moeprof bench --help
grep -q "^usage: moeprof bench" run.out || fail "no usage"
for words in --zork --shape "-n" "extra"; do
    expect 2 moeprof bench $words
    said "'moeprof bench --help'"
done

# The tool alone: what is missing, and what makes it.
mkdir alone && cp "$B/moeprof" alone/
expect 1 alone/moeprof bench
said "cannot find 'moe_bench'"
said "CUDA toolkit"

if [ ! -x "$B/moe_bench" ]; then
    echo "skip: moeprof bench itself, since this build has no CUDA toolkit"
    exit 0
fi
for words in "--shape zork" "--routing zork" "--tokens 0" "--tokens 4096,131073" "--tokens 7x" "-n 0"; do
    expect 2 moeprof bench $words
    said "moeprof bench: "
done
expect 0 moeprof bench --list
[ "$(grep -c '^[a-z].* hidden ' run.out)" = 24 ] || fail "not 24 shapes: $(cat run.out)"
if [ -c /dev/full ]; then
    expect 1 bash -c '"$0" bench --list >/dev/full' "$B/moeprof"
    said "cannot write to standard output"
fi
if ! ls /dev/nvidia[0-9]* >/dev/null 2>&1; then
    expect 1 moeprof bench
    said "moeprof bench: no GPU here that CUDA can use"
    [ ! -s run.out ] && [ "$(wc -l <run.err)" = 1 ] || fail "more than one sentence"
fi

# With the runtime's stand-in.
env -u MAKEFLAGS -u MAKELEVEL make -s -C "$root" B="$B" "$B/mock/moe_bench" >/dev/null
cp "$B/mock/moe_bench" alone/
if [ -c /dev/full ]; then
    expect 1 env LD_LIBRARY_PATH="$B/mock" bash -c 'alone/moeprof bench --tokens 64 -n 1 >/dev/full'
    said "cannot write to standard output"
fi
answer() { python3 -c 'import json, sys; r = json.load(open("run.out")); c = r["cases"]; sys.exit(not eval(sys.argv[1]))' "$1" || fail "does not hold: $1"; }
bench() {
    expect 0 env LD_LIBRARY_PATH="$1" alone/moeprof bench "${@:2}" --json
    python3 "$root/tests/e2e/json_schema.py" "$root/profiler/cli/schema/bench.schema.json" run.out
}
bench "$B/mock" --shape qwen3-30b,dsv3 --tokens 1,131072 --routing zipf,half -n 3
answer '[(x["shape"], x["tokens"], x["routing"]) for x in c] == [(s, t, k) for s in ("qwen3-30b", "dsv3") for t in (1, 131072) for k in ("zipf", "half")]'
answer '[bool(x["skipped"]) for x in c] == [False] * 6 + [True] * 2 and "GB of GPU memory" in c[7]["skipped"] and c[7]["passes"] == []'
# A millisecond a call: rates, fractions and sizes follow.
answer 'r["gpu"] == "Mock GPU" and r["sm"] == 90 and abs(r["dense_flop_per_second"] / (2 * 8192**3 * 1e3) - 1) < 1e-5'
answer 'all(p["flop"] == k * 6 * x["tokens"] * 8 * x["hidden"] * x["inter"] for x in c if x["passes"] for k, p in zip((1, 3), x["passes"]))'
answer 'all(abs(p["gpu_flop_per_second"] / p["flop"] / 1e3 - 1) < 1e-5 and p["n"] == 3 for x in c for p in x["passes"])'
answer 'abs(c[0]["passes"][0]["same_flop_gemm_ratio"] - 1) < 1e-5 and abs(c[0]["passes"][1]["same_flop_gemm_ratio"] - 3) < 1e-5'
answer 'c[2]["saved_bytes"] >= 4 * 131072 * 8 * 768 and c[2]["path"] == "hopper"'
# Without cuBLAS fractions are unknown, and it is said.
bench "" --tokens 64 --portable -n 1
answer 'r["dense_flop_per_second"] is None and c[0]["passes"][0]["same_flop_gemm_ratio"] is None and c[0]["path"] == "portable"'
said "no cuBLAS"
expect 0 env LD_LIBRARY_PATH="$B/mock" alone/moeprof bench --tokens 64
grep -qE '^qwen3-30b +64 +uniform +fwd\+bwd +1\.000 \(1\.000\.\.1\.000\) +14\.5 +3\.000 ' run.out || fail "not the table: $(cat run.out)"
# The cuBLAS of Python's wheels is found where they lie.
mkdir -p wheels/nvidia/cu13/lib && cp "$B/mock/libcublas.so.13" wheels/nvidia/cu13/lib/
expect 0 env -u LD_LIBRARY_PATH PYTHONPATH="$T/wheels" alone/moeprof bench --tokens 64 --json
answer 'r["dense_flop_per_second"] > 0'
