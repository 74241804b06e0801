"""What test_arms.py runs, each in a process of its own under the real guest: python arm_scenarios.py NAME [ARGUMENT].
The arms that no registry holds (injector/swap_arms.py), as far as they run without a GPU."""
import contextlib
import copy
import sys

import torch

import models
import swap_client as wire
from swap_client import ask
from swap_scenarios import Job, attached, close, grads, near, off, on, sites

HERE = ("padded_bmm", "equal_bmm")


def rows_of(client, job, kind):
    return {row.name: row for row in ask(client, job.step, wire.STATUS, steps=1) if row.kind == kind}


def family(name):
    """Parity, gradients, the loss curve, and the job's own bits afterwards."""
    reference = Job(models.make(name)).steps(16)
    job = Job(models.make(name))
    client = attached(job)
    for arm in HERE:
        rows = on(client, job, arm)
        assert all(row.flags & wire.YES and row.value[0] < 1e-5 for row in rows if row.kind == wire.PARITY), rows
        assert sites(job.model)
        near(grads(job.model)[1], grads(copy.deepcopy(job.model))[1], 1e-5)  # a copy runs the job's own
        off(client, job)
    job.steps(16 - len(job.losses))
    assert close(job.losses, reference, 2e-4), (job.losses, reference)
    assert not sites(job.model)


def sentinels():
    """Experts without tokens, and indices beyond the last expert, which count for nothing."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    for arm in HERE:
        on(client, job, arm)
        module = next(m for m in job.model.modules() if "forward" in m.__dict__)
        n, hidden = module.num_experts, module.gate_up_proj.shape[2]
        x, score = torch.randn(7, hidden), torch.rand(7, 2)
        index = torch.tensor([[0, n], [n, n], [1, 0], [1, 2], [n, 3], [0, 1], [1, 1]])
        own = type(module).__dict__["forward"].__wrapped__
        reference = own(module, x, index.where(index < n, 0), score * (index < n))
        assert torch.allclose(module(x, index, score), reference, atol=1e-6), arm
        assert not module(x, torch.full_like(index, n), score).any()
        off(client, job)


def compiled():
    """The loop under torch.compile runs, agrees, and says what was made of it."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    rows = on(client, job, "reduce-overhead")
    assert "graphs of the loop" in rows[-1].text and "CUDA graphs" in rows[-1].text, rows[-1]
    near(grads(job.model)[1], grads(copy.deepcopy(job.model))[1], 1e-5)


def refused():
    """What is not there says so and what to do; a name that nobody has gets the names that there are."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    arms = rows_of(client, job, wire.ARM)
    for name, what in (("scattermoe", "no package scattermoe"), ("megablocks", "pip install kernels"),
                       ("qwen3-moe-fused", "no package qwen3_moe_fused")):
        assert not arms[name].flags & wire.YES and what in arms[name].text, arms[name]
        assert what in on(client, job, name, wire.ENOTSUP)[-1].text
    assert all(arms[name].flags & wire.YES for name in HERE)
    text = on(client, job, "nonsense", wire.EINVAL)[-1].text
    assert "no arm named 'nonsense'" in text and "padded_bmm" in text and "grouped_mm" in text, text
    assert not sites(job.model)


def breaks():
    """An implementation that fails in the job's forward: the step runs as the job's own, and the arm is gone after it."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS as registry
    fails = []

    def fragile(module, hidden_states, top_k_index, top_k_weights):
        if fails:
            raise RuntimeError("no more of this")
        return type(module).__dict__["forward"].__wrapped__(module, hidden_states, top_k_index, top_k_weights)

    registry.register("fragile", fragile)
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    on(client, job, "fragile")
    fails.append(1)
    job.steps(2)
    client.settle()
    last = [m for m in client.notices if m.kind == wire.REVERTED]
    assert last and "no more of this" in last[0].text, client.notices
    assert not sites(job.model)


def listed():
    """transformers 4.5x: experts in modules of their own cannot be multiplied in one."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    arms = rows_of(client, job, wire.ARM)
    assert not arms["padded_bmm"].flags & wire.YES and "stacked weights" in arms["padded_bmm"].text, arms
    assert "stacked weights" in on(client, job, "padded_bmm", wire.ENOTSUP)[-1].text


def capturing():
    """While the job captures a CUDA graph nothing is swapped, compared or metered, and the answer says so."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    with graph_capture():
        rows = on(client, job, "moeprof", wire.EBUSY)
        assert "graph is being captured" in rows[-1].text and not sites(job.model), rows
        assert ask(client, job.step, wire.MEMORY, steps=1, flags=wire.RESET)[-1].code == wire.EBUSY
    wanted = client.send(wire.SWAP, name="moeprof")
    client.settle()
    job.step()  # its activations are kept
    with graph_capture():
        job.steps(4)
        client.settle()
        assert not client.rows[wanted] and not any(m.forward.moeprof_arm == "moeprof" for m in sites(job.model))
    job.steps(2)
    assert client.answer(wanted)[-1].code == wire.OK and len(sites(job.model)) == 2
    ask(client, job.step, wire.MEMORY, steps=1, flags=wire.RESET)
    with graph_capture():
        job.steps(3)
    rows = ask(client, job.step, wire.MEMORY, steps=1)
    assert [row.kind for row in rows] == [wire.LOSS, wire.DONE] and rows[0].value[1] == 1, rows  # the step of ask()


@contextlib.contextmanager
def graph_capture():
    """As the guest alone sees it."""
    real = torch.cuda.is_available, torch.cuda.is_current_stream_capturing
    torch.cuda.is_available = torch.cuda.is_current_stream_capturing = (
        lambda: sys._getframe(1).f_code.co_filename.startswith("<moeprof swap"))
    yield
    torch.cuda.is_available, torch.cuda.is_current_stream_capturing = real


def meter():
    """The loss of the steps between two requests, whatever the arm; no memory without a GPU."""
    job = Job(models.make("qwen3_moe"), accum=2)
    client = attached(job)
    assert [row.kind for row in ask(client, job.step, wire.MEMORY, steps=1, flags=wire.RESET)] == [wire.DONE]
    before = len(job.losses) - 2  # the request was taken before the step that ask() made
    job.steps(3)
    rows = ask(client, job.step, wire.MEMORY, steps=1)
    assert [row.kind for row in rows] == [wire.LOSS, wire.DONE], rows
    seen = job.losses[before:-2]
    assert rows[0].value[1] == len(seen) == 8 and abs(rows[0].value[0] - sum(seen) / 8) < 1e-6, (rows, seen)
    assert rows[0].value[2] != rows[0].value[2]
    assert [row.kind for row in ask(client, job.step, wire.MEMORY, steps=1)] == [wire.DONE]


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
