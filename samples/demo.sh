# make demo: sets up, builds and runs the main job. On a GPU a real MoE training under moeprof; without
# one the bundled recording of an H100 run, through the same code. Ends in a report.
# B: build folder. MOEPROF_NO_SETUP=1: install nothing. PYTHON: the interpreter that has torch.
set -e
B=${B:-build}
PYTHON=${PYTHON:-python3}
say() { printf '\n== %s\n' "$1"; }

say "set-up and build"
[ -n "$MOEPROF_NO_SETUP" ] || B="$B" sh tests/tools/setup.sh
make B="$B" all

gpu_torch() {
    "$PYTHON" - <<'PY' 2>/dev/null
import sys, torch, transformers
sys.exit(not torch.cuda.is_available() or torch.cuda.get_device_properties(0).total_memory < 40e9)
PY
}

if nvidia-smi -L >/dev/null 2>&1 && gpu_torch; then
    say "a Qwen3-30B-A3B-shaped MoE (2 of 48 layers), eager experts loop, 10 steps"
    "$B/moeprof" run -o "$B/demo-eager.moeprof" -- "$PYTHON" samples/train_plain.py \
        --model qwen3-30b --layers 2 --experts eager --steps 10
    say "the same layers with transformers' grouped_mm, 24 steps"
    "$B/moeprof" run -o "$B/demo.moeprof" -- "$PYTHON" samples/train_plain.py \
        --model qwen3-30b --layers 8 --experts grouped_mm --steps 24
    file=$B/demo.moeprof
else
    say "no GPU with 40 GB and torch here: the recording of an H100 run instead"
    file=samples/profiles/qwen3-30b-grouped_mm.moeprof
    "$B/moeprof" top --replay "$file" --once --no-color
fi
say "report of $file"
"$B/moeprof" report "$file"
say "next: $B/moeprof top --replay $file     $B/moeprof report --help"
