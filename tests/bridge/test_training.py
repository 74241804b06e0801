"""Steps, micro-batches, routing, checkpointing: what a training tells the guest, and that it does not notice."""
import gc
import pathlib
import sys
import weakref

import pytest
import torch
import transformers

import fake_guest
import models

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "samples"))
import common  # noqa: E402  (the samples' own routing counts are the independent truth)

ROUTED = [name for name in models.FAMILIES if models.expectation(name)[0] and name != "llama4"]


def counted(guest, layers, experts):
    """step -> layer -> counts, whichever way they were counted."""
    result = {}
    for step, rows in guest.routing.items():
        result[step] = dict(rows)
    for step, rows in guest.expert_rows.items():
        for layer, row in rows.items():
            result.setdefault(step, {})[layer] = [row.get(e, 0) for e in range(experts)]
    return result


def truth_of(routing, experts):
    rows = []
    for step in routing.steps:
        rows.append({int(name.split(".layers.")[1].split(".")[0]): counts.tolist() for name, counts in step.items()})
    return rows


def train_recording(model, steps=2, accum=1):
    """A loop that keeps the model's own counts for each step."""
    routing = common.Routing(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        for _ in range(accum):
            ids = torch.randint(3, 96, (2, 12), generator=generator)
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        routing.end_step()
    return routing


@pytest.mark.parametrize("family", [name for name in ROUTED if name != "granitemoe" or models.V5])
def test_routing_equals_the_models_own(guest, family):
    layers, experts, top_k = models.expectation(family)
    routing = train_recording(models.make(family), steps=2, accum=2)
    mine = counted(guest, layers, experts)
    for step, truth in enumerate(truth_of(routing, experts)):
        assert mine[step] == truth
        assert all(sum(row) == 2 * 2 * 12 * top_k for row in truth.values())


@pytest.mark.skipif(models.V5, reason="5.x gives the experts indices")
def test_routing_from_a_list_of_sizes(guest):
    models.train(models.make("granitemoe"), steps=1)
    assert set(guest.routing[0]) == {0, 1} and all(sum(row) == 2 * 12 * 2 for row in guest.routing[0].values())


@pytest.mark.parametrize("kind", [models.ListMoe, models.StackedMoe])
def test_routing_of_hand_written_models(guest, kind):
    model = models.HandWritten(kind)
    models.train(model, steps=1)
    mine = counted(guest, (0, 1), 4)[0]
    for layer, block in enumerate(model.blocks):
        chosen = torch.cat([index.flatten() for index in block.ffn.chosen])
        assert mine[layer] == torch.bincount(chosen, minlength=4).tolist()


def test_llama4_does_not_show_its_choice(guest):
    models.train(models.make("llama4"), steps=1)
    assert not guest.routing and any("does not show which experts" in text for _, text in guest.logs)
    assert any("may compute every token" in note for note in guest.spec["notes"])


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3"])
def test_checkpointing(guest, family, reentrant):
    model = models.make(family)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    routing = train_recording(model, steps=2)
    layers, experts, _ = models.expectation(family)
    assert [counted(guest, layers, experts)[step] for step in range(2)] == truth_of(routing, experts)
    assert guest.spec["model"]["checkpointing"] == ("reentrant" if reentrant else "non-reentrant")
    replayed = guest.scopes("recompute")
    assert {scope[0] for scope in replayed} == {0, 1} and (1, "expert", 3) in replayed
    assert not guest.off


def test_steps_and_accumulation(guest):
    model = models.make("qwen3_moe")
    models.train(model, steps=3, accum=2)
    order = [event[0] for event in guest.events
             if event[0] in ("micro_begin", "micro_end", "optimizer_begin", "optimizer_end", "step_end")]
    micro = ["micro_begin", "micro_end"]
    step = micro * 2 + ["optimizer_begin", "optimizer_end"]
    assert order == step + ["step_end"] + step + ["step_end"] + step
    assert [m["step"] for m in guest.micros] == [0, 0, 1, 1, 2, 2]
    assert guest.spec["train"]["grad_accum"] == 2
    assert guest.awake == 1


def test_last_step_ends_with_the_model(guest):
    model = models.make("qwen3_moe")
    models.train(model, steps=2)
    assert guest.step == 1
    del model
    gc.collect()
    assert guest.step == 2 and guest.ranges == []


def test_several_optimizers_make_one_step(guest):
    model = models.make("qwen3_moe")
    params = list(model.parameters())
    first, second = torch.optim.SGD(params[:4], lr=0.1), torch.optim.AdamW(params[4:])
    ids = torch.randint(0, 96, (1, 8))
    for _ in range(2):
        model(input_ids=ids, labels=ids).loss.backward()
        first.step()
        second.step()
    assert guest.step == 1 and [e[0] for e in guest.events].count("optimizer_begin") == 4


def test_optimizer_in_backward(guest):
    model = models.make("qwen3_moe")
    for p in model.parameters():
        optimizer = torch.optim.SGD([p], lr=1e-3)
        p.register_post_accumulate_grad_hook(lambda p, o=optimizer: (o.step(), o.zero_grad()) and None)
    ids = torch.randint(0, 96, (1, 8))
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
    assert guest.step == 2 and not guest.off


def test_evaluation_is_a_step_of_its_own(guest):
    model = models.make("qwen3_moe")
    models.train(model, steps=1)
    with torch.no_grad():
        model.eval()
        for _ in range(2):
            model(input_ids=torch.randint(0, 96, (1, 8)))
        model.train()
    assert guest.step == 1  # closed by the evaluation
    models.train(model, steps=1)
    assert [m["step"] for m in guest.micros] == [0, 2]  # step 1 held the evaluation and no micro-batch
    assert guest.scopes("eval")


def test_optimizer_and_spec_updates(guest):
    model = models.make("qwen3_moe")
    models.train(model, steps=1)
    assert guest.spec["optimizer"] is None
    models.train(model, steps=2)
    assert guest.spec["optimizer"]["class"] == "AdamW"
    if models.V5:
        model.set_experts_implementation("eager")
        models.train(model, steps=2)
        assert guest.spec["experts"]["backend"] == "eager"


def test_patched_experts_are_seen(guest):
    model = models.make("qwen3_moe")
    models.train(model, steps=2)
    block = model.model.layers[0].mlp
    block.forward = block.forward
    models.train(model, steps=2)
    assert guest.spec["experts"]["backend"].startswith("patched:")


def test_moved_weights_are_registered_anew(guest):
    model = models.make("qwen3_moe")
    models.train(model, steps=2)
    before = {entry[0] for entry in guest.ranges}
    kept = [p.data for p in model.parameters()]
    for p in model.parameters():
        p.data = p.data.clone()
    models.train(model, steps=2)
    assert before.isdisjoint(entry[0] for entry in guest.ranges) and kept


def test_weights_that_never_rest_are_given_up(guest):
    model = models.make("qwen3_moe")
    kept = []
    for _ in range(8):
        models.train(model, steps=1)
        kept += [p.data for p in model.parameters()]
        for p in model.parameters():
            p.data = p.data.clone()
    assert guest.ranges == [] and any("weights move" in text for _, text in guest.logs)


def test_meta_and_empty_weights_are_skipped():
    hook = fake_guest.load()
    assert hook["address"](torch.nn.Parameter(torch.empty(3, device="meta"))) is None
    assert hook["address"](torch.nn.Parameter(torch.empty(0))) is None


def test_another_model_takes_over(guest):
    first, second = models.make("qwen3_moe"), models.make("deepseek_v3")
    models.train(first, steps=2)
    models.train(second, steps=5)
    assert guest.spec["model"]["class"] == "DeepseekV3ForCausalLM"
    assert all(not module._forward_pre_hooks for module in first.modules())


def test_helpers_are_not_the_root(guest):
    """A pooler and a loss that are called first, in training, with gradients."""
    pooler = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 8))
    pooler(torch.ones(1, 8)).sum().backward()
    assert not guest.awake
    models.train(models.make("qwen3_moe"), steps=1)
    assert guest.awake == 1 and guest.spec["model"]["family"] == "qwen3_moe"


def test_inference_finds_nothing(guest):
    model = models.make("qwen3_moe").eval()
    with torch.no_grad():
        model(input_ids=torch.randint(0, 96, (1, 8)))
        model.train()(input_ids=torch.randint(0, 96, (1, 8)))
    assert not guest.awake and not guest.events


def test_search_is_given_up(guest):
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(20):
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert any("no model with decoder layers" in text for _, text in guest.logs)


def test_inference_is_not_searched_for_good(guest):
    """The hook on every module call ends after a while, and comes back when an optimizer steps."""
    model = models.make("qwen3_moe").eval()
    hook = torch.nn.modules.module._global_forward_pre_hooks
    assert len(hook) == 1
    small = torch.nn.Identity()
    for _ in range(100001):
        small(1)
    assert not hook
    with torch.no_grad():
        model(input_ids=torch.randint(0, 96, (1, 8)))
    models.train(model.train(), steps=3)
    assert guest.awake == 1 and guest.step == 2 and not hook


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3"])
@pytest.mark.parametrize("inner", ["model", "model.layers.1", "model.layers.1.mlp"])
def test_attached_in_the_middle_of_a_forward(family, inner):
    """Whichever module is called first after the guest came: the root is the whole model."""
    fake, scope = fake_guest.FakeGuest(), {}
    model = models.make(family)

    def attach(*args):
        handle.remove()
        scope.update(fake_guest.load(fake))
    handle = model.get_submodule(inner).register_forward_pre_hook(attach)
    models.train(model, steps=4)
    scope["detach"]()
    assert fake.awake == 1 and fake.spec["model"]["class"] == type(model).__name__
    assert [op["name"] for op in fake.spec["ops"] if op["phase"] == "lm_head"] == ["lm_head"]
    assert fake.step >= 2 and not fake.off


def test_experts_alone_are_a_model(guest):
    """A stack of nothing but MoE blocks, as in a benchmark."""
    class Stack(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList(models.ListMoe() for _ in range(3))

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x.sum()
    Stack()(torch.randn(2, 5, 32)).backward()
    assert guest.spec["model"]["n_layers"] == 3 and guest.spec["experts"]["n"] == 4
    assert guest.micros[0]["processed"] == 10 and set(guest.expert_rows[0]) == {0, 1, 2}


def test_wrapped_root(guest):
    """A wrapper around the model is the root: its call is the outermost."""
    class Wrapper(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.module = model

        def forward(self, *args, **kwargs):
            return self.module(*args, **kwargs)
    model = Wrapper(models.make("qwen3_moe"))
    models.train(model, steps=2)
    assert any(model._forward_pre_hooks) and guest.spec["model"]["class"] == "Qwen3MoeForCausalLM"
    assert guest.micros[0]["processed"] == 24 and guest.step == 1


def test_trainer(guest, tmp_path):
    model = models.make("qwen3_moe")
    generator = torch.Generator().manual_seed(5)
    rows = [torch.randint(3, 96, (12,), generator=generator) for _ in range(24)]
    data = [{"input_ids": row, "labels": row, "attention_mask": torch.ones(12, dtype=torch.long)} for row in rows]
    settings = transformers.TrainingArguments(
        str(tmp_path), max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2, use_cpu=True, bf16=True,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False}, seed=7)
    transformers.Trainer(model=model, args=settings, train_dataset=data).train()
    assert guest.step == 2 and [m["step"] for m in guest.micros] == [0, 0, 1, 1, 2, 2]
    assert all(m["processed"] == m["useful"] == m["trainable"] == 24 and m["basis"] == fake_guest.MEASURED
               for m in guest.micros)
    train = guest.spec["train"]
    assert train["trainer"] == "Trainer" and train["grad_accum"] == 2 and train["micro_batch"] == 2
    assert train["seed"] == 7 and train["data_seed"] is None and train["torch_seed"] == "7" and train["deterministic"] is False
    assert guest.spec["model"]["autocast"] == "bfloat16" and guest.spec["model"]["checkpointing"] == "non-reentrant"
    assert not guest.off


def losses_of(family, with_guest, checkpointing):
    scope = fake_guest.load(fake_guest.FakeGuest()) if with_guest else None
    model = models.make(family)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        losses = models.train(model, steps=3)
        return losses, torch.random.get_rng_state(), [p.detach().clone() for p in model.parameters()]
    finally:
        if scope:
            scope["detach"]()


@pytest.mark.parametrize("family", sorted(models.FAMILIES))
@pytest.mark.parametrize("checkpointing", [False, True])
def test_bit_identical(family, checkpointing):
    torch.manual_seed(7)
    without = losses_of(family, False, checkpointing)
    torch.manual_seed(7)
    with_guest = losses_of(family, True, checkpointing)
    assert without[0] == with_guest[0]
    assert torch.equal(without[1], with_guest[1])
    assert all(torch.equal(a, b) for a, b in zip(without[2], with_guest[2]))


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3"])
def test_nothing_keeps_the_model(guest, family):
    model = models.make(family)
    models.train(model, steps=2)
    alive = [weakref.ref(module) for module in model.modules()] + [weakref.ref(p) for p in model.parameters()]
    del model
    gc.collect()
    assert not [ref for ref in alive if ref() is not None]
