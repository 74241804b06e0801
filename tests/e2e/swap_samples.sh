# The samples under moeprof run --swap, on the CPU and without a network: full fine-tune, LoRA, trl, transformers 4.57.
# There is no CUDA whose start lets the guest in, so each enters itself as CUDA would have it.
. "$(dirname "$0")/common.bash"
cd "$root"
eval "$(bash tests/bridge/setup_venv.sh)"
cd "$T"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 CUDA_VISIBLE_DEVICES=
cat >enter.py <<PY
import ctypes, os, runpy, sys
library = ctypes.PyDLL(os.environ["CUDA_INJECTION64_PATH"])
sys.argv[:] = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
library.moeprof_attach((os.environ["MOEPROF"] + ",cuda=none").encode())
scope = runpy.run_path(sys.argv[0])
held = []
common = sys.modules["common"]
make = common.make_model
common.make_model = lambda args: held.append(make(args)) or held[-1]  # alive when it is looked at
scope["main"]()
import gc, torch
arms = [getattr(m.__dict__.get(name), "moeprof_arm", None) for m in gc.get_objects() if isinstance(m, torch.nn.Module)
        for name in ("forward", "moe")]
print("swapped layers:", sum(arm == "moeprof" for arm in arms))
PY
swapped() { # python, sample, options..
    moeprof run --swap -o s.moeprof -- "$1" enter.py "$root/samples/$2" --device cpu --steps 12 "${@:3}" >run.out 2>run.err || true
    grep -qx 'swapped layers: 2' run.out || { cat run.out run.err; fail "was not swapped: $2 ${*:3}"; }
}
swapped "$PY5" train_plain.py
swapped "$PY5" train_trainer.py --lora experts
swapped "$PY5" swap_trl.py
swapped "$PY457" train_plain.py
swapped "$PY457" train_plain.py --lora
