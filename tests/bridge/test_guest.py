"""The same jobs under the real guest library, told by what it publishes. MOEPROF_GUEST=path of libmoeprof.so.

Each job runs in a process of its own; build/dump_shm prints what is in its shared memory after it ended.
"""
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import models

GUEST = os.environ.get("MOEPROF_GUEST", "")
DUMP = pathlib.Path(GUEST).parent / "dump_shm"
HERE = pathlib.Path(__file__).resolve().parent
SAMPLES = HERE.parents[1] / "samples"
sys.path.insert(0, str(SAMPLES))

pytestmark = pytest.mark.skipif(not GUEST, reason="MOEPROF_GUEST is not set")

JOB = """
import copy, gc, json, os, sys, time, weakref
import torch
import common, models, swap_client
guest, folder, family, what, out = arguments
if guest:
    swap_client.attach(folder)
torch.set_num_threads(1)
model = models.make(family)
if "reentrant" in what:
    model.gradient_checkpointing_enable({"use_reentrant": what == "reentrant"})
    model.enable_input_require_grads()
routing = common.Routing(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
generator = torch.Generator().manual_seed(3)
losses = []
for _ in range(3):
    for _ in range(2):
        ids = torch.randint(3, 96, (2, 12), generator=generator)
        inputs = {"input_ids": ids, "labels": ids}
        if what == "padded":
            mask = torch.ones(2, 12, dtype=torch.long)
            mask[0, 7:] = 0
            inputs.update(attention_mask=mask, labels=ids.masked_fill(mask == 0, -100))
        if what == "packed":
            inputs["position_ids"] = torch.cat([torch.arange(5), torch.arange(4), torch.arange(3)]).repeat(2, 1)
        loss = model(**inputs).loss
        loss.backward()
        losses.append(loss.item())
    optimizer.step()
    optimizer.zero_grad()
    routing.end_step()
rows = [{int(n.split(".layers.")[1].split(".")[0]): c.tolist() for n, c in step.items()} for step in routing.steps]
twin = copy.deepcopy(model)
alive = [weakref.ref(module) for module in model.modules()]
del model, loss  # a reentrant checkpoint's node holds its layer
gc.collect()
kept = sum(ref() is not None for ref in alive)
if guest:
    time.sleep(0.5)
json.dump({"losses": losses, "routing": rows, "pid": os.getpid(), "kept": kept}, open(out, "w"))
"""


JOBS = [("qwen3_moe", "plain"), ("deepseek_v3", "non-reentrant"), ("gpt_oss", "padded"), ("qwen3_moe", "packed")]
if models.V5:
    JOBS += [("qwen3_moe", "reentrant"), ("deepseek_v3", "padded"), ("granitemoe", "plain")]


def run_alone(folder, family, what):
    """Without a guest, here."""
    out = folder / "alone.json"
    exec(JOB, {"arguments": ("", "", family, what, str(out))})
    return json.loads(out.read_text())


def run_under(folder, family, what):
    out = folder / "under.json"
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(HERE), str(SAMPLES)]), OMP_NUM_THREADS="1")
    text = "import sys\narguments = sys.argv[1:]\n" + JOB
    subprocess.run([sys.executable, "-c", text, GUEST, str(folder), family, what, str(out)], check=True, env=env)
    return json.loads(out.read_text())


def published(folder, pid):
    text = subprocess.run([str(DUMP), str(folder), str(pid), "all"], check=True, capture_output=True, text=True).stdout
    records = {"MICRO": [], "PAIRS": [], "ROUTE": {}, "STEP": [], "spec": None}
    for line in text.splitlines():
        word = line.split(" ")[0]
        numbers = [int(n) for n in re.findall(r"-?\d+", line)]
        if word in ("MICRO", "PAIRS", "STEP"):
            records[word].append(numbers)
        elif word == "ROUTE":
            step, layer, first, n, *counts = numbers
            records["ROUTE"].setdefault((step, layer), {}).update(zip(range(first, first + n), counts))
        elif word == "SPEC":
            records["spec"] = json.loads(line[5:])
    return records


@pytest.mark.parametrize("family, what", JOBS)
def test_job(tmp_path, family, what):
    tmp_path.chmod(0o700)
    truth = run_alone(tmp_path, family, what)
    job = run_under(tmp_path, family, what)
    assert job["losses"] == truth["losses"] and job["kept"] == 0
    seen = published(tmp_path, job["pid"])
    for step, rows in enumerate(truth["routing"]):
        for layer, counts in rows.items():
            row = seen["ROUTE"][step, int(layer)]
            assert [row[e] for e in range(len(counts))] == counts
    assert len(seen["STEP"]) == 3 and all(step[3] == 2 for step in seen["STEP"])
    useful, trainable = (19, 19) if what == "padded" else (24, 24)
    segments = 6 if what == "packed" else 2
    assert [micro[:4] + micro[5:6] for micro in seen["MICRO"]] == [[step, 24, useful, trainable, segments]
                                                                   for step in (0, 0, 1, 1, 2, 2)]
    full = {"padded": 28 + 78, "packed": 2 * (15 + 10 + 6)}.get(what, 156)
    windows = {entry[1]: entry[2:4] for entry in seen["PAIRS"]}
    assert windows[0] == [full, 156]
    if family == "gpt_oss":
        assert windows[8] == [28 + (12 * 8 - 28), 2 * (12 * 8 - 28)]
    assert seen["spec"]["model"]["family"] == family
