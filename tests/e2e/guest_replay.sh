# What a job publishes, and what its trace leads to when it is replayed, is the same: for a made-up job,
# traced here, and for the recorded ones in tests/data (real H100 runs: tests/gpu/record_streams.sh).
. "$(dirname "$0")/common.bash"
job="$B/mock/job" replay="$B/mock/replay"

# traced NAME JOB-OPTIONS..: runs a job and compares
traced() {
    local name=$1 pid
    shift
    mkdir -m 700 "$name"
    MOEPROF="dir=$T/$name,trace=$T/$name.trace,steps=all" "$job" "$@" 2>"$name.err" &
    pid=$!
    wait $pid || fail "the job of '$name' failed"
    "$replay" cells "$name" $pid >"$name.cells"
    "$replay" "$name.trace" >"$name.replayed" 2>>"$name.err"
    diff "$name.cells" "$name.replayed" || fail "$name: the replay differs"
}
traced fast steps=8
traced slow steps=3 pause=150
grep -q "^step 7 flags 1 launches 205 records 205 .* routed 40 " fast.cells || fail "the job is not as it was"
grep -q "^L1 expert recompute E3 measured" fast.cells || fail "no replayed checkpoint"
! grep -q "^L.* other .* unknown" fast.cells || fail "time without a phase"

"$replay" pack fast.trace fast.zst 2>/dev/null
"$replay" fast.zst | diff fast.cells - || fail "a packed trace differs"
[ "$(stat -c %a fast.trace)" = 600 ] || fail "a trace is its owner's alone"

# Not a trace, cut anywhere, empty: a sentence, no crash.
for n in 0 7 8 100 5000 20000; do
    head -c $n fast.trace >cut
    expect 1 "$replay" cut
    [ -s run.err ] || fail "no sentence for $n bytes"
done
expect 1 "$replay" "$B/mock/libc10.so"

for f in "$root"/tests/data/*.trace.zst; do
    [ -e "$f" ] || continue
    "$replay" "$f" | diff "${f%.trace.zst}.cells" - || fail "$f: not the recorded answer"
done
