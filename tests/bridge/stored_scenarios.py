"""Scenarios of test_swap.py: experts that are not stored as plain tensors, quantised, flattened or sharded.
python stored_scenarios.py NAME [ARGUMENT]; see swap_scenarios.py.
"""
import copy
import os
import sys
import tempfile

import torch

import models
import ranks
import swap_client as wire
from swap_scenarios import Job, attached, close, off, on, sites


class Params4bit(torch.nn.Parameter):
    """As bitsandbytes calls it."""


def quantised(kind):
    """A function that stores a layer's weights as that package does."""
    def change(experts):
        for name in ("gate_up_proj", "down_proj"):
            weight = experts._parameters.pop(name).detach()
            if kind == "bitsandbytes":
                made = Params4bit(weight.flatten(1)[:, ::2].contiguous().to(torch.uint8), requires_grad=False)
                made.quant_state = object()
            elif kind == "fp8":
                made = torch.nn.Parameter(weight.to(torch.float8_e4m3fn), requires_grad=False)
            elif kind == "zero3":
                made = torch.nn.Parameter(torch.empty(0))
                made.ds_id, made.ds_shape = 1, weight.shape
            else:
                name, made = name + "_blocks", torch.nn.Parameter(weight.to(torch.uint8), requires_grad=False)
            experts.register_parameter(name, made)
    return change


def refused_weights(kind, *words):
    """A job of one good layer and one that the kernels cannot read: refused with the layer and the reason, untouched."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    experts = job.model.model.layers[1].mlp.experts
    stored = copy.deepcopy(experts)
    # as the package's own class computes from what it stores
    experts.forward = lambda hidden_states, top_k_index, top_k_weights: stored(hidden_states, top_k_index, top_k_weights)
    quantised(kind)(experts)
    job.optimizer = torch.optim.AdamW([p for p in job.model.parameters() if p.requires_grad and p.numel()])
    rows = on(client, job, code=wire.ENOTSUP, steps=3)
    assert "layer 1" in rows[-1].text and " ".join(words) in rows[-1].text, rows[-1].text
    assert not sites(job.model)


def sharded_otherwise(kind):
    """Two CPU ranks, experts flattened by FSDP1 or split by hand: refused with the reason, and the training goes on."""
    ranks.spawn(sharded_rank, kind)


def sharded_rank(rank, kind):
    model = models.make("qwen3_moe")
    split_by_tensor(model) if kind == "tensor" else flattened(model, kind == "orig")
    job = Job(model)
    job.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, foreach=False)
    client = attached(job)
    words = ("layer 1 cannot be swapped: gate_up_proj is split by tensor or expert parallelism" if kind == "tensor" else
             "layer 0 cannot be swapped: gate_up_proj is a piece of a flat parameter of FSDP1")
    rows = on(client, job, code=wire.ENOTSUP, steps=3)
    assert words in rows[-1].text and not sites(model), rows[-1].text
    job.steps(1)


def flattened(model, use_orig_params):
    from torch.distributed.fsdp import FullyShardedDataParallel
    for layer in model.model.layers:
        layer.mlp.experts = FullyShardedDataParallel(layer.mlp.experts, device_id=torch.device("cpu"), use_orig_params=use_orig_params)


def split_by_tensor(model):
    from torch.distributed.tensor import Shard, distribute_tensor
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (ranks.RANKS,))
    experts = model.model.layers[1].mlp.experts
    stored = copy.deepcopy(experts)  # what stands for the collectives of a parallel forward
    for name, p in list(experts.named_parameters()):
        setattr(experts, name, torch.nn.Parameter(distribute_tensor(p.detach(), mesh, [Shard(1)])))
    experts.forward = lambda hidden_states, top_k_index, top_k_weights: stored(hidden_states, top_k_index, top_k_weights)


def tensor_parallel():
    """Two CPU ranks, a model that transformers loads by its own tensor parallel plan: refused, and it trains as before."""
    folder = tempfile.mkdtemp()
    models.make("qwen3_moe").save_pretrained(folder)
    ranks.spawn(parallel_rank, folder)


def parallel_rank(rank, folder):
    import transformers
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks.RANKS))
    losses = []
    for guest in (False, True):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, tp_plan="auto").train()
        job = Job(model)
        job.optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, foreach=False)
        client = attached(job) if guest else job.steps(3) and None
        if guest:
            rows = on(client, job, code=wire.ENOTSUP)
            assert "layer 0 cannot be swapped: tensor " in rows[-1].text and not sites(model), rows[-1].text
        else:
            job.steps(2)
        losses.append(job.steps(3) and job.losses)
    assert losses[0] == losses[1], losses


def fsdp2():
    """Two CPU ranks: experts sharded by FSDP2 are compared in their own backward and swapped."""
    ranks.spawn(fsdp2_rank)


def fsdp2_rank(rank):
    from torch.distributed.fsdp import fully_shard
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (ranks.RANKS,))

    def make():
        model = models.make("qwen3_moe")
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model
    reference = Job(make()).steps(9)
    job = Job(make())
    job.generator.manual_seed(3)
    client = attached(job)
    rows = on(client, job)
    assert all(m.flags & wire.YES for m in rows if m.kind == wire.PARITY) and len(sites(job.model)) == 2
    job.steps(9 - len(job.losses))
    assert sites(job.model) and close(job.losses, reference, 2e-4), (job.losses, reference)
    off(client, job)
    job.steps(1)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
