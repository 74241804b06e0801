# The Python bridge on CPU tensors: real torch, both transformers lines, the real guest library.
# MORE_PYTHONS="PATH.." adds interpreters that have torch, transformers, peft, accelerate and pytest.
set -e
B=${B:-build}
eval "$(bash tests/bridge/setup_venv.sh)"   # sets PY5 and PY457
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
for py in "$PY5" "$PY457" $MORE_PYTHONS; do
    MOEPROF_GUEST="$PWD/$B/libmoeprof.so" "$py" -m pytest -q -x -p no:cacheprovider tests/bridge
done
