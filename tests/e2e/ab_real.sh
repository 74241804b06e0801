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
if "fragile" in sys.argv:
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    calls = []
    def fragile(module, hidden_states, top_k_index, top_k_weights):
        calls.append(1)
        if len(calls) > 20:
            raise torch.cuda.OutOfMemoryError("there is no memory for this")
        return type(module).__dict__["forward"].__wrapped__(module, hidden_states, top_k_index, top_k_weights)
    ALL_EXPERTS_FUNCTIONS.register("fragile", fragile)
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
expect 0 moeprof ab --arms original,moeprof,eager,padded_bmm,equal_bmm,scattermoe,nothing --blocks 2 --end-job --json -o a.moeprof -- "$PY5" train.py
python3 "$root/tests/e2e/json_schema.py" "$root/report/schema/ab.schema.json" run.out
python3 -c '
import json
r = json.load(open("run.out"))
assert [a["status"] for a in r["arms"]] == ["measured"] * 5 + ["refused"] * 2, r["arms"]
assert "no package scattermoe" in r["arms"][5]["why"] and "grouped_mm, sonicmoe, padded_bmm, equal_bmm, reduce-overhead" in r["arms"][6]["why"], r["arms"]
assert r["parity"]["status"] == "passed" and len(r["parity"]["rows"]) == 8 and r["parity"]["worst_ratio"] < 2, r["parity"]
assert all(1 - 1e-9 < r["parity"][k]["value"] <= 1 for k in ("output_cosine", "gradient_cosine")), r["parity"]
assert [(x["repeats"], x["own_repeats"]) for x in r["parity"]["rows"]] == [(True, True), (None, None)] * 4, r["parity"]
assert len(r["run"]["config_hash"]) == 16 and r["training"]["torch_seed"] == "0" and r["training"]["seed"] is None, r["training"]
assert r["training"]["is_deterministic"] is False and r["method"]["agent_cpu_ratio"] > 0, r["method"]
assert r["method"]["is_untraced"] and len(r["blocks"]) == 16 and not any(b["is_cut"] for b in r["blocks"]), r["blocks"]
assert all(a["step_seconds"] > 0 for a in r["arms"][:5]) and r["speedup"]["verdict"] == "inconclusive"
assert all(3 < b["loss"] < 6 and b["saved_activations_bytes"] is None for b in r["blocks"]), r["blocks"]
assert all(abs(a["figures"]["loss"] - r["arms"][0]["figures"]["loss"]) < 0.2 for a in r["arms"][:5])
assert r["training"]["processed_tokens"] == 24 and r["training"]["micro_batches"] == 1, r["training"]
assert r["speedup"]["unit"] == "model FLOP", r["speedup"]' || fail "not as expected"

# An arm that fails in the middle of the job: the job goes on, the arm is out, the others are measured.
expect 4 moeprof ab --arms original,fragile,moeprof --blocks 2 --seed 1 --end-job --json -o b.moeprof -- "$PY5" train.py fragile
python3 -c '
import json
r = json.load(open("run.out"))
assert [a["status"] for a in r["arms"]] == ["measured", "reverted", "measured"], r["arms"]
assert "no memory for this" in r["arms"][1]["why"] and r["method"]["ended_early"] is None, r["method"]
assert r["arms"][2]["speedup"]["pairs"] == 2' || fail "a failing arm: not as expected"

# Somebody else swaps while the blocks run: what was measured until then is told, and why it ended.
moeprof ab --arms original,eager --blocks 200 --end-job --json -o c.moeprof -- "$PY5" train.py >c.out 2>c.err &
watch=$!
begun() { [ "$(sql c.moeprof 'SELECT count(*) FROM block_ab')" -ge 2 ]; }
wait_for 120 begun
pid=$(sed -n 's/.*recording process \([0-9]*\).*/\1/p' c.err)
expect 0 moeprof swap "$pid" on
wait $watch || [ $? -eq 3 ] || fail "exit code of a before/after that another tool ended"
python3 -c '
import json
r = json.load(open("c.out"))
assert "another tool swapped in" in r["method"]["ended_early"], r["method"]' || fail "the other tool is not told"
