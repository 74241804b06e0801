"""PEFT adapters: which matmuls are there, and which gradients a frozen base still computes."""
import pytest
import torch

import models

peft = pytest.importorskip("peft")
ATTENTION = ["q_proj", "v_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def adapt(family="qwen3_moe", modules=ATTENTION, parameters=(), checkpointing=None):
    config = peft.LoraConfig(r=4, lora_dropout=0.0, target_modules=list(modules), target_parameters=list(parameters),
                             task_type="CAUSAL_LM")
    model = peft.get_peft_model(models.make(family), config)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing == "reentrant"})
        model.enable_input_require_grads()
    return model.train()


def ops_of(guest, layer):
    return {op["name"]: op for op in guest.spec["ops"] if op["layer"] == layer}


def grads(op):
    return op["dgrad"], op["wgrad"]


def test_attention_only(guest):
    models.train(adapt(), steps=2)
    assert not guest.off and guest.spec["lora"] == {"r": 4, "targets": ["q_proj", "v_proj"], "adapter": "default"}
    first, second, head = ops_of(guest, 0), ops_of(guest, 1), ops_of(guest, -1)
    # Nothing trainable lies before layer 0: its projections need no gradient of their input.
    assert grads(first["q_proj"]) == grads(first["k_proj"]) == grads(first["v_proj"]) == (False, False)
    assert grads(first["q_proj.lora_A"]) == (False, True) and grads(first["q_proj.lora_B"]) == (True, True)
    assert (first["q_proj.lora_A"]["in"], first["q_proj.lora_A"]["out"]) == (32, 4)
    assert (first["v_proj.lora_B"]["in"], first["v_proj.lora_B"]["out"]) == (4, 16)
    assert grads(first["o_proj"]) == (True, False)
    for name in ("q_proj", "k_proj", "o_proj"):
        assert grads(second[name]) == (True, False)
    for ops in (first, second):
        assert all(grads(op) == (True, False) for op in ops.values() if op["phase"] in ("expert", "router"))
    assert grads(head["lm_head"]) == (True, False)
    assert [layer["attention"]["dgrad"] for layer in guest.spec["layers"]] == [True, True]


def test_attention_core_of_a_frozen_start(guest):
    """Only the output projection trains: the first core has no backward, the second one has."""
    models.train(adapt(modules=["o_proj"]), steps=2)
    assert [layer["attention"]["dgrad"] for layer in guest.spec["layers"]] == [False, True]


def test_input_gradients_are_asked_for(guest):
    models.train(adapt(checkpointing="reentrant"), steps=2)
    first = ops_of(guest, 0)
    assert grads(first["q_proj"]) == (True, False) and grads(first["q_proj.lora_A"]) == (True, True)
    assert guest.spec["model"]["checkpointing"] == "reentrant"


@pytest.mark.skipif(not models.V5, reason="4.x experts are a ModuleList")
@pytest.mark.parametrize("checkpointing", [None, "reentrant", "non-reentrant"])
def test_stacked_parameters(guest, checkpointing):
    model = adapt(parameters=EXPERTS, modules=[], checkpointing=checkpointing)
    models.train(model, steps=2)
    assert not guest.off
    first = ops_of(guest, 0)
    assert grads(first["gate_up_proj"]) == (bool(checkpointing), False)
    assert grads(first["down_proj"]) == (True, False)
    a, b = first["gate_up_proj.lora_A"], first["gate_up_proj.lora_B"]
    assert (a["in"], a["out"], b["in"], b["out"]) == (32, 4, 4, 32)
    assert {op["per"] for op in first.values() if op["phase"] == "expert"} == {"assignment"}
    assert grads(a) == (bool(checkpointing), True) and grads(b) == (True, True)
    assert guest.spec["experts"]["backend"] == "grouped_mm"
    assert all(sum(row) == 48 for rows in guest.routing.values() for row in rows.values())
    assert set(guest.routing[0]) == {0, 1}
    scopes = guest.scopes()
    assert scopes.count((0, "expert", 3)) == 2 and {"lora_A", "lora_B"} <= {name.split(".")[-1] for name in first}
    # expert-major rows of A are slices of one expert each, rank-major columns of B are not
    slices = {entry[4] for entry in guest.ranges if entry[2] == 0 and entry[3] == "expert"}
    assert slices == {8, 1}


@pytest.mark.skipif(models.V5, reason="5.x experts are stacked")
def test_experts_of_a_list(guest):
    model = adapt(modules=["gate_proj", "up_proj", "down_proj"])
    models.train(model, steps=2)
    first = ops_of(guest, 0)
    assert {"gate_proj", "gate_proj.lora_A", "gate_proj.lora_B", "down_proj.lora_B"} <= set(first)
    assert first["gate_proj.lora_A"]["per"] == "assignment"
    assert sum(guest.expert_rows[0][0].values()) == 48
    fixed = {entry[6] for entry in guest.ranges if len(entry) > 6 and entry[2] == 0}
    assert fixed == set(range(8))


def test_frozen_layers(guest):
    """The lower half of the stack is frozen, embedding included: no gradient flows below what trains."""
    model = models.make("qwen3_moe")
    model.model.embed_tokens.requires_grad_(False)
    model.model.layers[0].requires_grad_(False)
    models.train(model, steps=2)
    assert all(grads(op) == (False, False) for op in ops_of(guest, 0).values())
    second = ops_of(guest, 1)
    assert grads(second["gate_up_proj" if models.V5 else "gate_proj"]) == (True, True)
    assert grads(ops_of(guest, -1)["lm_head"]) == (True, True)


def test_disabled_adapters_are_not_counted(guest):
    model = adapt()
    model.base_model.model.lm_head.requires_grad_(True)
    with model.disable_adapter():
        models.train(model, steps=1)
    assert not any(op["lora"] for op in guest.spec["ops"])


def test_bit_identical_with_adapters():
    import fake_guest

    def losses(with_guest):
        scope = fake_guest.load(fake_guest.FakeGuest()) if with_guest else None
        torch.manual_seed(3)
        result = models.train(adapt(parameters=EXPERTS if models.V5 else (), checkpointing="non-reentrant"), steps=3)
        if scope:
            scope["detach"]()
        return result
    assert losses(False) == losses(True)
