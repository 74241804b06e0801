"""torch.compile with fullgraph=True, before and after the hooks came: no graph break, no recompile, same losses."""
import pytest
import torch

import fake_guest
import models

pytest.importorskip("torch._dynamo")


class Counter:
    """A backend that runs the graph as it is and counts compilations."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up_proj, self.down_proj = torch.nn.Linear(32, 48), torch.nn.Linear(48, 32)

    def forward(self, x):
        return self.down_proj(self.up_proj(x).relu())


class Tiny(models.HandWritten):
    """Traceable as a whole."""

    def __init__(self, layers=10):
        super().__init__(Mlp, layers=layers)


HOW = {
    "whole": lambda model, backend: torch.compile(model, backend=backend, fullgraph=True),
    "in place": lambda model, backend: model.compile(backend=backend, fullgraph=True) or model,
    "layers": lambda model, backend: compile_layers(model, lambda m: torch.compile(m, backend=backend, fullgraph=True)),
    "layers in place": lambda model, backend: [m.compile(backend=backend, fullgraph=True) for m in model.blocks] and model,
    "forward": lambda model, backend: compile_forwards(model, backend),
}


def compile_layers(model, compiled):
    for i in range(len(model.blocks)):
        model.blocks[i] = compiled(model.blocks[i])
    return model


def compile_forwards(model, backend):
    for block in model.blocks:
        block.forward = torch.compile(block.forward, backend=backend, fullgraph=True)
    return model


def train(model, optimizer, steps):
    generator = torch.Generator().manual_seed(9)
    losses = []
    for _ in range(steps):
        ids = torch.randint(0, 96, (2, 8), generator=generator)
        loss = model(ids, ids)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


class Bursts(fake_guest.FakeGuest):
    """Every third step is traced."""
    def tracing(self):
        return self.step % 3 == 0


def job(how, when, with_guest, kind=fake_guest.FakeGuest):
    torch._dynamo.reset()
    fake, counter = kind(), Counter()
    scope = fake_guest.load(fake) if with_guest and when != "attached" else None
    torch.manual_seed(0)
    model = Tiny().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    if when == "after":  # the hooks are on the modules when they are compiled
        losses += train(model, optimizer, 2)
    called = HOW[how](model, counter)
    if when == "attached":  # compiled code runs when the guest comes
        losses += train(called, optimizer, 2)
        scope = fake_guest.load(fake) if with_guest else None
    losses += train(called, optimizer, 6)
    if scope:
        scope["detach"]()
    return losses, counter.graphs, fake


@pytest.mark.parametrize("when", ["before", "after", "attached"])
@pytest.mark.parametrize("how", sorted(HOW))
def test_compiled(how, when):
    plain, graphs, _ = job(how, when, False)
    losses, graphs_too, fake = job(how, when, True)
    assert losses == plain
    # Found late (compiled in place, or compiled after it had been found): compiled once more, without the old hooks.
    late = how == "in place" or (how == "whole" and when == "after")
    assert graphs <= graphs_too <= graphs + (1 if late else 0)
    assert fake.awake == (2 if late and when == "after" else 1) and not fake.off
    assert fake.step >= 2
    if when == "before" and how != "in place":
        assert fake.step == 6 - 1
        layers = {scope[0] for scope in fake.scopes() if scope[1] == "other"}
        assert layers == (set() if how == "whole" else set(range(10)))
    if when != "after":
        assert any("compiled" in note for note in fake.spec["notes"]) and fake.spec["model"]["compiled"]


@pytest.mark.parametrize("how", sorted(set(HOW) - {"in place"}))
def test_hooks_stay_where_taking_them_off_would_compile_again(how):
    plain, graphs, _ = job(how, "before", False)
    losses, graphs_too, fake = job(how, "before", True, Bursts)
    assert (losses, graphs_too) == (plain, graphs) and not fake.off
    assert fake.step == 6 - 1
    if how != "whole":
        assert all(scopes_by_step(fake))


def test_hooks_hang_in_traced_steps_alone():
    torch._dynamo.utils.counters.clear()
    fake, model = Bursts(), models.make("qwen3_moe")
    plain = models.train(models.make("qwen3_moe"), steps=6)
    scope = fake_guest.load(fake)
    losses = models.train(model, steps=6)
    scope["detach"]()
    assert losses == plain and not fake.off
    # the members of a ModuleList keep theirs, which count tokens
    assert [any(phase == "attention" for _, phase, *_ in scopes) for scopes in scopes_by_step(fake)] == [True, False, False, True, False, False]
    counted = fake.routing or fake.expert_rows
    assert [len(counted[step]) for step in range(6)] == [len(model.model.layers)] * 6


def scopes_by_step(fake):
    """The scopes entered in each step."""
    found = [[]]
    for what, *rest in fake.events:
        if what == "step_end":
            found.append([])
        elif what == "enter":
            found[-1].append(rest)
    return found


@pytest.mark.skipif(not models.V5, reason="4.x cannot trace its experts")
@pytest.mark.parametrize("experts", ["batched_mm", "grouped_mm"])
def test_transformers_layers(experts):
    """Decoder layers of a real MoE model, compiled one by one."""
    def losses(with_guest):
        torch._dynamo.reset()
        fake, counter = fake_guest.FakeGuest(), Counter()
        scope = fake_guest.load(fake) if with_guest else None
        model = models.make("qwen3_moe")
        model.set_experts_implementation(experts)
        for layer in model.model.layers:
            layer.compile(backend=counter)
        result = models.train(model, steps=3)
        if scope:
            scope["detach"]()
        return result, counter.graphs, fake
    plain, graphs, _ = losses(False)
    mine, graphs_too, fake = losses(True)
    assert (mine, graphs_too) == (plain, graphs) and not fake.off
    assert {(0, "other", 1), (1, "other", 1)} <= set(fake.scopes())


def test_no_warning_about_global_hooks(recwarn):
    job("whole", "before", True)
    assert not [w for w in recwarn if "global hooks" in str(w.message)]
