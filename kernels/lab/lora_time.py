"""Adapters on stacked experts: the kernels beside PEFT's own way, forward and backward, interleaved in one run.

  python3 kernels/lab/lora_time.py [H,I,E,K] [T[,T...]] [RANK[,RANK...]] [-n N] [--steps]
Arms: PEFT over transformers' grouped_mm, as a job runs it (weight + delta made in each call); the kernels with the sum
made for the call; the kernels with the adapters as they are. Frozen weights, adapters in fp32, gradients of x, the
scores and the adapters. Errors are against the first arm. Times with CUDA events, L2 flushed. --steps: single steps too.
"""
import argparse, statistics as st
import torch
import mk

dev = 'cuda' if torch.cuda.is_available() else 'cpu'
bf = torch.bfloat16


def site(H, I, E, K, rank):
    """A module whose experts PEFT has wrapped, and its adapters' tensors: A and B on gate and up, on down."""
    import peft, transformers
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts
    config = transformers.Qwen3MoeConfig(hidden_size=H, moe_intermediate_size=I, num_experts=E, num_experts_per_tok=K)
    config._experts_implementation = 'grouped_mm' if dev == 'cuda' else 'eager'

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = Qwen3MoeExperts(config)

        def forward(self, x, index, score):
            return self.experts(x, index, score)

    layer = Layer().to(dev, bf)
    for p in layer.parameters(): torch.nn.init.normal_(p, std=.02)
    layer = peft.get_peft_model(layer, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_parameters=['experts.gate_up_proj', 'experts.down_proj']))
    wrapped = {m.parameter_name: m for m in layer.modules() if hasattr(m, 'parameter_name')}
    low = [t for n in ('gate_up_proj', 'down_proj') for t in (wrapped[n].lora_A['default'].weight, wrapped[n].lora_B['default'].weight)]
    for t in low: torch.nn.init.normal_(t, std=.02)
    return layer.base_model.model, low, [wrapped[n].scaling['default'] for n in ('gate_up_proj', 'down_proj')], next(m for m in layer.modules() if type(m) is Qwen3MoeExperts)


def describe(cls, low, I, E, rank, **more):
    """PEFT's tensors, or gradients of their shapes, where they lie."""
    a = lambda t: mk.Matrix(t.data_ptr(), None, 0, rank * t.shape[1], t.shape[1], 1)
    b = lambda t, first: mk.Matrix(t.data_ptr() + first * rank * E * t.element_size(), None, 0, 1, rank * E, E)
    ua, ub, da, db = low
    return mk.lora(cls, ua.dtype, up_a=a(ua), gate_b=b(ub, 0), up_b=b(ub, I), down_a=a(da), down_b=b(db, 0), **more)


class Arms:
    def __init__(self, shape, T, rank):
        self.H, self.I, self.E, self.K = shape
        self.rank, self.path = rank, {}
        self.layer, self.low, self.scale, self.experts = site(*shape, rank)
        self.x = torch.randn(T, self.H, device=dev, dtype=bf).requires_grad_()
        w, self.index = torch.topk(torch.softmax(torch.randn(T, self.E, device=dev), -1), self.K, -1)
        self.score = (w / w.sum(-1, keepdim=True)).to(bf).requires_grad_()
        self.g = torch.randn(T, self.H, device=dev, dtype=bf)

    def peft(self):
        leaves = [self.x, self.score, *self.low]
        y = self.layer(self.x, self.index, self.score)
        return [y, *torch.autograd.grad(y, leaves, self.g)]

    def problem(self, gu, dn, lora=None):
        return mk.Problem(self.x.detach(), self.index, self.score.detach(), *mk.concat(gu), mk.matrix(dn), self.I, self.E, lora=lora)

    def merged(self):
        """The sum made for the call and again for its backward, weight gradients reduced to A and B by autograd."""
        def sums(leaves):
            found = []
            for w, a, b, s in ((self.experts.gate_up_proj, *leaves[:2], self.scale[0]), (self.experts.down_proj, *leaves[2:], self.scale[1])):
                left, right = b.view(b.shape[0], self.rank, self.E).permute(2, 0, 1), a.view(self.E, self.rank, -1)
                found.append(torch.baddbmm(w.detach(), left.to(bf), right.to(bf), alpha=s))
            return found
        with torch.no_grad(): gu, dn = sums(self.low)
        p = self.problem(gu, dn)
        y, saved = p.forward()
        del gu, dn, p
        leaves = [t.detach().requires_grad_() for t in self.low]
        with torch.enable_grad(): gu, dn = sums(leaves)
        p = self.problem(gu, dn)
        dgu, ddn, dx, ds = torch.empty_like(gu), torch.empty_like(dn), torch.empty_like(self.x), torch.empty_like(self.score)
        p.backward(saved, self.g, dx, ds, *mk.concat(dgu), mk.matrix(ddn), bf)
        return [y, dx, ds, *torch.autograd.grad([gu, dn], leaves, [dgu, ddn])]

    def adapters(self, flags=0, forward_steps=0, backward_steps=0):
        lora = describe(mk.Lora, self.low, self.I, self.E, self.rank, up_rank=self.rank, down_rank=self.rank, up_scale=self.scale[0], down_scale=self.scale[1])
        p = self.problem(self.experts.gate_up_proj, self.experts.down_proj, lora)
        y, saved = p.forward(flags=flags, steps=forward_steps)
        out = [torch.empty_like(t) for t in self.low]
        dx, ds = torch.empty_like(self.x), torch.empty_like(self.score)
        p.backward(saved, self.g, dx, ds, mk.Matrix(), mk.Matrix(), mk.Matrix(), bf, flags=flags, steps=backward_steps,
                   dlora=describe(mk.LoraGrad, out, self.I, self.E, self.rank))
        self.path[flags] = p.path(flags)
        return [y, dx, ds, *out]


def timed(arms, n):
    """Milliseconds of each arm, in turn, L2 flushed."""
    flush, ms = torch.empty(64 << 20, dtype=torch.int32, device=dev), {name: [] for name in arms}
    for i in range(n + 2):
        for name, f in arms.items():
            a, b = torch.cuda.Event(True), torch.cuda.Event(True)
            flush.zero_(); a.record(); f(); b.record(); torch.cuda.synchronize()
            if i > 1: ms[name].append(a.elapsed_time(b))
    return ms


def error(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30)).item()


def report(shape, T, rank, n, steps):
    a = Arms(shape, T, rank)
    arms = {'peft': a.peft, 'merged': a.merged, 'adapters': a.adapters, 'adapters, portable': lambda: a.adapters(mk.PORTABLE)}
    want = arms['peft']()
    for name in ('merged', 'adapters', 'adapters, portable'):
        names = ('y', 'dx', 'dscore', 'dA up', 'dB up', 'dA down', 'dB down')
        print(f'T={T} rank {rank} {name}: against PEFT ' + ' '.join(f'{k} {error(g, w):.1e}' for k, g, w in zip(names, arms[name](), want)), flush=True)
    del want
    if dev == 'cpu': return
    ms = timed(arms, n)
    base = st.median(ms['peft'])
    for name, t in ms.items():
        print(f'T={T} rank {rank} {name:20s} {st.median(t):8.3f} ms ({min(t):.3f}..{max(t):.3f}, n={n})  {base / st.median(t):.2f} x PEFT' + (f'  [{a.path[0]}]' if name == 'adapters' else ''), flush=True)
    if steps: step_times(a, T, rank, n)


def step_times(a, T, rank, n):
    """What adapters cost in each product: the step with them and without, and their own part. Buffers hold a whole call's values."""
    lora = describe(mk.Lora, a.low, a.I, a.E, rank, up_rank=rank, down_rank=rank, up_scale=a.scale[0], down_scale=a.scale[1])
    out, dx, ds = [torch.empty_like(t) for t in a.low], torch.empty_like(a.x), torch.empty_like(a.score)
    grad, none, arms = describe(mk.LoraGrad, out, a.I, a.E, rank), mk.Matrix(), {}
    for tag, l in (('with', lora), ('without', None)):
        p = a.problem(a.experts.gate_up_proj, a.experts.down_proj, l)
        y, saved, work, back = torch.empty_like(a.x), *(mk.nbytes(k) for k in (p.sizes.saved, p.sizes.forward_workspace, p.sizes.backward_workspace))
        fwd = lambda s, p=p, y=y, saved=saved, work=work: p.forward(y, saved, work, steps=s)
        bwd = lambda s, p=p, saved=saved, back=back, d=grad if l else None: p.backward(saved, a.g, dx, ds, none, none, none, bf, work=back, steps=s, dlora=d)
        fwd(0); bwd(0)
        for name, f, s in (('up', fwd, mk.UP), ('down', fwd, mk.DOWN), ('dact', bwd, mk.DACT), ('dx', bwd, mk.DX), ('own, forward', fwd, mk.LORA), ('own, backward', bwd, mk.LORA)):
            if l or s != mk.LORA: arms[f'{name} {tag}'] = lambda f=f, s=s: f(s)
    for name, t in timed(arms, n).items(): print(f'T={T} rank {rank} {name:20s} {st.median(t):8.3f} ms', flush=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('shape', nargs='?', default='2048,768,128,8'); ap.add_argument('tokens', nargs='?', default='4096,32768')
    ap.add_argument('ranks', nargs='?', default='16,64'); ap.add_argument('-n', type=int, default=7); ap.add_argument('--steps', action='store_true')
    o = ap.parse_args()
    if dev == 'cuda': print(torch.cuda.get_device_name(), flush=True)
    for T in map(int, o.tokens.split(',')):
        for rank in map(int, o.ranks.split(',')): report(tuple(map(int, o.shape.split(','))), T, rank, o.n, o.steps)


if __name__ == '__main__': main()
