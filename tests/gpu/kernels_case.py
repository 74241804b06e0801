"""What the checks of the kernels share: random cases, their fp64 reference, the eager loop, and the call of the kernels."""
import os, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../kernels/lab'))
import torch
import torch.nn.functional as F
import mk

dev = 'cuda' if torch.cuda.is_available() else 'cpu'
bf, fp16, f32, f64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
LIMIT = 7.
ADAPTERS = 'ga ua ub da db'.split()  # A of gate where it has its own, A and B on gate and up, A and B on down
NAMES = 'y dx dscore dgate_up ddown dgate_b dup_b ddown_b'.split() + ['dlora_' + n for n in ADAPTERS]


def act(a, g, u):
    if a == mk.SWIGLU: return F.silu(g) * u
    if a == mk.GEGLU_TANH: return F.gelu(g, approximate='tanh') * u
    if a == mk.GEGLU_ERF: return F.gelu(g) * u
    if a == mk.RELU2: return F.relu(u).square()
    g, u = g.clamp(max=LIMIT), u.clamp(-LIMIT, LIMIT)
    return g * torch.sigmoid(1.702 * g) * (u + 1)


class Case:
    """lora: dict(up=, down= ranks, apart=, form='peft' or 'dense', dtype=). Adapters are kept as PEFT keeps them: A (E*R, in), B (out, R*E)."""

    def __init__(c, T, H, I, E, K, act=mk.SWIGLU, bias=False, routing='uniform', index=torch.int64, score=bf, sentinel=0, dtype=bf, seed=0, lora=None):
        torch.manual_seed(seed)
        c.T, c.H, c.I, c.E, c.K, c.act, c.gated, c.dtype = T, H, I, E, K, act, act != mk.RELU2, dtype
        lo = torch.randn(T, E, device=dev)
        if routing == 'one': lo[:, 0] += 100.
        if routing == 'half': lo[:, E // 2:] -= 100.
        w, i = torch.topk(torch.softmax(lo, -1), K, -1)
        if sentinel: i = torch.where(torch.rand(T, K, device=dev) < sentinel, E + 3, i)
        c.idx, c.s = i.to(index), (w / w.sum(-1, keepdim=True)).to(score)
        r = lambda *n, k=1.: (torch.randn(*n, device=dev) * k).to(dtype)
        c.x, c.g = r(T, H), r(T, H)
        c.n_half = 2 if c.gated else 1
        c.gu, c.dn = r(E, c.n_half * I, H, k=H ** -.5), r(E, H, I, k=I ** -.5)
        c.bias = [r(E, I, k=.3), r(E, I, k=.3), r(E, H, k=.3)] if bias else [None] * 3
        c.lora, c.low = lora, dict.fromkeys(ADAPTERS)
        if lora: c.make_adapters(r, **lora)

    def make_adapters(c, r, up=8, down=8, apart=False, form='peft', dtype=f32):
        c.up, c.down, c.apart, c.form, c.low_dtype, c.up_scale, c.down_scale = up, down, apart, form, dtype, 2., .5
        # rounded as all inputs are, whatever type holds them; on gate and up an adapter gives half of what the weights do
        low = lambda *n, k: r(*n, k=k ** -.5).to(dtype)
        if apart: c.low['ga'] = low(c.E * up, c.H, k=c.H)
        if up: c.low.update(ua=low(c.E * up, c.H, k=c.H), ub=low(c.n_half * c.I, up * c.E, k=16 * up))
        if down: c.low.update(da=low(c.E * down, c.I, k=c.I), db=low(c.H, down * c.E, k=16 * down))

    def leaves(c, dtype):
        """x, score, weights, biases, adapters, anew in a type, to be differentiated."""
        return [None if t is None else t.detach().to(dtype).requires_grad_() for t in (c.x, c.s, c.gu, c.dn, *c.bias, *c.low.values())]

    def deltas(c, ga, ua, ub, da, db):
        """scale * B A of gate and up (E, n_half I, H), and of down (E, H, I); None where there is none."""
        a = lambda t, R: t.view(c.E, R, -1)
        b = lambda t, R: t.view(t.shape[0], R, c.E).permute(2, 0, 1)
        up = None
        if ua is not None and c.apart: up = torch.cat((b(ub, c.up)[:, :c.I] @ a(ga, c.up), b(ub, c.up)[:, c.I:] @ a(ua, c.up)), 1) * c.up_scale
        elif ua is not None: up = b(ub, c.up) @ a(ua, c.up) * c.up_scale
        return up, None if da is None else b(db, c.down) @ a(da, c.down) * c.down_scale


def grads(leaves):
    return [None if t is None else torch.zeros_like(t) if t.grad is None else t.grad for t in leaves]


def weights_with(c, gu, dn, low):
    """The weights with the adapters in them, as PEFT's own path computes."""
    up, down = c.deltas(*low)
    return gu if up is None else gu + up.to(gu.dtype), dn if down is None else dn + down.to(dn.dtype)


def loop(c, dtype):
    """The eager loop in a type: output and gradients."""
    leaves = x, s, gu, dn, gb, ub, db, *low = c.leaves(dtype)
    gu, dn = weights_with(c, gu, dn, low)
    y = torch.zeros(c.T, c.H, device=dev, dtype=dtype)
    for e in range(c.E):
        t, k = torch.where(c.idx == e)
        h = F.linear(x[t], gu[e])
        g, u = (h[:, :c.I], h[:, c.I:]) if c.gated else (None, h)
        if gb is not None: g = g + gb[e] if c.gated else g; u = u + ub[e]
        o = F.linear(act(c.act, g, u), dn[e])
        if db is not None: o = o + db[e]
        y = y.index_add(0, t, o * s[t, k, None])
    if c.T: y.backward(c.g.to(dtype))
    return [y.detach()] + grads(leaves)


def reference(c):
    """fp64, all experts at once on rows padded to the largest: a few launches a case, where the loop needs thousands."""
    leaves = x, s, gu, dn, gb, ub, db, *low = c.leaves(f64)
    gu, dn = weights_with(c, gu, dn, low)
    e = c.idx.long().flatten()
    row = torch.where((e >= 0) & (e < c.E))[0]
    row = row[torch.argsort(e[row], stable=True)]
    e, count = e[row], torch.bincount(e[row], minlength=c.E)
    most = int(count.max()) if len(row) else 0
    slot = e * most + torch.arange(len(row), device=dev) - (count.cumsum(0) - count)[e]
    rows = torch.zeros(c.E * most, c.H, device=dev, dtype=f64).index_copy(0, slot, x[row // c.K]).view(c.E, most, c.H)
    h = rows @ gu.transpose(1, 2)
    g, u = (h[..., :c.I], h[..., c.I:]) if c.gated else (None, h)
    if gb is not None: g = g + gb[:, None] if c.gated else g; u = u + ub[:, None]
    o = act(c.act, g, u) @ dn.transpose(1, 2)
    if db is not None: o = o + db[:, None]
    o = o.reshape(c.E * most, c.H)[slot] * s.flatten()[row, None]
    y = torch.zeros(c.T, c.H, device=dev, dtype=f64).index_add(0, row // c.K, o)
    if c.T: y.backward(c.g.double())
    return [y.detach()] + grads(leaves)


# ---- the kernels' side

def weights(c, layout):
    """(gate, up, down) descriptors, and the tensors that hold gate and up, and down, in that layout."""
    if not c.gated: return [mk.Matrix(), mk.matrix(c.gu), mk.matrix(c.dn)], c.gu, c.dn
    if layout == 'concat': return mk.concat(c.gu) + [mk.matrix(c.dn)], c.gu, c.dn
    if layout == 'interleaved':
        gu = torch.stack((c.gu[:, :c.I], c.gu[:, c.I:]), 2).reshape(c.E, 2 * c.I, c.H).contiguous()
        return mk.interleaved(gu) + [mk.matrix(c.dn)], gu, c.dn
    if layout == 'transposed':
        gu, dn = c.gu.transpose(1, 2).contiguous().transpose(1, 2), c.dn.transpose(1, 2).contiguous().transpose(1, 2)
        return mk.concat(gu) + [mk.matrix(dn)], gu, dn
    if layout == 'gptoss':
        gu = torch.stack((c.gu[:, :c.I], c.gu[:, c.I:]), 2).reshape(c.E, 2 * c.I, c.H).transpose(1, 2).contiguous().transpose(1, 2)
        dn = c.dn.transpose(1, 2).contiguous().transpose(1, 2)
        return mk.interleaved(gu) + [mk.matrix(dn)], gu, dn
    raise ValueError(layout)


def list_matrix(ts):
    """Separate tensors, one an expert, as one descriptor."""
    base = min(t.data_ptr() for t in ts)
    off = torch.tensor([(t.data_ptr() - base) // t.element_size() for t in ts], device=dev)
    m = mk.Matrix(base, off.data_ptr(), int(off.max()), 0, ts[0].stride(0), ts[0].stride(1))
    m.keep = (ts, off)
    return m


def expert_list(c):
    n, gs, us, ds = c.gu.shape[1] // 2, [], [], []
    for e in range(c.E):  # extra allocations between them, so that their distances differ
        gs.append(c.gu[e, :n].clone()); ds.append(c.dn[e].clone()); us.append(c.gu[e, n:].clone()); torch.empty(1 + 977 * e, device=dev)
    return [list_matrix(gs), list_matrix(us), list_matrix(ds)]


def place_b(c, t, rank, turn):
    """A B (out, R*E) as the case keeps it: gate and up rows alternating where turn, dense (E, out, R) where the form says so."""
    if turn: t = torch.stack((t[:c.I], t[c.I:]), 1).flatten(0, 1)
    return t.reshape(-1, rank, c.E).permute(2, 0, 1).contiguous() if c.form == 'dense' else t.contiguous()


def unplace_b(c, t, rank, turn):
    if c.form == 'dense': t = t.permute(1, 2, 0).reshape(-1, rank * c.E)
    return torch.cat((t[0::2], t[1::2])) if turn else t


def b_matrix(c, t, rank, first, step):
    strides = (t.stride(0), step * t.stride(1), 1) if c.form == 'dense' else (1, step * rank * c.E, c.E)
    return mk.Matrix(t.data_ptr() + first * strides[1] // step * t.element_size(), None, 0, *strides)


def adapters(c, cls, low, turn, dtype, **more):
    """A Lora or LoraGrad struct over tensors that place_b placed."""
    a = lambda t, R: mk.Matrix() if t is None else mk.Matrix(t.data_ptr(), None, 0, R * t.shape[1], t.shape[1], 1)
    f = dict(gate_a=a(low['ga'], c.up), up_a=a(low['ua'], c.up), down_a=a(low['da'], c.down))
    if c.up and c.gated: f['gate_b'] = b_matrix(c, low['ub'], c.up, 0, 2 if turn else 1)
    if c.up: f['up_b'] = b_matrix(c, low['ub'], c.up, 0 if not c.gated else 1 if turn else c.I, 2 if turn else 1)
    if c.down: f['down_b'] = b_matrix(c, low['db'], c.down, 0, 1)
    return mk.lora(cls, dtype, **f, **more)


def lora_call(c, layout, accumulate):
    """(Lora, LoraGrad, how to read the gradients back), or Nones."""
    if not c.lora: return None, None, lambda: [None] * len(ADAPTERS)
    turn, rank = layout in ('interleaved', 'gptoss') and c.gated, dict(ub=c.up, db=c.down)
    placed = {n: t if t is None or n not in rank else place_b(c, t, rank[n], turn and n == 'ub') for n, t in c.low.items()}
    out = {n: None if t is None else torch.full_like(t, .5 if accumulate else float('nan')) for n, t in placed.items()}
    lora = adapters(c, mk.Lora, placed, turn, c.low_dtype, up_rank=c.up, down_rank=c.down, apart=c.apart, up_scale=c.up_scale, down_scale=c.down_scale)
    lora.keep = placed
    back = lambda: [t if t is None or n not in rank else unplace_b(c, t, rank[n], turn and n == 'ub') for n, t in out.items()]
    return lora, adapters(c, mk.LoraGrad, out, turn, c.low_dtype), back


def poison(*shape, dtype):
    return torch.full(shape, float('nan'), device=dev, dtype=dtype)


def buffers(p, *sizes):
    """Filled with NaNs, so that what is read before it is written shows."""
    return [torch.full((max(256, n) + 256,), 255, dtype=torch.uint8, device=dev) for n in sizes]


def aligned(t):
    return t[-t.data_ptr() % 256:]


def ours(c, layout='concat', flags=0, gdtype=None, accumulate=0, frozen=False):
    """Output and gradients in the order of NAMES, and the path that served."""
    gdtype = gdtype or c.dtype
    m, gu, dn = (expert_list(c), c.gu, c.dn) if layout == 'list' else weights(c, layout)
    lora, dlora, read_lora = lora_call(c, layout, accumulate)
    p = mk.Problem(c.x, c.idx, c.s, *m, c.I, c.E, c.act, c.bias, limit=LIMIT, lora=lora)
    saved, work, wback = map(aligned, buffers(p, p.sizes.saved, p.sizes.forward_workspace, p.sizes.backward_workspace))
    y, dx = poison(c.T, c.H, dtype=c.dtype), poison(c.T, c.H, dtype=c.dtype)
    p.forward(y, saved, work, flags=flags)
    ds = poison(c.T, c.K, dtype=c.s.dtype)
    start = .5 if accumulate else float('nan')
    dgu, ddn = torch.empty_like(gu, dtype=gdtype).fill_(start), torch.empty_like(dn, dtype=gdtype).fill_(start)
    db = [None if b is None else torch.empty_like(b, dtype=gdtype).fill_(start) for b in c.bias]
    if frozen: dm = [mk.Matrix()] * 3
    elif not c.gated: dm = [mk.Matrix(), mk.matrix(dgu), mk.matrix(ddn)]
    else: dm = (mk.interleaved if layout in ('interleaved', 'gptoss') else mk.concat)(dgu) + [mk.matrix(ddn)]
    p.backward(saved, c.g, dx, ds, *dm, gdtype, db, accumulate, wback, flags, dlora=dlora)
    if layout in ('interleaved', 'gptoss'): dgu = torch.cat((dgu[:, 0::2], dgu[:, 1::2]), 1)
    if not c.gated: db[0] = None
    return [y, dx, ds] + ([None, None] if frozen else [dgu, ddn]) + db + read_lora(), p.path(flags) or dev


def err(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30)).item()


def accumulated(results):
    """What accumulating onto 0.5 gives: output, dx and dscore are never added to."""
    return results[:3] + [None if t is None else t + .5 for t in results[3:]]
