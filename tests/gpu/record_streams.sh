# Records what crosses the guest's border in small real trainings, for replay without a GPU:
#   B=build OUT=DIR bash tests/gpu/record_streams.sh
# OUT gets NAME.trace.zst and NAME.cells each; they belong in tests/data. `make unit` first: it builds
# $B/mock/replay. A recording that its own replay does not answer is not kept.
set -u
B=$(cd "${B:-build}" && pwd)
OUT=$(cd "${OUT:?where to}" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

# record NAME TRAINING-OPTIONS..
record() {
    local name=$1 dir=$work/$1 pid
    shift
    mkdir -m 700 "$dir"
    CUDA_INJECTION64_PATH=$B/libmoeprof.so MOEPROF="dir=$dir,trace=$work/$name.trace,steps=all" \
        ${PYTHON:-python3} "$root/samples/train_plain.py" --model qwen3-30b --vocab 16384 "$@" >"$work/$name.log" 2>&1 ||
        { cat "$work/$name.log"; bad=1; return; }
    pid=$(basename "$dir"/*.shm .shm)
    "$B/mock/replay" cells "$dir" "$pid" >"$work/$name.cells"
    "$B/mock/replay" "$work/$name.trace" >"$work/$name.replayed"
    if diff "$work/$name.cells" "$work/$name.replayed" >"$work/$name.diff"; then
        cp "$work/$name.cells" "$OUT/"
    else
        echo "$name: the replay differs in $(grep -c '^[<>]' "$work/$name.diff") lines; both answers kept"
        head -20 "$work/$name.diff"
        cp "$work/$name.diff" "$OUT/$name.diff"
        bad=1
    fi
    "$B/mock/replay" pack "$work/$name.trace" "$OUT/$name.trace.zst" || cp "$work/$name.trace" "$OUT/"
    grep '^step' "$work/$name.cells"
}

record eager --layers 1 --steps 2 --tokens 512 --experts eager
record grouped --layers 2 --steps 3 --tokens 2048 --experts grouped_mm
record lora_checkpointed --layers 2 --steps 3 --tokens 2048 --experts grouped_mm --lora --checkpointing non-reentrant
exit $bad
