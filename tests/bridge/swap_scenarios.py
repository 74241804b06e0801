"""What test_swap.py runs, each in a process of its own under the real guest: python swap_scenarios.py NAME [ARGUMENT].

A scenario is a function; it asserts, and returns nothing. Tools are played by swap_client on the same thread: a
request is sent, steps are trained, the answer is read.
"""
import contextlib
import copy
import gc
import os
import pickle
import sys
import tempfile

import torch

import models
import swap_client as wire
from swap_client import ask

torch.set_num_threads(1)


class Job:
    """A plain loop on a tiny model; steps are the same for the same seed."""

    def __init__(self, model, accum=1, lr=1e-3, autocast=None, dtype=None, **inputs):
        self.model, self.accum, self.autocast, self.inputs = model, accum, autocast, inputs
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
        self.generator = torch.Generator().manual_seed(3)
        self.losses = []

    def loss(self, ids):
        return models.loss_of(self.model(input_ids=ids, labels=ids, **self.inputs))

    def step(self):
        for _ in range(self.accum):
            ids = torch.randint(3, 96, (2, 12), generator=self.generator)
            with torch.autocast("cpu", dtype=self.autocast) if self.autocast else contextlib.nullcontext():
                loss = self.loss(ids)
            loss.backward()
            self.losses.append(loss.item())
        self.optimizer.step()
        self.optimizer.zero_grad()

    def steps(self, n):
        for _ in range(n):
            self.step()
        return self.losses[-n * self.accum:]


def attached(job, steps=3):
    """Enters the process, trains until the model is known, and connects."""
    folder = tempfile.mkdtemp()
    wire.attach(folder)
    job.steps(steps)
    job.folder = folder
    return wire.Client(folder)


def on(client, job, arm="moeprof", code=wire.OK, steps=2, **fields):
    rows = ask(client, job.step, wire.SWAP, steps=steps, name=arm, **fields)
    assert rows[-1].code == code, rows[-1]
    return rows


def off(client, job):
    return on(client, job, "original")


def sites(model):
    """Modules whose instance carries a swapped method."""
    return [m for m in model.modules() for name in ("forward", "moe") if hasattr(m.__dict__.get(name), "moeprof_arm")]


def close(a, b, tolerance):
    return len(a) == len(b) and all(abs(x - y) <= tolerance * max(1.0, abs(y)) for x, y in zip(a, b))


def grads(model, seed=11, **inputs):
    """Loss and every gradient of one batch."""
    ids = torch.randint(3, 96, (2, 12), generator=torch.Generator().manual_seed(seed))
    model.zero_grad(set_to_none=True)
    torch.manual_seed(seed)  # PhiMoE's router samples
    out = model(input_ids=ids, labels=ids, **inputs)
    out.loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return out, found


def same_bits(a, b):
    return a.keys() == b.keys() and all((x is None) == (b[k] is None) and (x is None or torch.equal(x, b[k])) for k, x in a.items())


def near(a, b, tolerance):
    for name, x in a.items():
        y = b[name]
        assert (x is None) == (y is None), name
        if x is not None:
            error = (x.double() - y.double()).norm() / y.double().norm().clamp_min(1e-12)
            assert error <= tolerance, (name, float(error))


# ---------------------------------------------------------------------------------------------------------

def family(name):
    """Loss curve, gradients, aux losses, bits after off, copies, for one family."""
    plain = Job(models.make(name))
    reference = plain.steps(12)
    job = Job(models.make(name))
    client = attached(job)
    state = ask(client, job.step, wire.STATUS, steps=1)
    layers = [m for m in state if m.kind == wire.LAYER]
    assert all(m.flags & wire.YES for m in layers), layers
    assert [m.layer for m in layers] == list(models.expectation(name)[0])
    rows = on(client, job)
    parity = [m for m in rows if m.kind == wire.PARITY]
    assert [m.layer for m in parity] == [m.layer for m in layers] and all(m.value[0] < 1e-5 for m in parity)
    cosines = [m for m in rows if m.kind == wire.COSINE]
    assert [m.layer for m in cosines] == [m.layer for m in layers], rows
    assert all(m.name.startswith("d") and 1 - 1e-9 < v <= 1 for m in cosines for v in m.value), cosines
    assert [m.flags for m in cosines] == [wire.TWICE | wire.YES | wire.ACTIVE] + [0] * (len(layers) - 1)
    assert len(sites(job.model)) == len(layers)
    assert job.losses == reference[:len(job.losses)][:5] + job.losses[5:]  # until the swap, bit by bit
    job.steps(12 - len(job.losses))
    assert close(job.losses, reference, 2e-4), (job.losses, reference)

    copied, pickled = copy.deepcopy(job.model), pickle.loads(pickle.dumps(job.model))
    assert not sites(copied) and not sites(pickled)
    router = {"output_router_logits": True} if hasattr(job.model.config, "output_router_logits") else {}
    if name == "granitemoe":
        router = {}  # transformers 5.17 fails on its own with it: no logits are recorded
    swapped_out, swapped = grads(job.model, **router)
    own_out, own = grads(copied, **router)
    near(swapped, own, 1e-5)
    if getattr(own_out, "aux_loss", None) is not None:
        assert own_out.aux_loss.item() and abs(own_out.aux_loss.item() - swapped_out.aux_loss.item()) < 1e-6
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(own_out.router_logits, swapped_out.router_logits))

    off(client, job)
    assert not sites(job.model) and "_moeprof_own" not in str([list(m.__dict__) for m in job.model.modules()])
    for to in (copied, pickled):
        to.load_state_dict(job.model.state_dict())
        assert same_bits(grads(job.model)[1], grads(to)[1])


def fp64():
    """Gradients of a double model: the kernels' reference against autograd."""
    model = models.make("qwen3_moe").double()
    if models.V5:
        model.set_experts_implementation("eager")  # grouped_mm takes no doubles
    job = Job(model)
    client = attached(job)
    on(client, job)
    own = copy.deepcopy(job.model)
    near(grads(job.model)[1], grads(own)[1], 1e-9)


def many_times():
    """100 times on and off: nothing grows, and the same bits after each off."""
    job = Job(models.make("qwen3_moe"), lr=0.0)
    job.optimizer.param_groups[0]["weight_decay"] = 0.0
    client = attached(job)
    before = grads(job.model)[1]  # takes the place of the forward that a boundary would come before
    on(client, job, steps=3)
    for i in range(100):
        off(client, job)
        if i % 10 == 0:
            assert same_bits(grads(job.model)[1], before)
        on(client, job)
        client.notices.clear()
        client.rows.clear()
        if i == 20:
            gc.collect()
            objects, memory = len(gc.get_objects()), rss()
    gc.collect()
    assert len(gc.get_objects()) - objects < 200, len(gc.get_objects()) - objects
    assert rss() - memory < 8 << 20, rss() - memory


def rss():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def checkpointing(kind):
    def make():
        model = models.make("qwen3_moe")
        model.gradient_checkpointing_enable({"use_reentrant": kind == "reentrant"})
        model.enable_input_require_grads()
        return model
    reference = Job(make()).steps(10)
    job = Job(make())
    client = attached(job)
    on(client, job)
    job.steps(10 - len(job.losses))
    assert close(job.losses, reference, 2e-4)
    assert sites(job.model)


def routing_flips():
    """A checkpoint's replay that routes otherwise: the saved tensors keep their shapes, so nothing is raised."""
    model = models.make("qwen3_moe")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    job = Job(model)
    client = attached(job)
    on(client, job)

    def flip(module, args):
        if torch._C._current_graph_task_id() != -1:
            return (args[0] + torch.randn_like(args[0]),) + args[1:]
    for layer in model.model.layers:
        router = layer.mlp.gate
        router.register_forward_pre_hook(flip)
    job.steps(3)
    assert sites(model)


def accumulation():
    reference = Job(models.make("mixtral"), accum=3).steps(6)
    job = Job(models.make("mixtral"), accum=3)
    client = attached(job, steps=2)
    on(client, job)
    job.steps(2)
    assert close(job.losses, reference, 2e-4)


def frozen(what):
    def make():
        model = models.make("qwen3_moe")
        for name, p in model.named_parameters():
            if (what == "experts" and "experts" in name) or (what == "router" and "mlp.gate." in name) or (
                    what == "down" and "down_proj" in name) or (what == "all_but_the_head" and "lm_head" not in name):
                p.requires_grad_(False)
        return model
    reference = Job(make()).steps(9)
    job = Job(make())
    client = attached(job)
    on(client, job, steps=4)
    job.steps(9 - len(job.losses))
    assert sites(job.model) and close(job.losses, reference, 2e-4)
    near(grads(job.model)[1], grads(copy.deepcopy(job.model))[1], 1e-5)


def autocast(dtype):
    """fp32 master weights under autocast: a shadow in the compute dtype, made anew each step."""
    dtype = getattr(torch, dtype)
    job = Job(models.make("qwen3_moe"), autocast=dtype, lr=1e-2)
    client = attached(job)
    rows = on(client, job)
    assert all(m.value[0] < 0.02 for m in rows if m.kind == wire.PARITY)
    call = sites(job.model)[0].forward.experts
    first = [t.clone() for t in call.kept[1]]
    job.steps(2)
    assert sites(job.model)
    assert call.kept[1][0].dtype is dtype and not torch.equal(first[0], call.kept[1][0])
    own = copy.deepcopy(job.model)
    with torch.autocast("cpu", dtype=dtype):
        a, b = grads(job.model)[1], grads(own)[1]
    assert all(g is None or g.dtype is torch.float32 for g in a.values())
    near(a, b, 0.05)


def bfloat16():
    """bf16 weights; routers of Mixtral and DeepSeek hand over fp32 weights."""
    for name in ("qwen3_moe", "deepseek_v3"):
        job = Job(models.make(name).bfloat16())
        client = attached(job, steps=6) if name == "qwen3_moe" else reattached(job, client, folder)
        folder = job.folder
        on(client, job)
        assert sites(job.model)
        near(grads(job.model)[1], grads(copy.deepcopy(job.model))[1], 0.08)


def reattached(job, client, folder):
    """Another model in the same process: the guest follows once it trains."""
    job.folder = folder
    job.steps(8)
    return client


def sentinels():
    """Expert parallelism marks choices of other ranks by an index of E and a weight of 0."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    on(client, job)
    experts = sites(job.model)[0]
    x = torch.randn(20, 32, requires_grad=True)
    index = torch.randint(0, 9, (20, 2))
    score = torch.rand(20, 2).masked_fill(index == 8, 0.0).requires_grad_()
    own, swapped = type(experts).forward.__wrapped__(experts, x, index.clamp(max=7), score), experts.forward(x, index, score)
    assert torch.allclose(own, swapped, atol=1e-6)
    a = torch.autograd.grad(own.sum(), [x, *experts.parameters()])
    b = torch.autograd.grad(swapped.sum(), [x, *experts.parameters()])
    assert all(torch.allclose(p, q, atol=1e-5) for p, q in zip(a, b))


def odd_calls():
    """No tokens, one token, twice in one graph, without gradients, rows that are views, an expanded gradient."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    on(client, job)
    experts = sites(job.model)[0]
    own = lambda *a: type(experts).forward.__wrapped__(experts, *a)
    wide = torch.randn(30, 64)
    for x in (wide[:0, :32], wide[:1, :32], wide[:, 32:], wide[::3, :32], wide[:, :32].t().contiguous().t()):
        x = x.detach().requires_grad_()
        index = torch.randint(0, 8, (x.shape[0], 4))[:, ::2]
        score = torch.rand(x.shape[0], 2, requires_grad=True)
        pair = [f(x, index, score) + f(x * 2, index, score) for f in (own, experts.forward)]
        assert torch.allclose(pair[0], pair[1], atol=1e-6)
        wanted = [x, score, *experts.parameters()]
        if not len(x):  # the job's own loop does not even make a graph
            assert not any(g.any() for g in torch.autograd.grad(pair[1].sum(), wanted))
            continue
        found = [torch.autograd.grad(out.sum(), wanted) for out in pair]
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found))
    with torch.no_grad():
        assert not experts.forward(x, index, score).requires_grad
    x = wide[:, :32].contiguous()
    index, score = torch.randint(0, 8, (30, 2)), torch.rand(30, 2)
    found = [torch.func.grad(lambda x: f(x, index, score).sum())(x) for f in (own, experts.forward)]
    assert torch.equal(*found)
    x.requires_grad_()
    once, = torch.autograd.grad(experts.forward(x, index, score).sum(), x, create_graph=True)
    try:
        once.sum().backward()
        raise AssertionError("a second derivative that nobody computes")
    except RuntimeError as error:
        assert "no second derivative" in str(error), error
    job.model.eval()
    job.model.generate(torch.randint(3, 96, (1, 4)), max_new_tokens=4, do_sample=False)
    job.model.train()
    job.steps(2)
    assert sites(job.model)


def by_python():
    """Tensors that the guest's C does not know it asks Python about, and makes through it: the same bits."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    on(client, job)
    calls, t = [module.forward.experts for module in sites(job.model)], torch.empty(2, 3)
    guest = sites(job.model)[0].forward.__class__.__init__.__globals__["guest"]
    x, index, score = torch.randn(4, 32), torch.zeros(4, 2, dtype=torch.int64), torch.rand(4, 2)

    def fits():
        weights = calls[0].weights.seen(calls[0].weights.tensors())[0]
        calls[0].run(x, index, score)
        return guest.fits(calls[0].last.handle, x, index, score, weights), guest.fits(calls[0].last.handle, x[:2], index, score, weights)

    def backward(make_dout):
        """(did C make them alone, the gradients)"""
        gradients, answers = guest.gradients, []
        guest.gradients = lambda *args: answers.append(gradients(*args)) or answers[-1]
        try:
            ends = [x.clone().requires_grad_(), score.clone().requires_grad_(), *calls[0].weights.tensors()]
            out = calls[0].run(ends[0], index, ends[1])
            found = torch.autograd.grad(out, ends, make_dout(out), allow_unused=True)
        finally:
            guest.gradients = gradients
        assert len(answers) == models.V5  # 4.57 lists its experts: their weights are read where they lie
        return any(answers), dict(enumerate(found))

    def known():
        return guest.tensor_check(t, id(type(t)), t._cdata, t.data_ptr(), (2, 3), t.stride())
    assert fits() == (True, False)
    direct, by_c = grads(job.model)[1], backward(torch.ones_like)
    strided = backward(lambda out: torch.ones(1, 1).expand_as(out))
    assert by_c[0] == models.V5 and not strided[0] and same_bits(by_c[1], strided[1])
    odd = t.as_subclass(type("Odd", (torch.Tensor,), {}))
    assert known() and not guest.tensor_check(odd, id(type(odd)), odd._cdata, odd.data_ptr() + 8, (2, 3), t.stride()) and not known()
    for call in calls:
        call.plans.clear()
        call.last = None
    assert fits() == (False, False)
    by_python = backward(torch.ones_like)
    assert not by_python[0] and same_bits(by_c[1], by_python[1]) and same_bits(direct, grads(job.model)[1])


def unhit():
    """4.57: an expert without tokens gets no gradient where the job's own loop gives none, zeros where it gives zeros."""
    for name, nothing in (("qwen3_moe", True), ("olmoe", False)):
        model = models.make(name)
        job = Job(model)
        if name == "qwen3_moe":
            client = attached(job)
            folder = job.folder
        else:
            job.steps(10)
        on(client, job)
        block = model.model.layers[0].mlp
        x = torch.randn(1, 1, 32)  # one token: two of eight experts
        out = block(x)[0]
        found = torch.autograd.grad(out.sum(), list(block.experts.parameters()), allow_unused=True)
        empty = [g for g in found if g is None]
        assert len(empty) == (6 * 3 if nothing else 0), (name, len(empty))
        off(client, job)


def trl(adapters=None):
    """trl's SFTTrainer: bf16 autocast, gradient clipping, checkpointing as it sets them, with or without PEFT."""
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "samples"))
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    import datasets
    import peft
    from swap_trl import tokenizer
    from trl import SFTConfig, SFTTrainer
    draw = torch.Generator().manual_seed(5)
    rows = [{"input_ids": torch.randint(3, 96, (24,), generator=draw).tolist()} for _ in range(32)]
    config = peft.LoraConfig(r=4, lora_dropout=0.0, target_modules=["q_proj"], target_parameters=[
        "mlp.experts.gate_up_proj", "mlp.experts.down_proj"]) if adapters else None

    def run():
        settings = SFTConfig(output_dir=tempfile.mkdtemp(), max_steps=10, per_device_train_batch_size=2, logging_steps=1,
                             gradient_accumulation_steps=1, max_length=24, save_strategy="no", report_to="none",
                             bf16=True, use_cpu=True, learning_rate=1e-3, disable_tqdm=True, seed=1)
        torch.manual_seed(1)
        trainer = SFTTrainer(model=models.make("qwen3_moe"), args=settings, train_dataset=datasets.Dataset.from_list(rows),
                             processing_class=tokenizer(96), peft_config=config)
        trainer.train()
        return trainer.model, [row["loss"] for row in trainer.state.log_history if "loss" in row]
    _, reference = run()
    wire.attach(tempfile.mkdtemp(), ",swap=moeprof")
    model, losses = run()
    assert len(sites(model)) == 2 and len(losses) == len(reference) == 10
    assert losses[:2] == reference[:2] and close(losses, reference, 2e-2), (losses, reference)


def by_hand(rule):
    """A block that nobody declared anything of: how it weighs is seen at a call, held against by parity."""
    import test_blocks_by_hand as blocks
    rule = rule.replace("_", " ")

    def made():
        torch.manual_seed(0)
        return models.HandWritten(lambda: blocks.Block(rule))

    class Loop(Job):
        def step(self):
            ids = torch.randint(3, 96, (2, 12), generator=self.generator)
            loss = self.model(ids, ids)
            loss.backward()
            self.losses.append(loss.item())
            self.optimizer.step()
            self.optimizer.zero_grad()
    reference = Loop(made()).steps(12)
    job = Loop(made())
    client = attached(job)
    state = [m for m in ask(client, job.step, wire.STATUS, steps=1) if m.kind == wire.LAYER]
    if rule == "exotic":
        rows = on(client, job, code=wire.EPARITY)
        assert "layer 0" in rows[-1].text and not sites(job.model)
        return
    assert len(state) == 2 and all(m.flags & wire.YES for m in state), state
    rows = on(client, job)
    assert all(m.value[0] < 1e-5 for m in rows if m.kind == wire.PARITY)
    job.steps(12 - len(job.losses))
    assert len(sites(job.model)) == 2 and close(job.losses, reference, 2e-4), (job.losses, reference)
    off(client, job)
    assert not sites(job.model)


def liger_class():
    """What stands in liger_kernel.transformers.swiglu for transformers' experts once its patch is applied: the same parameters, nothing
    declared, a forward of its own. That needs a GPU, so this one loops."""
    class LigerExperts(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.num_experts, self.hidden_dim, self.intermediate_dim = config.num_experts, config.hidden_size, config.moe_intermediate_size
            self.gate_up_proj = torch.nn.Parameter(torch.empty(self.num_experts, 2 * self.intermediate_dim, self.hidden_dim))
            self.down_proj = torch.nn.Parameter(torch.empty(self.num_experts, self.hidden_dim, self.intermediate_dim))

        def forward(self, hidden_states, top_k_index, top_k_weights):
            x, out = hidden_states.view(-1, self.hidden_dim), torch.zeros_like(hidden_states.view(-1, self.hidden_dim))
            for e in range(self.num_experts):
                rows, slot = torch.where(top_k_index == e)
                gate, up = torch.nn.functional.linear(x[rows], self.gate_up_proj[e]).chunk(2, -1)
                y = torch.nn.functional.linear(torch.nn.functional.silu(gate) * up, self.down_proj[e])
                out = out.index_add(0, rows, y * top_k_weights[rows, slot, None])
            return out.view(hidden_states.shape)
    LigerExperts.__module__ = "liger_kernel.transformers.swiglu"
    return LigerExperts


def liger(how):
    """Liger's experts, put there for the class before the model is made, or for each instance after it."""
    from transformers.models.qwen3_moe import modeling_qwen3_moe as modeling
    kind = liger_class()

    def made():
        model = models.make("qwen3_moe")
        for module in model.modules():
            if isinstance(module, kind):
                with torch.no_grad():
                    [torch.nn.init.normal_(p, std=0.02) for p in module.parameters()]
            elif how == "instance" and type(module).__name__ == "Qwen3MoeExperts":
                module.__dict__["forward"] = kind.forward.__get__(module)
        return model
    if how == "class":
        modeling.Qwen3MoeExperts = kind
    reference = Job(made()).steps(12)
    job = Job(made())
    client = attached(job)
    rows = on(client, job)
    assert all(m.value[2] <= 2 for m in rows if m.kind == wire.PARITY), rows
    job.steps(12 - len(job.losses))
    assert len(sites(job.model)) == 2 and close(job.losses, reference, 2e-4), (job.losses, reference)
    off(client, job)
    forward = next(m for m in job.model.modules() if hasattr(m, "gate_up_proj")).forward
    assert not sites(job.model) and forward.__func__ is kind.forward


def optimizer_state():
    """Not a bit of it changes where arms change and nothing is stepped."""
    job = Job(models.make("qwen3_moe"))
    client = attached(job)
    on(client, job), off(client, job)
    swapper = sites_globals(client, job)["swapper"]
    before = copy.deepcopy(job.optimizer.state_dict())
    for arm in ("moeprof", "original", "eager" if models.V5 else "moeprof", "original"):
        swapper.switch(arm, {} if arm == "original" else swapper.experts_of(arm))
        assert bool(sites(job.model)) == (arm != "original")
        after = job.optimizer.state_dict()
        assert before["param_groups"] == after["param_groups"] and before["state"].keys() == after["state"].keys()
        assert all(same_bits(before["state"][k], after["state"][k]) for k in before["state"])
    assert before["state"]


def sites_globals(client, job):
    """The guest's own names."""
    on(client, job)
    found = sites(job.model)[0].forward.__class__.__init__.__globals__
    off(client, job)
    return found


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
