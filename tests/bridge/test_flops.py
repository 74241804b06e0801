"""Model FLOPs against torch's FlopCounterMode, five families: at most 0.1 % apart after the adjustments named here.

The op table comes from hook.py's build_spec(), the count from the C code (flops_tool), rows and routing from the run.

Adjustments, each because FlopCounterMode counts what was executed, not what the definition asks for:
 1. full square: eager attention multiplies every query with every key, masked or not. So the spec's cores are
    marked non-causal and without a window for the comparison; test_causal_core checks the causal count by itself.
 2. rotary tables: cos and sin come from a product of positions with frequencies, counted there as a matmul.
    Taken off by module (it depends on the length only and is no part of the definition).
 3. half a core: where keys or values need no gradient, autograd leaves their products out. That is the case in the
    first layer only, with adapters on some of q, k, v and inputs without gradient; the spec counts that core
    whole. So the adapters here sit on all of them.
"""
import json
import os
import subprocess
import types

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

import fake_guest
import models

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("B", "build")
TOOL = os.environ.get("FLOPS_TOOL", os.path.join(ROOT, BUILD, "flops_tool"))
FAMILIES = ["qwen3_moe", "deepseek_v3", "mixtral", "gpt_oss", "glm4_moe"]
BATCH, LENGTH = 2, 24

pytestmark = [
    pytest.mark.skipif("MOEPROF_GUEST" not in os.environ and not os.path.exists(TOOL), reason="make %s/flops_tool first" % BUILD),
    pytest.mark.skipif(not models.V5, reason="the families and their routers as transformers 5 writes them"),
]


@pytest.fixture(scope="module")
def hook():
    """hook.py by itself, without a guest: nothing is installed."""
    return types.SimpleNamespace(**fake_guest.load())


def make(family, **more):
    kind, extra, *_ = models.FAMILIES[family]
    sizes = dict(hidden_size=64, intermediate_size=96, vocab_size=160)
    config = transformers.AutoConfig.for_model(kind, **{**models.COMMON, **extra, **sizes, **more})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model.train()


def step(model, batch=BATCH, length=LENGTH, mask=None):
    """One forward and backward under the counter: its total, less the rotary tables, and the chosen experts."""
    chosen = {}

    def note(layer, n):
        def after(module, args, output):
            if layer in chosen:  # a replay
                return
            index = next(part for part in (output if isinstance(output, tuple) else (output,))
                         if isinstance(part, torch.Tensor) and part.dtype == torch.int64)
            chosen[layer] = torch.bincount(index.flatten(), minlength=n).tolist()
        return after

    handles = []
    for name, module in model.named_modules():
        words = name.split(".")
        if type(module).__name__.endswith(("TopKRouter", "TopkRouter")) and "layers" in words:
            n = getattr(module, "num_experts", None) or getattr(module, "n_routed_experts", None) or module.weight.shape[0]
            handles.append(module.register_forward_hook(note(int(words[words.index("layers") + 1]), n)))
    ids = torch.randint(3, 96, (batch, length), generator=torch.Generator().manual_seed(1))
    model.zero_grad(set_to_none=True)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, attention_mask=mask).loss.backward()
    for handle in handles:
        handle.remove()
    rotary = sum(sum(ops.values()) for name, ops in counter.get_flop_counts().items() if name.endswith("rotary_emb"))
    return counter.get_total_flops() - rotary, chosen


def count(spec, tmp_path, **given):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    pairs, route = given.pop("pairs", []), given.pop("route", {})
    args = ["%s=%d" % item for item in given.items()] + ["pairs=" + one for one in pairs]
    args += ["route=%d:%s" % (layer, ",".join(map(str, route[layer]))) for layer in sorted(route)]
    out = json.loads(subprocess.run([TOOL, str(path)] + args, check=True, capture_output=True, text=True).stdout)
    assert out["skipped"] == 0
    return out


def full_square(spec):
    """Adjustment 1."""
    for layer in spec["layers"]:
        layer["attention"].update(causal=False, window=0)
    return spec


def rows(batch=BATCH, length=LENGTH):
    n, pairs = batch * length, batch * length * (length + 1) // 2
    return dict(useful=n, processed=n, head=n, segments=batch, pairs=["0:%d:%d:%d" % (pairs, pairs, length)])


def assert_close(ours, theirs):
    assert abs(ours / theirs - 1) <= 1e-3, "%d of %d: %+.3f %%" % (ours, theirs, 100 * (ours / theirs - 1))


def spec_of(hook, model):
    return json.loads(json.dumps(hook.build_spec(model)))


@pytest.mark.parametrize("family", FAMILIES)
def test_full_finetune(hook, tmp_path, family):
    model = make(family)
    theirs, chosen = step(model)
    ours = count(full_square(spec_of(hook, model)), tmp_path, route=chosen, **rows())
    assert ours["model"]["basis"] == "measured" and len(chosen) == len(models.expectation(family)[0])
    assert_close(ours["model"]["flop"], theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_routing_counts(hook, tmp_path, family):
    """top_k for every token is what these routers do, so the model is as good as the counts."""
    model = make(family)
    theirs, _ = step(model)
    ours = count(full_square(spec_of(hook, model)), tmp_path, **rows())
    assert ours["model"]["basis"] == "modelled"
    assert_close(ours["model"]["flop"], theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_experts(hook, tmp_path, family):
    model = make(family)
    for name, p in model.named_parameters():
        p.requires_grad = "experts" not in name
    theirs, chosen = step(model)
    ours = count(full_square(spec_of(hook, model)), tmp_path, route=chosen, **rows())
    assert_close(ours["model"]["flop"], theirs)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("inputs", [False, True], ids=["first_layer_stops", "inputs_require_grads"])
def test_lora_on_attention(hook, tmp_path, family, inputs):
    peft = pytest.importorskip("peft")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]  # adjustment 3
    if family == "deepseek_v3":
        targets = ["q_a_proj", "kv_a_proj_with_mqa", "o_proj"]
    model = make(family)
    if inputs:
        model.enable_input_require_grads()
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=targets, lora_dropout=0.0))
    theirs, chosen = step(model)
    ours = count(full_square(spec_of(hook, model)), tmp_path, route=chosen, **rows())
    assert_close(ours["model"]["flop"], theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_tied_embeddings(hook, tmp_path, family):
    model = make(family, tie_word_embeddings=True)
    theirs, chosen = step(model)
    spec = spec_of(hook, model)
    assert spec["model"]["tied_embeddings"] is True
    assert_close(count(full_square(spec), tmp_path, route=chosen, **rows())["model"]["flop"], theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_phases_in_proportion(hook, tmp_path, family):
    """Expert matmuls by themselves: theirs from the counter's rows of the experts modules, forward."""
    model = make(family)
    _, chosen = step(model)
    ids = torch.randint(3, 96, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids)
    experts = sum(sum(ops.values()) for name, ops in counter.get_flop_counts().items() if name.endswith(".experts"))
    ours = count(spec_of(hook, model), tmp_path, route=chosen, **rows())
    forward = next(p for p in ours["phases"] if (p["phase"], p["pass"]) == ("expert", "forward"))
    assert_close(forward["model"], experts)


@pytest.mark.parametrize("family", FAMILIES)
def test_causal_core(hook, tmp_path, family):
    """Adjustment 1 by itself: causal against square differ by exactly the pairs that the mask hides."""
    spec = spec_of(hook, make(family))
    for layer in spec["layers"]:
        layer["attention"]["window"] = 0
    causal = count(spec, tmp_path, **rows())["model"]["flop"]
    square = count(full_square(spec), tmp_path, **rows())["model"]["flop"]
    hidden = BATCH * (LENGTH * LENGTH - LENGTH * (LENGTH + 1) // 2)
    one = sum(2 * layer["attention"]["heads"] * (layer["attention"]["d_qk"] + layer["attention"]["d_v"])
              for layer in spec["layers"])
    assert square - causal == 3 * one * hidden


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_executed(hook, tmp_path, family, checkpointing):
    """The numerator of HFU needs no adjustment 1: eager attention is counted as what it runs, padding and replays too."""
    model = make(family)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": True})
        model.enable_input_require_grads()
    mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
    mask[1, LENGTH // 2:] = 0
    theirs, chosen = step(model, mask=mask)
    spec = spec_of(hook, model)
    assert spec["model"]["checkpointing"] == ("reentrant" if checkpointing else "none")
    given = rows()
    given.update(useful=int(mask.sum()), pairs=["%d:100:%s" % (window, given["pairs"][0].split(":", 2)[2])
                                                for window in sorted({a["attention"]["window"] for a in spec["layers"]} | {0})])
    ours = count(spec, tmp_path, route=chosen, **given)
    assert_close(ours["executed"]["flop"], theirs)
    assert ours["model"]["flop"] < ours["executed"]["flop"] and ours["model"]["basis"] == "apportioned"


def test_tool_refuses(tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("[]")
    assert subprocess.run([TOOL, str(bad)], capture_output=True).returncode == 2
    assert subprocess.run([TOOL], capture_output=True).returncode == 2
    bad.write_text("{}")
    assert subprocess.run([TOOL, str(bad), "nonsense=1"], capture_output=True).returncode == 2
