# A real training with torch on a machine without a GPU, attached to as if it had one: the guest says once
# what it cannot do, and the training's results, output and exit code are those without it.
. "$(dirname "$0")/common.bash"
cd "$root"
eval "$(bash tests/bridge/setup_venv.sh)"
cd "$T"
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 CUDA_VISIBLE_DEVICES=
cat >run.py <<PY
import ctypes, runpy, sys
so, options = sys.argv[1:3]
sys.path.insert(0, "$root/samples")
if so:
    assert ctypes.PyDLL(so).moeprof_attach(options.encode()) == 0
sys.argv = ["train_plain.py"] + sys.argv[3:]
runpy.run_path("$root/samples/train_plain.py", run_name="__main__")
PY
train() { "$PY5" run.py "$@" --device cpu --model tiny --steps 3 --tokens 32; }

train "" "" --print-losses alone.json >alone.out 2>alone.err
train "$B/libmoeprof.so" "dir=$T/job" --print-losses under.json >under.out 2>under.err
python3 -c 'import json
a, b = (json.load(open(name))["losses"] for name in ("alone.json", "under.json"))
assert a == b and len(a) == 3, (a, b)' || fail "other losses"
cmp alone.err under.err || fail "the guest spoke: $(cat under.err)"
pid=$(basename job/*.shm .shm)
"$B/dump_shm" job "$pid" >dump.out
grep -qE '^feature 0 state 2 no (libcupti|CUDA driver) in this process' dump.out || fail "no sentence on why there is no GPU time: $(cat dump.out)"
[ "$(grep -c '^log 2 ' dump.out)" -le 2 ] || fail "said too often: $(cat dump.out)"
