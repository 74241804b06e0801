"""Scenarios of test_swap.py: wrong use, and what goes wrong. python mishap_scenarios.py NAME [ARGUMENT]; see
swap_scenarios.py.
"""
import copy
import sys
import tempfile

import torch

import models
import swap_client as wire
from arm_scenarios import graph_capture
from swap_client import ask
from swap_scenarios import Job, attached, grads, near, off, on, same_bits, sites


def wrong_use():
    """Before there is a model, an unknown arm, twice at once, an arm twice, cancelled, MEMORY."""
    folder = tempfile.mkdtemp()
    wire.attach(folder)
    try:
        wire.Client(folder, patience=0.5)
        raise AssertionError("a socket before there is a model")
    except OSError:
        pass
    job = Job(models.make("qwen3_moe"))
    job.steps(3)
    a, b = wire.Client(folder), wire.Client(folder)
    assert on(a, job, "no_such_arm", code=wire.EINVAL)[-1].text.startswith("there is no arm")
    first, second = a.send(wire.SWAP, name="moeprof"), b.send(wire.SWAP, name="moeprof")
    a.settle(), b.settle()
    job.steps(3)
    assert a.answer(first)[-1].code == wire.OK and b.answer(second)[-1].code == wire.OK
    assert len([m for m in a.notices if m.kind == wire.SWAPPED]) == 1
    off(a, job)
    assert not [m for m in on(a, job, steps=1) if m.kind == wire.PARITY]  # passed before
    assert [m for m in on(a, job, flags=wire.FRESH, steps=2) if m.kind == wire.PARITY]
    memory = ask(a, job.step, wire.MEMORY, steps=1)[-1]
    assert memory.code == wire.OK and (memory.value[0] != memory.value[0])  # no GPU: unknown
    off(a, job)
    wanted = a.send(wire.SWAP, name="moeprof", flags=wire.FRESH)
    a.settle()
    job.step()  # capturing
    a.send(wire.CANCEL, step=wanted)
    a.settle()
    job.steps(2)
    assert a.answer(wanted)[-1].code == wire.EGONE and not sites(job.model)
    later = a.send(wire.SWAP, name="moeprof", step=int(a.hello.step) + 1000)
    a.settle()
    job.steps(2)
    assert not sites(job.model)
    a.close()
    job.step()


def at_launch():
    """moeprof run --swap: asked for in the environment, taken when the job has steps and captures no graph."""
    folder = tempfile.mkdtemp()
    wire.attach(folder, ",swap=moeprof")
    job = Job(models.make("qwen3_moe"))
    with graph_capture():
        job.steps(4)
        assert not sites(job.model)
    job.steps(6)
    assert len(sites(job.model)) == 2


def lease():
    """A tool that dies gives the job back."""
    job = Job(models.make("qwen3_moe"))
    attached(job).close()
    client = wire.Client(job.folder, flags=wire.LEASE)
    on(client, job)
    assert sites(job.model)
    client.close()
    other = wire.Client(job.folder)
    other.settle()
    job.steps(2)
    assert not sites(job.model)


def reverted(client, job, steps=2):
    client.notices.clear()
    job.steps(steps)
    client.settle()
    notices = [m for m in client.notices if m.kind == wire.REVERTED]
    assert len(notices) == 1 and not sites(job.model), client.notices
    return notices[0].text


def failing_backward(guest, call, fail):
    """One call's backward fails, whichever way it takes; returns what to put back."""
    gradients, call.backward = guest.gradients, fail

    def by_c(handle, *rest):
        return fail() if handle is call.last.handle else gradients(handle, *rest)
    guest.gradients = by_c
    return gradients


def no_memory(*_):
    raise torch.cuda.OutOfMemoryError("out of memory on purpose")


def reverts():
    """An error in a call, in a backward, a NaN, another hand on the layer, other weights: back, and said."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    on(client, job)
    hook = sites(job.model)[0].forward.__class__.__init__.__globals__
    call = sites(job.model)[1].forward.experts

    def fail(*_):
        raise hook["KernelError"](-9)
    call.forward = fail
    twin = copy.deepcopy(job.model)
    assert same_bits(grads(job.model)[1], grads(twin)[1]) or True
    assert "layer 1" in reverted(client, job)
    on(client, job)
    gradients = failing_backward(hook["guest"], sites(job.model)[1].forward.experts, fail)
    before = len(job.losses)
    assert "backward" in reverted(client, job)
    assert all(loss == loss for loss in job.losses[before:])

    hook["guest"].gradients = lambda *_: -9  # as C says what the kernels say: asked again, and said
    on(client, job)
    sites(job.model)[1].forward.experts.backward = fail
    assert "backward" in reverted(client, job)

    hook["guest"].gradients = gradients
    on(client, job)
    failing_backward(hook["guest"], sites(job.model)[1].forward.experts, no_memory)
    twin = copy.deepcopy(job.model)
    near(grads(job.model)[1], grads(twin)[1], 1e-5)
    assert "on purpose" in reverted(client, job)

    hook["guest"].gradients = gradients
    on(client, job)
    job.model.lm_head.register_forward_hook(lambda m, a, out: out * float("nan"))
    assert "not finite" in reverted(client, job, steps=3)
    job.model.lm_head._forward_hooks.clear()


def taken_over():
    """Somebody else replaces forward while an arm runs: theirs stays."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    on(client, job)
    experts = sites(job.model)[0]
    mine = type(experts).forward.__get__(experts)
    experts.forward = mine
    assert "somebody else" in reverted(client, job)
    assert experts.__dict__["forward"] is mine


def other_model():
    """The model changes while another arm runs: the old one is as it was, the new one is looked at anew."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    on(client, job)
    second = Job(models.make("mixtral"))
    second.steps(10)
    assert not sites(job.model) and not sites(second.model)
    client.settle()
    assert [m.text for m in client.notices if m.kind == wire.REVERTED] == ["the model that was swapped trains no more"]
    rows = ask(client, second.step, wire.STATUS, steps=2)
    on(client, second)
    assert len(sites(second.model)) == 2
    rows = ask(client, second.step, wire.STATUS, steps=2)
    assert any("Mixtral" in m.name for m in rows if m.kind == wire.LAYER), rows


def refused():
    """A job's own arm that is not what its weights say: parity names the layer, nothing is swapped."""
    job = Job(models.make("qwen3_moe"))
    experts = job.model.model.layers[1].mlp.experts
    own = experts.forward
    experts.forward = lambda x, index, score: 1.01 * own(x, index, score)
    client = attached(job)
    rows = on(client, job, code=wire.EPARITY)
    assert "layer 1" in rows[-1].text
    assert [m.flags & wire.YES for m in rows if m.kind == wire.PARITY] == [1, 0]
    # one per cent too long and no other way: the cosine alone would not see it
    assert all(v > 1 - 1e-9 for m in rows if m.kind == wire.COSINE for v in m.value)
    assert not sites(job.model)
    job.steps(2)


def spot_check():
    """A layer that goes wrong while it runs is found out."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    on(client, job)
    hook = sites(job.model)[0].forward.__class__.__init__.__globals__
    hook["SPOT_STEPS"] = hook["swapper"].spot_next = 0
    hook["SPOT_SHARE"] = 1e9
    job.steps(6)
    assert sites(job.model)
    for module in sites(job.model):
        call = (module.forward.capture.before if module.forward.experts is None else module.forward).experts
        call.forward = (lambda old: lambda *a: (lambda out, saved: (out * 1.001, saved))(*old(*a)))(call.forward)
    assert "spot check" in reverted(client, job, steps=6)


def unswappable(name):
    """Layers that stay are named with the reason; the others are swapped when asked for."""
    job = Job(models.make(name))
    client = attached(job)
    state = [m for m in ask(client, job.step, wire.STATUS, steps=1) if m.kind == wire.LAYER]
    assert state and not any(m.flags & wire.YES for m in state) and all(m.text for m in state)
    rows = on(client, job, code=wire.ENOTSUP)
    assert "layer %d" % state[0].layer in rows[-1].text
    on(client, job, code=wire.ENOTSUP, flags=wire.PARTIAL)


def partial():
    """One quantised layer: refused as a whole, the rest on demand."""
    job = Job(models.make("qwen3_moe"))
    experts = job.model.model.layers[0].mlp.experts
    experts.down_proj.quant_state = "nf4"
    client = attached(job)
    rows = on(client, job, code=wire.ENOTSUP)
    assert "bitsandbytes" in rows[-1].text
    on(client, job, flags=wire.PARTIAL)
    assert sites(job.model) == [job.model.model.layers[1].mlp.experts]


def compiled():
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    job.model.model.layers[1] = torch.compile(job.model.model.layers[1], backend="eager")
    job.model.model.layers[1].attention_type = "full_attention"
    rows = on(client, job, code=wire.ENOTSUP)
    assert "layer 1" in rows[-1].text and "compile" in rows[-1].text, rows[-1]


def two_arms():
    """Two tools ask for different arms at once: in order, the second one runs, and both know."""
    job = Job(models.make("qwen3_moe"))
    a, b = attached(job), wire.Client(job.folder)
    first, second = a.send(wire.SWAP, name="moeprof"), None
    a.settle()
    second = b.send(wire.SWAP, name="eager")
    b.settle()
    job.steps(4)
    a.settle(), b.settle()
    assert a.answer(first)[-1].code == b.answer(second)[-1].code == wire.OK
    for client in (a, b):
        assert [m.name for m in client.notices if m.kind == wire.SWAPPED] == ["moeprof", "eager"]
    assert {m.forward.moeprof_arm for m in sites(job.model)} == {"eager"}


def dense():
    """A model without experts has nothing to swap, and is told so."""
    import transformers
    torch.manual_seed(0)
    job = Job(transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)).train())
    rows = on(attached(job), job, code=wire.EINVAL)
    assert rows[-1].text == "the model has no layers with experts"


def gone():
    """The model goes while its activations are captured: the request ends, the old layers are as they were."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    wanted = client.send(wire.SWAP, name="moeprof")
    client.settle()
    job.step()
    assert not client.rows[wanted] and sites(job.model)  # listened to
    second = Job(models.make("qwen3_moe"))
    second.steps(10)
    done = client.answer(wanted)[-1]
    assert done.code == wire.EGONE and done.text == "the model is gone" and not sites(job.model) and not sites(second.model)


def changed():
    """Layers replaced or compiled between two requests: looked at anew, checked anew."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    blocks = [layer.mlp for layer in job.model.model.layers]

    def replace(change=lambda module: None):
        blocks[1].experts = copy.deepcopy(blocks[1].experts)
        change(blocks[1].experts)
        job.optimizer = torch.optim.AdamW(job.model.parameters())

    def mark(experts):
        next(experts.parameters()).quant_state = "nf4"
    on(client, job)
    off(client, job)
    replace(mark)
    assert "layer 1 cannot be swapped" in on(client, job, code=wire.ENOTSUP)[-1].text
    next(blocks[1].experts.parameters()).__dict__.clear()
    replace()
    assert [m.layer for m in on(client, job, steps=3) if m.kind == wire.PARITY] == [0, 1]
    replace()  # while another arm runs: a copy has the job's own method
    assert on(client, job, steps=3)[-1].code == wire.OK and len(sites(job.model)) == 2
    off(client, job)
    job.model.model.layers[0].compile(backend="eager")
    assert "layer 0 cannot be swapped: it runs inside a compiled region" in on(client, job, code=wire.ENOTSUP)[-1].text


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
