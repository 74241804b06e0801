# A before/after of a real training: torch and transformers on the CPU, the real guest, its own swap, its
# parity check and its reference kernels. There is no GPU time to see, so times are the host's.
. "$(dirname "$0")/common.bash"
cd "$root"
eval "$(bash tests/bridge/setup_venv.sh)"
cd "$T"
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 CUDA_VISIBLE_DEVICES=
cat >train.py <<PY
import ctypes, os, sys
ctypes.PyDLL(os.environ["CUDA_INJECTION64_PATH"]).moeprof_attach((os.environ["MOEPROF"] + ",cuda=none").encode())
sys.path.insert(0, "$root/tests/bridge")
import torch, models
torch.set_num_threads(1)
model = models.make("qwen3_moe")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
generator = torch.Generator().manual_seed(3)
try:
    for step in range(20000):
        ids = torch.randint(3, 96, (2, 12), generator=generator)
        models.loss_of(model(input_ids=ids, labels=ids)).backward()
        optimizer.step()
        optimizer.zero_grad()
except KeyboardInterrupt:
    pass
PY
expect 0 moeprof ab --arms original,moeprof,eager,nothing --blocks 2 --end-job --json -o a.moeprof -- "$PY5" train.py
python3 "$root/tests/e2e/json_schema.py" "$root/report/schema/ab.schema.json" run.out
python3 -c '
import json
r = json.load(open("run.out"))
assert [a["status"] for a in r["arms"]] == ["measured"] * 3 + ["refused"], r["arms"]
assert r["parity"]["status"] == "passed" and len(r["parity"]["rows"]) == 4 and r["parity"]["worst_ratio"] < 2, r["parity"]
assert r["method"]["is_untraced"] and len(r["blocks"]) == 8 and not any(b["is_cut"] for b in r["blocks"]), r["blocks"]
assert all(a["step_seconds"] > 0 for a in r["arms"][:3]) and r["speedup"]["verdict"] == "inconclusive"
assert r["speedup"]["unit"] == "model FLOP", r["speedup"]' || fail "not as expected"
