# The Python bridge on CPU tensors: real torch, both transformers lines, the real guest library.
# MORE_PYTHONS="PATH.." adds interpreters that have torch, transformers, peft, accelerate and pytest.
set -e
B=${B:-build}
eval "$(bash tests/bridge/setup_venv.sh)"   # sets PY5 and PY457
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
export MOEPROF_GUEST="$PWD/$B/libmoeprof.so"
pythons=("$PY5" "$PY457" $MORE_PYTHONS)

tests() { "$1" -m pytest -q -x -p no:cacheprovider "${@:2}"; }

# All interpreters at once, each with a log; test_swap.py, which keeps every processor busy by itself, in turns.
running=()
for i in "${!pythons[@]}"; do
    tests "${pythons[$i]}" tests/bridge --ignore=tests/bridge/test_swap.py >"$B/bridge_$i.log" 2>&1 &
    running+=($!)
done
bad=0
for i in "${!pythons[@]}"; do
    wait "${running[$i]}" || bad=1
    cat "$B/bridge_$i.log"
done
[ $bad = 0 ]
for py in "${pythons[@]}"; do
    tests "$py" tests/bridge/test_swap.py
done
