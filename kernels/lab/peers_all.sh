#!/usr/bin/env bash
# The whole comparison with other implementations: first what they compile at first use, a process a shape, all at once (Liger
# 200 candidates a shape, SonicMoE four minutes); then the times, with the GPU to themselves. On one GPU, from the repository root:
#   bash kernels/lab/peers_all.sh OUT_DIR SECONDS     MOEPROF_KERNELS: the library; PYTHON: the interpreter
# OUT_DIR gets named.json and sonic.json; given again, cases are timed again and count as they were the last time.
set -u
out=$1 limit_s=$2
py=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 QUACK_CACHE_DIR=${QUACK_CACHE_DIR:-$out/quack} TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$out/triton}
mkdir -p "$out"
peers() { # log seconds argument..
    local log=$1 seconds=$2
    shift 2
    timeout $((seconds + 30)) "$py" kernels/lab/peers.py --seconds "$seconds" "$@" >>"$out/$log.log" 2>&1
}

# Small ones first, those of the two lists by turns: what time is left for is spread over both.
named="qwen3-30b olmoe ernie21b qwen3-next gptoss20b dots1 glm45-air gptoss120b qwen3-235b glm45 mixtral dsv3"
twelve="s7b-n256 s1.4b-n512 s30b-n512 s7b-n1024 s120b-n1024 s1.4b-n256 s30b-n256 s7b-n512 s1.4b-n1024 s30b-n1024 s120b-n512 s120b-n2048"
mixed=$(paste -d, <(tr ' ' '\n' <<<"$named") <(tr ' ' '\n' <<<"$twelve") | paste -sd,)

peers warm_sonicmoe $((limit_s / 2)) --arms sonicmoe --shapes qwen3-30b --tokens 4096 -n 1 &
for shapes in "${named% dsv3}" dsv3; do # not all at once: their weights and gradients would not fit one card
    for shape in $shapes; do
        peers "warm_liger_$shape" $((limit_s / 2 - SECONDS)) --arms liger --shapes "$shape" --tokens 4096 -n 1 &
    done
    wait
done
echo "compiled: $SECONDS s"
peers named $(((limit_s - SECONDS) / 2)) --arms moeprof,grouped_mm,scattermoe,liger --shapes "${named// /,}" --tokens 4096,32768 -n 5 --json "$out/named.json"
echo "named: $SECONDS s"
for tokens in 32768,4096 8192,1024; do
    left=$((limit_s - SECONDS - 30))
    [ $left -lt 20 ] || peers sonic $left --arms moeprof,sonicmoe --shapes "$mixed" --tokens $tokens -n 5 --json "$out/sonic.json"
done
echo "sonic: $SECONDS s"
grep -h ': missing:\|failed here\|out of time' "$out"/*.log | sort -u
for table in named sonic; do
    [ -s "$out/$table.json" ] || continue
    "$py" kernels/lab/peers_table.py "$out/$table.json"
done
