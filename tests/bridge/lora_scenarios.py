"""Scenarios of test_swap.py: PEFT's adapters on experts, stacked and one module each.
python lora_scenarios.py NAME [ARGUMENT]; see swap_scenarios.py.
"""
import copy
import sys

import torch

import models
import swap_client as wire
from swap_client import ask
from swap_scenarios import Job, attached, close, grads, near, off, on, same_bits, sites


def adapted(family, targets=("gate_up_proj", "down_proj"), dtype=torch.float32, seed=0):
    import peft
    torch.manual_seed(seed)
    model = peft.get_peft_model(models.make(family).to(dtype), peft.LoraConfig(
        r=4, target_modules=["q_proj"], target_parameters=["mlp.experts." + name for name in targets]))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.05)
    return model.train()


def lora(family, *targets):
    """Adapters on stacked experts: the sum of weight and delta is made for a call, A and B get the same gradients."""
    targets = targets or ("gate_up_proj", "down_proj")
    reference = Job(adapted(family, targets)).steps(10)
    job = Job(adapted(family, targets))
    client = attached(job)
    state = ask(client, job.step, wire.STATUS, steps=1)
    assert all("an adapter on" in m.text for m in state if m.kind == wire.LAYER), state
    rows = on(client, job)
    assert all(m.flags & wire.YES for m in rows if m.kind == wire.PARITY)
    assert all(hasattr(m, "parameter_name") for m in sites(job.model)) and len(sites(job.model)) == 2
    job.steps(10 - len(job.losses))
    assert sites(job.model) and close(job.losses, reference, 2e-4)
    assert all(m.__dict__["forward"].experts.sum is None for m in sites(job.model))  # no delta is made
    swapped, own = grads(job.model)[1], grads(copy.deepcopy(job.model))[1]
    near(swapped, own, 1e-5)
    trained = {name for name, g in swapped.items() if g is not None}
    assert any("experts" in name and "lora_A" in name for name in trained)
    assert not any("base_layer" in name and "lora" not in name for name in trained)
    off(client, job)
    assert same_bits(grads(job.model)[1], grads(copy.deepcopy(job.model))[1])


def lora_states():
    """Adapters off and on, merged, bf16 weights with checkpointing, another arm under adapters, a second adapter."""
    import peft
    model = adapted("qwen3_moe", dtype=torch.bfloat16)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    job = Job(model)
    client = attached(job)
    on(client, job)
    ids = torch.randint(3, 96, (2, 12))
    own = copy.deepcopy(model)
    near(grads(model)[1], grads(own)[1], 0.08)
    with torch.no_grad():
        a = model(input_ids=ids).logits
        with model.disable_adapter():
            plain = model(input_ids=ids).logits
        with own.disable_adapter():
            assert torch.equal(plain, own(input_ids=ids).logits)
        assert not torch.equal(a, plain)
        model.base_model.merge_adapter()
        merged = model(input_ids=ids).logits
        model.base_model.unmerge_adapter()
        assert (merged - a).norm() < 0.05 * a.norm()
    job.steps(2)
    assert sites(model)
    on(client, job, "eager")
    job.steps(2)
    assert sites(model)
    off(client, job)

    two = adapted("qwen3_moe")
    two.add_adapter("other", peft.LoraConfig(r=2, target_modules=["q_proj"],
                                             target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]))
    two.base_model.set_adapter(["default", "other"])
    second = Job(two)
    second.steps(10)
    on(client, second)  # through PEFT's own sum
    second.steps(2)
    assert len(sites(two)) == 2 and not any(hasattr(m, "parameter_name") for m in sites(two))
    near(grads(two)[1], grads(copy.deepcopy(two))[1], 1e-5)


def listed(family, targets, **config):
    import peft
    torch.manual_seed(0)
    model = peft.get_peft_model(models.make(family), peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj"] + targets.split(","), **config))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.05)
    return model.train()


def lora_listed(family, targets):
    """4.57: adapters on one Linear an expert, beside its weights; experts without tokens get no gradient."""
    reference = Job(listed(family, targets)).steps(10)
    job = Job(listed(family, targets))
    client = attached(job)
    state = ask(client, job.step, wire.STATUS, steps=1)
    assert all("adapters on" in m.text for m in state if m.kind == wire.LAYER), state
    rows = on(client, job)
    names = {m.name for m in rows if m.kind == wire.PARITY}
    assert all(m.flags & wire.YES and m.value[0] < 1e-5 for m in rows if m.kind == wire.PARITY), (names, rows)
    job.steps(10 - len(job.losses))
    assert sites(job.model) and close(job.losses, reference, 2e-4), (job.losses, reference)
    swapped, own = grads(job.model)[1], grads(copy.deepcopy(job.model))[1]
    near(swapped, own, 1e-5)
    assert any("experts" in name and "lora_A" in name and g is not None for name, g in swapped.items())
    with job.model.disable_adapter(), torch.no_grad():
        ids = torch.randint(3, 96, (2, 12))
        assert torch.allclose(job.model(input_ids=ids).logits, copy.deepcopy(job.model)(input_ids=ids).logits, atol=1e-5)
    off(client, job)
    assert same_bits(grads(job.model)[1], grads(copy.deepcopy(job.model))[1])


def lora_listed_refused():
    """What the kernels do not have is named: dropout, DoRA, two adapters, a Linear left out, another rank."""
    import peft

    def two(model):
        model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["gate_proj"]))
        model.base_model.set_adapter(["default", "other"])
        return model
    cases = [("dropout of 0.1", listed("qwen3_moe", "gate_proj", lora_dropout=0.1)),
             ("DoRA", listed("qwen3_moe", "down_proj", use_dora=True)),
             ("2 adapters are active", two(listed("qwen3_moe", "gate_proj"))),
             ("differ in rank", listed("qwen3_moe", "gate_proj", rank_pattern={"experts.3.gate_proj": 8})),
             ("some have none", listed("qwen3_moe", "experts.0.gate_proj"))]
    client = None
    for sentence, model in cases:
        job = Job(model)
        if client is None:
            client = attached(job)
        else:
            job.steps(10)  # the guest follows
        rows = on(client, job, code=wire.ENOTSUP)
        assert "layer 0" in rows[-1].text and sentence in rows[-1].text, rows[-1]


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
