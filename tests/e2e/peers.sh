# kernels/lab/peers.py without a GPU: arms that run on a CPU are right, those that are missing are named, nothing is timed.
. "$(dirname "$0")/common.bash"

eval "$(bash "$root/tests/bridge/setup_venv.sh")"
peers() { env MOEPROF_KERNELS="$B/libmoeprof_kernels.so" CUDA_VISIBLE_DEVICES= PYTHONDONTWRITEBYTECODE=1 "$PY5" "$root/kernels/lab/peers.py" "$@"; }
expect 1 peers
said "no GPU here"
for arm in moeprof eager grouped_mm; do
    grep -q "^$arm: relative errors .*ddn [0-9.e-]*$" run.out || fail "$arm does not run, or is wrong: $(cat run.out)"
done
for arm in scattermoe liger sonicmoe megablocks unsloth; do
    grep -q "^$arm: " run.out || fail "not a word of $arm"
done
"$PY5" -c 'import scattermoe' 2>/dev/null || grep -q "^scattermoe: missing: ModuleNotFoundError" run.out || fail "ScatterMoE is not named as missing"
expect 2 peers --shapes zork
said "unknown: zork"
[ "$(env PYTHONPATH="$root/kernels/lab" PYTHONDONTWRITEBYTECODE=1 MOEPROF_KERNELS="$B/libmoeprof_kernels.so" "$PY5" -c 'import peers; print(len(peers.shapes()), peers.shapes()["qwen3-30b"])')" = "24 (2048, 768, 128, 8)" ] ||
    fail "shapes are not those of shapes.h"
