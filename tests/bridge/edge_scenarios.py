"""Scenarios of test_swap.py: what jobs do to a model beside training it. python edge_scenarios.py NAME [ARGUMENT]; see
swap_scenarios.py.
"""
import contextlib
import copy
import gc
import os
import signal
import struct
import sys
import weakref

import torch
from torch import nn

import models
import swap_client as wire
from lora_scenarios import adapted, listed
from mishap_scenarios import failing_backward, no_memory, reverted
from swap_client import ask
from swap_scenarios import Job, attached, grads, near, on, sites

MATRICES = "gate_proj,up_proj,down_proj"


class DroppingExpert(models.Expert):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.1, self.training)


class DroppingMoe(models.ListMoe):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(DroppingExpert(32, 16) for _ in range(4))


class HandJob(Job):
    """On a model written by hand."""

    def __init__(self, moe):
        torch.manual_seed(0)
        Job.__init__(self, models.HandWritten(moe).train())

    def loss(self, ids):
        return self.model(ids, ids)


def dice():
    """Looking at the layers, or at one whose experts drop, takes no random number from the job."""
    reference = HandJob(DroppingMoe).steps(9)
    job = HandJob(DroppingMoe)
    client = attached(job)
    ask(client, job.step, wire.STATUS, steps=2)
    ask(client, job.step, wire.CHECK, steps=2, name="moeprof")
    job.steps(9 - len(job.losses))
    assert job.losses == reference, (job.losses, reference)


def like_own(model):
    """A copy has the job's own method."""
    near(grads(model)[1], grads(copy.deepcopy(model))[1], 1e-5)


def freed():
    """Nothing keeps a model's weights once the job lets go of them, whatever was asked before."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    ask(client, job.step, wire.STATUS, steps=1)
    weights = [weakref.ref(p) for p in job.model.parameters()]
    job.model = job.optimizer = None
    gc.collect()
    assert not [ref for ref in weights if ref() is not None]


def unfrozen(kind):
    """Weights under adapters that the job trains from some step on."""
    model = adapted("qwen3_moe") if kind == "stacked" else listed("qwen3_moe", MATRICES)
    job = Job(model)
    client = attached(job)
    on(client, job)
    for name, p in model.named_parameters():
        if "experts" in name and "lora" not in name:
            p.requires_grad_(True)
    like_own(model)
    assert "other ones" in reverted(client, job)
    if kind == "stacked":
        on(client, job)  # through PEFT's own sum
        assert len(sites(model)) == 2
        like_own(model)


def other_adapter():
    """Within a step another adapter is the active one, as a reference policy's is."""
    import peft
    model = listed("qwen3_moe", MATRICES)
    model.add_adapter("other", peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", *MATRICES.split(",")]))
    for name, p in model.named_parameters():
        if "other" in name and "lora_B" in name:
            nn.init.normal_(p, std=0.3)
    model.set_adapter("default")
    job = Job(model)
    on(attached(job), job)
    own, ids = copy.deepcopy(model), torch.randint(3, 96, (2, 12))
    model(input_ids=ids, labels=ids).loss.backward()
    for name in ("other", "default"):
        for one in (model, own):
            one.set_adapter(name)
        with torch.no_grad():
            assert torch.allclose(model(input_ids=ids).logits, own(input_ids=ids).logits, atol=1e-5), name


def adapters_later():
    """Adapters put on the Linears of swapped experts are trained."""
    import peft
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    on(client, job)
    peft.inject_adapter_in_model(peft.LoraConfig(r=4, target_modules=MATRICES.split(",")), job.model)
    job.optimizer = torch.optim.AdamW([p for p in job.model.parameters() if p.requires_grad])
    job.model.enable_input_require_grads()
    assert "other ones" in reverted(client, job)
    like_own(job.model)
    on(client, job, steps=3)
    like_own(job.model)


def fail_in_layer(model, layer):
    call = sites(model)[layer].forward.experts
    failing_backward(type(call).__init__.__globals__["guest"], call, no_memory)


def backward_autocast():
    """The job's own code that stands in for a failed backward computes under the forward's autocast."""
    job = Job(models.make("qwen3_moe"), autocast=torch.bfloat16)
    client = attached(job)
    on(client, job)
    fail_in_layer(job.model, 1)
    assert "on purpose" in reverted(client, job)


def halve(model):
    calls = []
    for name, p in model.named_parameters():
        if "experts" in name and "down_proj" in name:
            p.register_hook(lambda g: (calls.append(1), g * 0.5)[1])
    return calls


def backward_hooks():
    """Hooks on experts' weights run once a backward: not in parity, not twice where a backward fails."""
    job = Job(models.make("qwen3_moe"))
    calls, n = halve(job.model), sum("down_proj" in name for name, _ in job.model.named_parameters())
    client = attached(job)
    on(client, job)
    assert len(calls) <= n * len(job.losses)
    own = copy.deepcopy(job.model)
    for p in own.parameters():
        p._backward_hooks = None
    halve(own)
    fail_in_layer(job.model, 1)
    near(grads(job.model)[1], grads(own)[1], 1e-5)


def backward_replays():
    """Two checkpointed forwards before one backward that fails: the first one's replay does what its forward did."""
    model = models.make("qwen3_moe")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    job = Job(model)
    client = attached(job)
    on(client, job)
    fail_in_layer(model, 1)
    sum(models.loss_of(model(input_ids=ids, labels=ids)) for ids in torch.randint(3, 96, (2, 2, 12))).backward()
    assert "on purpose" in reverted(client, job)


def backward_sum():
    """A failed backward of a sum of weight and adapter is reverted as well."""
    job = Job(adapted("qwen3_moe"))
    client = attached(job)
    for name, p in job.model.named_parameters():
        if "lora_A" in name and "experts" in name:
            p.data = p.data.t().contiguous().t()  # the kernels want it dense
    on(client, job)
    call = sites(job.model)[1].forward.experts.sum
    assert call is not None
    call.backward = no_memory
    assert "on purpose" in reverted(client, job)


def moved_saved():
    """Hooks on saved tensors give them back at other addresses."""
    job = Job(models.make("qwen3_moe"))
    on(attached(job), job)
    own, kept = copy.deepcopy(job.model), []

    def moved(by):
        def unpack(t):
            kept.append(torch.empty(t.numel() * t.element_size() + by + 64, dtype=torch.uint8))
            return kept[-1][by:by + t.numel() * t.element_size()].view(t.dtype).view(t.shape).copy_(t)
        return torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack)
    for by in (0, 64, 128, 192):
        found = []
        for model, context in ((job.model, moved(by)), (own, contextlib.nullcontext())):
            with context:
                found.append(grads(model)[1])
        near(*found, 1e-5)


def inference():
    """Evaluation in inference mode under autocast, with a sum of weight and two adapters."""
    import peft
    model = adapted("qwen3_moe")
    model.add_adapter("other", peft.LoraConfig(r=4, target_modules=["q_proj"], target_parameters=[
        "mlp.experts.gate_up_proj", "mlp.experts.down_proj"]))
    model.base_model.set_adapter(["default", "other"])
    job = Job(model, autocast=torch.bfloat16)
    client = attached(job)
    on(client, job)
    model.eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        model(input_ids=torch.randint(3, 96, (2, 12)))
    model.train()
    job.steps(2)
    assert len(sites(model)) == 2


def no_text():
    """A name that is no text is an arm that is not there, and no reason to revert."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    on(client, job)
    body = wire.FIXED.pack(1, wire.SWAP, 77, 0, 0, -1, 0, 0, 0, 0, 0) + struct.pack("<H", 2) + b"\xff\xfe" + struct.pack("<H", 0)
    client.sock.sendall(struct.pack("<I", len(body)) + body)
    client.settle()
    job.steps(2)
    assert client.answer(77)[-1].code == wire.EINVAL and len(sites(job.model)) == 2


def forked():
    """A child takes no request that waited, and ends one that ran."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    wanted = client.send(wire.SWAP, name="moeprof")
    client.settle()
    for steps in (3, 1):
        child = os.fork()
        if not child:
            signal.alarm(60)
            job.steps(3)
            os._exit(len(sites(job.model)))
        assert os.waitpid(child, 0)[1] == 0, steps
        job.step()
    job.steps(2)
    assert client.answer(wanted)[-1].code == wire.OK and len(sites(job.model)) == 2


def data_parallel():
    """Copies on several GPUs would read the first one's weights. Here the GPUs are there between two steps only."""
    model = nn.DataParallel(models.make("qwen3_moe"))
    gpus = []
    model.register_forward_pre_hook(lambda m, args: m.__dict__.update(device_ids=gpus))
    job = Job(model)
    client = attached(job)  # whose hook comes second
    model.register_forward_pre_hook(lambda m, args: m.__dict__.update(device_ids=[]))
    gpus[:] = [0, 1]
    assert "DataParallel" in on(client, job, code=wire.ENOTSUP)[-1].text


def hooks_of_experts(kind):
    """The job listens to a module that a swap would not call: one expert; the experts inside of adapters."""
    model = adapted("qwen3_moe") if kind == "stacked" else models.make("qwen3_moe")
    inner = [m for m in model.modules() if hasattr(m, "act_fn") and hasattr(m, "gate_up_proj" if kind == "stacked" else "gate_proj")]
    seen = []
    for module in inner:
        module.register_forward_hook(lambda *_: seen.append(1))
    job = Job(model)
    client = attached(job)
    if kind == "listed":
        assert "hooks of its own" in on(client, job, code=wire.ENOTSUP)[-1].text
        return
    on(client, job)
    assert len(sites(model)) == 2
    seen.clear()
    job.steps(2)
    assert len(seen) == 4


def written_to():
    """Two forwards of a step under autocast, with weights written to through .data in between."""
    job = Job(models.make("qwen3_moe"), autocast=torch.bfloat16)
    on(attached(job), job)
    ids, found = torch.randint(3, 96, (2, 12)), []
    for model in (job.model, copy.deepcopy(job.model)):
        for factor in (1.0, 3.0):
            for name, p in model.named_parameters():
                p.data.mul_(factor if "experts" in name else 1.0)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = model(input_ids=ids, labels=ids)
            out.loss.backward()
        found.append(out.logits.detach().float())
    assert (found[0] - found[1]).norm() < 0.05 * found[1].norm()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
