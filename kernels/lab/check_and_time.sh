#!/usr/bin/env bash
# Checks, then times, the built library on this machine's GPU: kernels/lab/check_and_time.sh LIBRARY [SHAPE TOKENS]...
# A check that hangs is stopped, so that a wrong barrier does not cost the whole run.
set -u
export MOEPROF_KERNELS=$(realpath "$1") PYTHONUNBUFFERED=1
shift
root=$(dirname "$(realpath "$0")")/../..
timeout 40 python3 "$root/tests/gpu/kernels_check.py" ${CHECK-} 2>&1 | cut -c1-230
[ $# = 0 ] && set -- 2048,768,128,8 32768,4096
while [ $# -gt 1 ]; do
    timeout 40 python3 "$root/kernels/lab/steps_time.py" "$1" "$2" ${TIME--n 9}
    shift 2
done
