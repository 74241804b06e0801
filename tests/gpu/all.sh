# Every check and figure that needs a GPU, one after the other, within a time: bash tests/gpu/all.sh SECONDS OUT_DIR [TABLE [NAME...]]
# TABLE (default tests/gpu/all.txt) has a row a part: name, seconds that it takes at most, command. A part is left out where
# too little time is left, and where OUT_DIR says that it was done; so the same line, given again, goes on. A part's output is
# OUT_DIR/NAME.log. Names: only these. Exit code 1 if one failed, 3 if some were left out.
set -u
limit_s=$1 out=$2 table=${3:-tests/gpu/all.txt}
shift $(($# < 3 ? $# : 3))
mkdir -p "$out"
out=$(realpath "$out")
B=$(realpath "${B:-build}")
export OUT=$out B PYTHONUNBUFFERED=1 PY=${PYTHON:-python3} MOEPROF_GUEST=$B/libmoeprof.so MOEPROF_KERNELS=$B/libmoeprof_kernels.so
code=0

run_part() { # name seconds command
    local begin=$SECONDS rc
    timeout "$2" bash -c "$3" >"$out/$1.log" 2>&1 </dev/null
    rc=$?
    [ $rc = 124 ] || echo "$rc" >"$out/$1.done"
    printf '%-18s %4d s  %s\n' "$1" $((SECONDS - begin)) "$([ $rc = 0 ] && echo ok || { [ $rc = 124 ] && echo 'FAIL: took too long' || echo "FAIL, exit code $rc"; })"
    [ $rc = 0 ] || { code=1; tail -5 "$out/$1.log" | cut -c1-200; }
}

while read -r name seconds command; do
    case $name in '' | '#'*) continue ;; esac
    if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then
        continue
    elif [ -e "$out/$name.done" ]; then
        printf '%-18s         done before, exit code %s\n' "$name" "$(cat "$out/$name.done")"
        [ "$(cat "$out/$name.done")" = 0 ] || code=1
    elif [ $((limit_s - SECONDS)) -lt "$seconds" ]; then
        printf '%-18s         left out: needs %s s of %s left\n' "$name" "$seconds" $((limit_s - SECONDS))
        [ $code = 1 ] || code=3
    else
        run_part "$name" "$seconds" "$command"
    fi
done <"$table"
exit $code
