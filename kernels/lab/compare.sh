#!/usr/bin/env bash
# Checks each library against fp64 and times its steps, on this machine's GPU: kernels/lab/compare.sh LIBRARY LIBRARY...
# TOKENS and N may be set. A hang is stopped after 40 s, so that one wrong version does not cost the whole run.
set -u
export PYTHONUNBUFFERED=1
root=$(dirname "$(realpath "$0")")/../..
for lib in "$@"; do
    export MOEPROF_KERNELS=$(realpath "$lib")
    echo "== $lib"
    timeout 40 python3 "$root/tests/gpu/kernels_check.py" --path hopper 2>&1 | grep -v ' ok ' | cut -c1-230
    timeout 40 python3 "$root/kernels/lab/steps_time.py" 2048,768,128,8 "${TOKENS-32768,4096}" -n "${N-7}"
done
