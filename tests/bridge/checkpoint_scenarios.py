"""Trainings put together in ways that no module hook sees, told apart by the real guest:

  checkpoint_scenarios.py LIBPROBE FOLDER NAME     prints the kernels that were booked elsewhere than the job says

What such jobs have (unsloth's are like that): a checkpoint of their own, which replays the layer inside its backward
and runs a second backward there; layers compiled one by one, whose kernels an autograd.Function launches; projections
and their adapters fused into one Function, with no module called; a loss that multiplies by the head's weight itself.
"""
import json
import re
import sys

import torch
from torch import nn

import probe

HIDDEN, EXPERTS, VOCAB, LAYERS = 32, 4, 96, 3


class Lora(nn.Module):
    """Adapters are cast before they are used: no kernel reads them where they lie."""

    def __init__(self):
        super().__init__()
        self.base_layer = nn.Linear(HIDDEN, HIDDEN, bias=False).requires_grad_(False)
        self.lora_A, self.lora_B = nn.Linear(HIDDEN, 4, bias=False), nn.Linear(4, HIDDEN, bias=False)

    def forward(self, x):
        a, b = self.lora_A.weight.double().t(), self.lora_B.weight.double().t()
        return self.base_layer(x) + (x.double() @ a @ b).float()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (Lora() for _ in range(4))

    def forward(self, x):
        q, k, v = (p(x).view(*x.shape[:2], 4, -1).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(x.shape))


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN), requires_grad=False)

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(EXPERTS, HIDDEN, 16) * 0.02, requires_grad=False)
        self.down_proj = nn.Parameter(torch.randn(EXPERTS, 16, HIDDEN) * 0.02, requires_grad=False)

    def forward(self, x, weights):
        y = torch.bmm(torch.bmm(x.expand(EXPERTS, *x.shape), self.gate_up_proj).relu(), self.down_proj)
        return (y * weights.t()[..., None]).sum(0)


class Moe(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(HIDDEN, EXPERTS, bias=False), Experts()

    def forward(self, x):
        flat = x.reshape(-1, HIDDEN)
        return self.experts(flat, self.gate(flat).softmax(-1)).view_as(x)


class Again(torch.autograd.Function):
    """A checkpoint as frameworks write it themselves."""

    @staticmethod
    def forward(ctx, gpu, layer, run, x):
        ctx.gpu, ctx.layer, ctx.run, ctx.x = gpu, layer, run, x
        with torch.no_grad():
            return run(x)

    @staticmethod
    def backward(ctx, gradient):
        with ctx.gpu.truth.at(layer=ctx.layer):
            x = ctx.x.detach().requires_grad_(True)
            ctx.gpu.kernel("cast_kernel", None)  # what it saved is another type's
            with torch.enable_grad(), ctx.gpu.truth.at(passed="recompute"):
                y = ctx.run(x)
            torch.autograd.backward(y, gradient)
        return None, None, None, x.grad


class Fused(torch.autograd.Function):
    """Kernels in one Function: (name, phase, weight it reads where it lies, or None)."""

    @staticmethod
    def forward(ctx, x, gpu, kernels):
        ctx.gpu, ctx.kernels, ctx.layer = gpu, kernels, gpu.truth.layer
        ctx.save_for_backward(x)
        for name, phase, *weights in kernels:
            gpu.kernel(name, phase, *weights)
        return x * 1.5

    @staticmethod
    def backward(ctx, gradient):
        _ = ctx.saved_tensors
        for name, phase, *weights in reversed(ctx.kernels):
            ctx.gpu.kernel(name, phase, *weights, layer=ctx.layer)
        return gradient * 1.5, None, None


class Layer(nn.Module):
    def __init__(self, gpu, index):
        super().__init__()
        self.gpu, self.index = [gpu], index
        self.input_layernorm, self.self_attn = Norm(), Attention()
        self.post_attention_layernorm, self.mlp = Norm(), Moe()

    def forward(self, x):
        truth = self.gpu[0].truth
        with truth.at(layer=self.index):
            y = self.parts(x)
        if y.requires_grad:  # its backward begins when its gradient is there
            y.register_hook(lambda _: setattr(truth, "layer", self.index))
        return y

    def parts(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Checkpointed(Layer):
    def __call__(self, x):
        return Again.apply(self.gpu[0], self.index, super().__call__, x)


def by_functions(self, x):
    """No module is called: norms, projections, adapters, experts."""
    attention, moe, gpu = self.self_attn, self.mlp, self.gpu[0]
    x = Fused.apply(x, gpu, [("triton_rms_forward", "norm", self.input_layernorm.weight)])
    x = Fused.apply(x, gpu, [row for p in (attention.q_proj, attention.k_proj, attention.v_proj) for row in (
        ("nvjet_base", "attention", p.base_layer.weight), ("nvjet_lora_a", "attention"), ("nvjet_lora_b", "attention"))])
    gpu.kernel("triton_rope", "attention")
    x = Fused.apply(x, gpu, [("flash_fwd", "attention")])
    x = Fused.apply(x, gpu, [("nvjet_lora", "attention"), ("nvjet_base", "attention", attention.o_proj.base_layer.weight)])
    gpu.kernel("vectorized_elementwise_kernel_add", "attention")
    x = Fused.apply(x, gpu, [("triton_rms_forward", "norm", self.post_attention_layernorm.weight)])
    x = Fused.apply(x, gpu, [("nvjet_gate", "router", moe.gate.weight)])
    return Fused.apply(x, gpu, [("grouped_gemm_up", "expert", moe.experts.gate_up_proj), ("triton_swiglu", "expert"),
                                ("grouped_gemm_down", "expert", moe.experts.down_proj)])


class Model(nn.Module):
    def __init__(self, gpu, kind):
        super().__init__()
        self.gpu = [gpu]
        self.embed_tokens = nn.Embedding(VOCAB, HIDDEN)
        self.layers = nn.ModuleList(kind(gpu, i) for i in range(LAYERS))
        self.norm, self.lm_head = Norm(), nn.Linear(HIDDEN, VOCAB, bias=False)

    def forward(self, ids):
        gpu = self.gpu[0]
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        # The loss multiplies by the head's weight, chunk by chunk, and makes the gradient in its forward.
        x = Fused.apply(x, gpu, [("nvjet_chunk", "lm_head", self.lm_head.weight), ("triton_log_softmax", "loss")] * 2)
        return x.pow(2).mean()


class Own(torch.optim.Optimizer):
    """An optimizer that is none of torch's."""

    def __init__(self, params, gpu):
        super().__init__(params, {})
        self.gpu = [gpu]

    def step(self):
        self.gpu[0].kernel("kOptimizerStatic8bit", "optimizer", passed="update", layer=-1)
        self.gpu[0].kernel("vectorized_elementwise_kernel", "optimizer", passed="update", layer=-1)


PARTS = (("self_attn", "attention"), ("experts", "expert"), ("gate", "router"), ("lm_head", "lm_head"))


def modules_of(node):
    stack = node.meta.get("nn_module_stack") or node.meta.get("fwd_nn_module_stack") or {}
    return " ".join(str(entry[0]) for entry in stack.values())


def phase_of(node):
    """Of a product or attention in compiled code; what is fused around them has no one phase."""
    if probe.kernel_name(node.target).startswith("triton"):
        return None
    return next((phase for word, phase in PARTS if word in modules_of(node)), None)


def layer_of(node):
    """By the module that a node of the graph comes from; None: the job knows, or nobody."""
    found = re.search(r"layers(?:\.|'\]\._modules\['|\[)(\d+)", modules_of(node)) if phase_of(node) else None
    return int(found.group(1)) if found else None


def compiled(gpu, kind):
    """The class's forward is replaced by one that calls a compiled one: the layer's own hooks fire, its parts' do not."""
    inner = torch.compile(kind.parts, backend=probe.compiler(gpu, phase_of))
    return type(kind.__name__, (kind,), {"parts": lambda self, x: inner(self, x)})


class NotReentrant(Layer):
    def __call__(self, x):
        truth = self.gpu[0].truth

        def run(x):
            with truth.at(passed="recompute" if truth.passed == "backward" else "forward"):
                return super(NotReentrant, self).__call__(x)
        return torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False)


class Whole(Model):
    """Traced as one graph, with a head that is called."""

    def __init__(self, gpu):
        super().__init__(gpu, type("Traced", (Layer,), {"forward": Layer.parts}))

    def forward(self, ids):
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x)).pow(2).mean()


def by_function_layers(kind):
    return type("ByFunctions", (kind,), {"parts": by_functions})


SCENARIOS = {
    "compiled": lambda gpu: Model(gpu, compiled(gpu, Checkpointed)),
    "compiled, no checkpoint": lambda gpu: Model(gpu, compiled(gpu, Layer)),
    "compiled, non-reentrant": lambda gpu: Model(gpu, compiled(gpu, NotReentrant)),
    "compiled as a whole, no checkpoint": lambda gpu: torch.compile(Whole(gpu), backend=probe.compiler(gpu, phase_of, layer_of)),
    "functions": lambda gpu: Model(gpu, by_function_layers(Checkpointed)),
    "functions, no checkpoint": lambda gpu: Model(gpu, by_function_layers(Layer)),
    "functions, non-reentrant": lambda gpu: Model(gpu, by_function_layers(NotReentrant)),
}


def main(library, folder, name):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gpu = probe.Gpu(library, folder)
    model = SCENARIOS[name](gpu).train()
    optimizer = Own([p for p in model.parameters() if p.requires_grad], gpu)
    for step in range(3):
        ids = torch.randint(0, VOCAB, (2, 8))
        loss = model(ids)
        gpu.backward(loss)
        gpu.kernel("multi_tensor_apply_kernel_norm", "gradient", layer=-1)
        optimizer.step()
        optimizer.zero_grad()
        if step == 0:
            gpu.wait()
    counts = {passed: sum(row[1][2] == passed for row in gpu.rows) for passed in probe.PASSES}
    other = sorted({row for row in gpu.rows if row[2][1] == "other"}, key=str)
    print(json.dumps({"wrong": gpu.wrong(), "other": other, "kernels": counts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
