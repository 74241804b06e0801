"""Is every family recognised: which scopes are entered in which order, and the facts of the spec."""
import pytest
import torch

import fake_guest
import models

FLAT = ("gemma4", "granitemoeshared")  # experts, or a shared one, directly in the decoder layer
MOE = [name for name in models.FAMILIES if models.expectation(name)[0]]


def collapsed(scopes):
    """Without repetitions in a row: a ModuleList enters one scope for each expert."""
    return [scope for i, scope in enumerate(scopes) if i == 0 or scopes[i - 1] != scope]


def first_forward(guest):
    end = next(i for i, event in enumerate(guest.events) if event[0] == "micro_end")
    return collapsed([event[1:4] for event in guest.events[:end] if event[0] == "enter"])


@pytest.mark.parametrize("family", sorted(models.FAMILIES))
def test_scopes_in_order(guest, family):
    models.train(models.make(family), steps=1)
    scopes = first_forward(guest)
    moe_layers, experts, _ = models.expectation(family)
    assert not guest.off
    assert scopes[0] == (-1, "embed", 1) and scopes[-2:] == [(-1, "norm", 1), (-1, "lm_head", 1)]
    for layer in range(2):
        mine = [scope for scope in scopes if scope[0] == layer]
        assert mine[0] == (layer, "other", 1)
        assert [phase for _, phase, depth in mine if depth == 2][:3] == ["norm", "attention", "norm"]
        inside = [phase for _, phase, depth in mine if depth == 3 or family in FLAT and depth == 2]
        if layer in moe_layers:
            assert "router" in inside and inside.count("expert") >= 1
            assert family == "gemma4" or (layer, "router", 2) in mine
            assert inside.index("router") < len(inside) - 1 - inside[::-1].index("expert")
            shared = guest.spec["layers"][layer]["shared"]
            assert ("shared_expert" in inside) == bool(shared)
        else:
            assert mine[-1] == (layer, "dense_mlp", 2) and not inside


@pytest.mark.parametrize("family", sorted(models.FAMILIES))
def test_every_scope_is_left(guest, family):
    models.train(models.make(family), steps=2)
    depth = 0
    for event in guest.events:
        if event[0] == "enter":
            assert event[3] > 0
            depth += 1
        elif event[0] == "leave":
            depth -= 1
        elif event[0] == "micro_end":
            assert depth == 0


@pytest.mark.parametrize("family", MOE)
def test_expert_facts(guest, family):
    models.train(models.make(family), steps=1)
    layers, experts, top_k = models.expectation(family)
    spec = guest.spec
    assert (spec["experts"]["n"], spec["experts"]["top_k"]) == (experts, top_k)
    assert [layer["index"] for layer in spec["layers"] if layer["kind"] == "moe"] == list(layers)
    assert spec["model"]["is_moe"] and spec["model"]["n_layers"] == 2
    assert spec["model"]["params_active"] < spec["model"]["params_total"]
    frozen = 8 if family == "ernie4_5_moe" else 0  # its correction bias
    assert spec["model"]["params_trainable"] == spec["model"]["params_total"] - frozen
    transposed = family in ("gpt_oss", "llama4")
    stacked = models.V5 or transposed or family == "granitemoe"
    assert spec["experts"]["layout"] == ("stacked_transposed" if transposed else "stacked" if stacked else "modulelist")
    dispatching = models.V5 and family != "llama4"
    assert (spec["experts"]["backend"], spec["experts"]["backend_basis"]) == (
        ("grouped_mm", "declared") if dispatching else ("eager", "structure"))


@pytest.mark.parametrize("family", MOE)
def test_expert_matmuls(guest, family):
    """Two or three matmuls an assignment; in and out as the configuration says."""
    model = models.make(family)
    models.train(model, steps=1)
    layers, _, _ = models.expectation(family)
    config = model.config
    inner = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    ops = [op for op in guest.spec["ops"] if op["phase"] == "expert"]
    assert {op["layer"] for op in ops} == set(layers) and {op["per"] for op in ops} == {"assignment"}
    one = [(op["in"], op["out"]) for op in ops if op["layer"] == layers[-1]]
    assert sorted(one) in (sorted([(32, 2 * inner), (inner, 32)]), sorted([(32, inner), (32, inner), (inner, 32)]))
    assert all(op["dgrad"] and op["wgrad"] and not op["lora"] for op in guest.spec["ops"])


def test_mla(guest):
    models.train(models.make("deepseek_v3"), steps=1)
    names = [op["name"] for op in guest.spec["ops"] if op["layer"] == 1 and op["phase"] == "attention"]
    assert names == ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]
    assert guest.spec["layers"][1]["attention"] == dict(heads=4, d_qk=12, d_v=6, window=0, causal=True, dgrad=True)


def test_grouped_query_attention(guest):
    models.train(models.make("qwen3_moe"), steps=1)
    sizes = {op["name"]: (op["in"], op["out"]) for op in guest.spec["ops"] if op["layer"] == 0}
    assert sizes["q_proj"] == (32, 32) and sizes["k_proj"] == sizes["v_proj"] == (32, 16)


def test_shared_expert_gate(guest):
    models.train(models.make("qwen2_moe"), steps=1)
    shared = {op["name"] for op in guest.spec["ops"] if op["layer"] == 0 and op["phase"] == "shared_expert"}
    assert shared == {"gate_proj", "up_proj", "down_proj", "shared_expert_gate"}


def test_dense_model_says_so(guest):
    models.train(models.make("llama"), steps=1)
    assert guest.spec["experts"] is None and not guest.spec["model"]["is_moe"]
    assert "no experts found" in guest.spec["notes"][0]
    assert {op["phase"] for op in guest.spec["ops"]} == {"attention", "dense_mlp", "lm_head"}


def test_windows_differ_by_layer(guest):
    models.train(models.make("gpt_oss"), steps=1)
    assert [layer["attention"]["window"] for layer in guest.spec["layers"]] == [8, 0]
    assert {entry[1] for entry in guest.pairs_seen} == {0, 8}


@pytest.mark.parametrize("tied", [False, True])
def test_tied_head_is_counted_once(guest, tied):
    model = models.make("qwen3_moe", tie_word_embeddings=tied)
    models.train(model, steps=1)
    heads = [op for op in guest.spec["ops"] if op["phase"] == "lm_head"]
    assert [(op["in"], op["out"], op["per"]) for op in heads] == [(32, 96, "head_row")]
    assert guest.spec["model"]["tied_embeddings"] is tied
    registered = {entry[3] for entry in guest.ranges if entry[2] == -1}
    assert ("lm_head" in registered) == ("embed" in registered) == (not tied)


def test_ranges_cover_the_weights(guest):
    model = models.make("qwen2_moe")
    models.train(model, steps=1)
    known = {entry[0]: entry for entry in guest.ranges}
    for name, p in model.named_parameters():
        entry = known[p.data_ptr()]
        assert entry[1] == p.numel() * p.element_size()
        if "layers." in name:
            assert entry[2] == int(name.split("layers.")[1].split(".")[0])
        if ".experts." in name and models.V5:
            assert entry[3:5] == ("expert", 8)
        elif ".experts." in name:
            assert entry[3] == "expert" and entry[6] == int(name.split(".experts.")[1].split(".")[0])
        elif "shared_expert" in name:
            assert entry[3] == "shared_expert"
        elif name.endswith("mlp.gate.weight"):
            assert entry[3] == "router"


@pytest.mark.parametrize("kind", ["list", "stacked"])
def test_hand_written(guest, kind):
    model = models.HandWritten(models.ListMoe if kind == "list" else models.StackedMoe)
    models.train(model, steps=1)
    scopes = first_forward(guest)
    assert scopes[0] == (-1, "embed", 1) and scopes[-2:] == [(-1, "norm", 1), (-1, "lm_head", 1)]
    assert [s for s in scopes if s[0] == 0 and s[2] == 2] == [
        (0, "norm", 2), (0, "attention", 2), (0, "norm", 2), (0, "router" if kind == "list" else "expert", 2)]
    assert (0, "router", 3) in scopes
    spec = guest.spec
    assert (spec["experts"]["n"], spec["experts"]["top_k"], spec["model"]["n_layers"]) == (4, 2, 2)
    assert spec["experts"]["layout"] == ("modulelist" if kind == "list" else None)
    assert spec["layers"][0]["attention"] == dict(heads=4, d_qk=8, d_v=8, window=0, causal=True, dgrad=True)
    experts = [op for op in spec["ops"] if op["phase"] == "expert" and op["layer"] == 0]
    assert sorted(op["in"] * op["out"] for op in experts) == [512] * (3 if kind == "list" else 2)
    attention = {op["name"]: (op["in"], op["out"]) for op in spec["ops"] if op["phase"] == "attention" and op["layer"] == 0}
    assert attention == {"attn": (32, 96), "out_proj": (32, 32)}
    assert (not spec["notes"]) == (kind == "list")


def test_spec_without_a_guest():
    """build_spec is a pure function of the model."""
    hook = fake_guest.load()
    spec = hook["build_spec"](models.make("qwen3_moe"))
    assert spec["experts"]["n"] == 8 and spec["optimizer"] is None and hook["detach"] is None


def test_what_is_not_counted_is_said(guest):
    class Odd(models.HandWritten):
        """A convolution in front, and a bare matrix in a block."""

        def __init__(self):
            super().__init__(models.ListMoe)
            self.conv = torch.nn.Conv1d(32, 32, 1)
            self.blocks[0].ffn.extra = torch.nn.Parameter(torch.zeros(32, 32))
    models.train(Odd(), steps=1)
    assert guest.spec["notes"] == ["2 modules multiply in a way not recognised: they are not in the FLOPs"]


def test_identity():
    """A hash of the configuration: the same for the same model, another one for another one, whatever it runs as."""
    identity = fake_guest.load()["identity"]
    config = models.make("qwen3_moe").config
    first = identity(config)
    assert len(first["config_hash"]) == 16 and int(first["config_hash"], 16) and first["quantization"] is None
    config.use_cache = not config.use_cache
    config._name_or_path = "elsewhere"
    assert identity(config) == dict(first, name="elsewhere")
    config.num_experts_per_tok += 1
    config.quantization_config = {"quant_method": "fp8"}
    changed = identity(config)
    assert changed["config_hash"] not in (None, first["config_hash"]) and changed["quantization"] == "fp8"
    assert identity(None) == {"name": None, "config_hash": None, "quantization": None}

    class Strange:
        def to_dict(self):
            raise RuntimeError("no")
    assert identity(Strange())["config_hash"] is None
