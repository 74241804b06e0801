#!/bin/bash
# compute-sanitizer over small cases of every kind, on both paths. Needs a GPU, compute-sanitizer and $B/kernels_small.
# initcheck (2025.3.1) does not see what TMA stores: the cases write NaN to such rows first, so that it is silent and a lost store is not.
#     bash tests/gpu/kernels_sanitize.sh [TOOL ...]     memcheck racecheck synccheck initcheck
# SANITIZER: the program, where it is not in the path. PATHS: "hopper portable". WORD: cases whose name has it, "rank 4".
# LIMIT_S: seconds for one tool on one path.
set -u
B=${B:-build}
sanitizer=${SANITIZER:-$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)}
if ! [ -x "$sanitizer" ] || ! [ -x "$B/kernels_small" ]; then
    echo "kernels_sanitize: $sanitizer or $B/kernels_small is missing: make kernels, and set SANITIZER" >&2
    exit 2
fi
log=$(mktemp)
bad=0
for tool in ${*:-memcheck racecheck synccheck initcheck}; do
    for path in ${PATHS:-hopper portable}; do
        flag=$([ "$path" = portable ] && echo --portable)
        begin=$(date +%s)
        timeout "${LIMIT_S:-60}" "$sanitizer" --tool "$tool" --error-exitcode 9 --print-limit 10 \
            "$B/kernels_small" --checked "${WORD-}" $flag >"$log" 2>&1
        rc=$?
        echo "$tool, $path: $(grep -c '^ok' "$log") cases, $(($(date +%s) - begin)) s, $([ $rc = 0 ] && echo clean || echo "FAIL, exit code $rc")"
        [ $rc = 0 ] || { bad=1; grep -v '^=* *$' "$log" | head -40; }
    done
done
rm -f "$log"
exit $bad
