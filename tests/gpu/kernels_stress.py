"""Kernels on the GPU, what single cases cannot show: random shapes, NaN confined to its token, refusals, graphs, streams,
tensors beyond 2^31 elements.

  python3 tests/gpu/kernels_stress.py [--cases N] [--seed S] [--path hopper|portable] [--huge]
1000 cases take about a minute on an H100. A case that fails is printed as a line that makes it again. --huge needs 40 GiB.
"""
import argparse, random, sys
import torch

from kernels_case import Case, NAMES, accumulated, bf, dev, err, f32, fp16, mk, ours, reference, weights

LAYOUTS = {mk.RELU2: ['concat']}  # of the others any
MORE_LAYOUTS = ['concat', 'concat', 'concat', 'interleaved', 'list', 'transposed', 'gptoss']


def random_lora(r):
    return dict(up=r.choice([0, 4, 5, 8, 16, 17, 32, 64, 100, 128]), down=r.choice([0, 4, 7, 8, 16, 31, 64, 128]),
                form=r.choice(['peft', 'dense']), dtype=r.choice([None, f32]))


def random_case(r):
    """(arguments of Case, arguments of ours)."""
    e = r.choice([1, 2, 3, 7, 16, 40, 128])
    k = r.randint(1, min(e, 9))
    t = r.choice([1, 2, 31, 64, 100, 255, 256, 257, 700, 2048])
    a = dict(T=t, H=8 * r.randint(1, 90), I=8 * r.randint(1, 60), E=e, K=k,
             act=r.choice([mk.SWIGLU] * 6 + [mk.GEGLU_TANH, mk.GEGLU_ERF, mk.CLAMPED_GLU, mk.RELU2]), bias=r.random() < .3,
             routing=r.choice(['uniform', 'uniform', 'one', 'half']) if k <= e // 2 else 'uniform', sentinel=r.choice([0, 0, .3, 1.]),
             score=r.choice([bf, f32]), index=r.choice([torch.int64, torch.int32]), dtype=r.choice([bf] * 5 + [fp16]), seed=r.randint(0, 1 << 30))
    if r.random() < .35:
        a['lora'] = dict(random_lora(r), apart=r.random() < .2 and a['act'] != mk.RELU2)
        a['lora']['dtype'] = a['lora']['dtype'] or a['dtype']
        if not a['lora']['up']: a['lora']['apart'] = False
    kw = dict(layout=r.choice(LAYOUTS.get(a['act'], MORE_LAYOUTS)), accumulate=r.randint(0, 1), frozen=r.random() < .3)
    if r.random() < .3: kw['gdtype'] = f32
    return a, kw


def typical_dscore(c, y):
    """Norm of products of each token's dout with its experts' outputs, were all at random angles: a few may cancel."""
    return c.g.double().norm() * y.norm() / (c.s.double().norm() * c.H ** .5)


def wrong(c, kw):
    """Results that are off. Few numbers: their own rounding decides, so the bound is wider; what is tiny beside the
    reference's inputs (cancelled, or all dropped) is held to an absolute bound."""
    want, (got, path) = reference(c), ours(c, **kw)
    if kw['accumulate']: want = accumulated(want)
    bad = []
    for n, g, w in zip(NAMES, got, want):
        if g is None or w is None or not g.numel(): continue
        if not torch.isfinite(g.float()).all(): bad.append(n + ' not finite'); continue
        bound = 2e-2 if c.T < 64 or g.numel() < 4096 else 6e-3
        norm = max(w.norm(), typical_dscore(c, want[0])) if n == 'dscore' else w.norm()
        if (g.double() - w).norm() > bound * norm + 1e-6: bad.append(f'{n} {err(g, w):.1e}')
    return bad, path, got


def stress(n, seed, flags):
    r, bad, served = random.Random(seed), 0, {}
    for i in range(n):
        a, kw = random_case(r)
        kw['flags'] = flags
        c = Case(**a)
        try: fails, path, got = wrong(c, kw)
        except mk.Refused as e: fails, path, got = [f'refused: {e}'], 'none', []
        served[path] = served.get(path, 0) + 1
        if not fails and i % 10 == 0 and not all(g is None or torch.equal(g, h) for g, h in zip(got, ours(c, **kw)[0])):
            fails = ['differs from run to run']
        if fails: print(f'random {i} FAIL {fails}: wrong(Case(**{a}), {kw})', flush=True); bad += 1
    print(f'{n - bad} of {n} random cases pass, served by {served}')
    return bad


def nan_is_confined(flags, lora=None):
    """A NaN in one token's x reaches that token's output and dx and the experts it visits, and nothing else."""
    c = Case(T=300, H=256, I=192, E=8, K=2, lora=lora); c.x[77, 5] = float('nan')
    got, _ = ours(c, flags=flags)
    others = torch.arange(c.T, device=dev) != 77
    ok = bool(torch.isfinite(got[0][others].float()).all() and torch.isfinite(got[1][others].float()).all() and torch.isnan(got[0][77].float()).all())
    hit = torch.zeros(c.E, dtype=torch.bool, device=dev); hit[c.idx[77]] = True
    ok &= bool(torch.isfinite(got[3][~hit].float()).all() and torch.isfinite(got[4][~hit].float()).all())
    if lora:
        low = dict(zip(NAMES, got))
        ok &= bool(torch.isfinite(low['dlora_ua'].view(c.E, -1)[~hit]).all() and torch.isfinite(low['dlora_db'].view(-1, c.E)[:, ~hit]).all())
    print('NaN confined to its token and its experts' + (', adapters' if lora else ''), 'ok' if ok else 'FAIL'); return not ok


def refused(name, code, f):
    try: f()
    except mk.Refused as e:
        print(f'refused {name}: {e}', 'ok' if e.code == code else f'FAIL code {e.code}'); return e.code != code
    print(f'refused {name} FAIL: it ran'); return True


def refusals(flags):
    c = Case(T=64, H=256, I=128, E=4, K=2); bad = 0
    make = lambda x=c.x, gu=c.gu, dn=c.dn: mk.Problem(x, c.idx, c.s, *mk.concat(gu), mk.matrix(dn), c.I, c.E)
    shifted = lambda t: torch.empty(t.numel() + 1, device=dev, dtype=bf)[1:].view(t.shape)
    wide = torch.empty(64, 260, device=dev, dtype=bf)[:, :256]  # rows 520 bytes apart
    p = make()
    saved = mk.nbytes(p.sizes.saved); p.forward(saved=saved, flags=flags)
    back = lambda **k: p.backward(**{**dict(saved=saved, dout=c.g, dx=torch.empty_like(c.x), dscore=None, dgate=mk.Matrix(), dup=mk.Matrix(),
                                            ddown=mk.Matrix(), dtype=bf, flags=flags), **k})
    bad += refused('misaligned x', -3, lambda: make(x=shifted(c.x)).forward(flags=flags))
    bad += refused('x whose rows are not 16-byte aligned', -3, lambda: make(x=wide).forward(torch.empty_like(c.x), flags=flags))
    bad += refused('misaligned out', -3, lambda: p.forward(shifted(c.x), flags=flags))
    bad += refused('misaligned gate and up', -3, lambda: make(gu=shifted(c.gu)).forward(flags=flags))
    bad += refused('misaligned down', -3, lambda: make(dn=shifted(c.dn)).forward(flags=flags))
    bad += refused('misaligned dout', -3, lambda: back(dout=shifted(c.g)))
    bad += refused('misaligned dx', -3, lambda: back(dx=shifted(c.x)))
    bad += refused('misaligned saved', -3, lambda: p.forward(saved=mk.nbytes(p.sizes.saved + 16)[16:], flags=flags))
    bad += refused('small saved', -7, lambda: p.forward(saved=mk.nbytes(256), flags=flags))
    bad += refused('small workspace', -7, lambda: p.forward(work=mk.nbytes(256), flags=flags))
    bad += refused('small workspace in backward', -7, lambda: back(work=mk.nbytes(256)))
    bad += refused('gradients in fp16 of a bf16 problem', -4, lambda: back(dtype=fp16))
    bad += refused('fp32', -4, lambda: mk.Problem(c.x.float(), c.idx, c.s, *mk.concat(c.gu.float()), mk.matrix(c.dn.float()), c.I, c.E).forward(torch.empty(64, 256, device=dev), flags=flags))
    lora = mk.lora(mk.Lora, bf, up_rank=8)
    bad += refused('an adapter without A', -7, lambda: mk.Problem(c.x, c.idx, c.s, *mk.concat(c.gu), mk.matrix(c.dn), c.I, c.E, lora=lora).forward(flags=flags))
    bad += refused('rank 129', -2, lambda: mk.Problem(c.x, c.idx, c.s, *mk.concat(c.gu), mk.matrix(c.dn), c.I, c.E, lora=mk.lora(mk.Lora, bf, up_rank=129)))
    bad += refused('gradients of absent adapters', -7, lambda: back(dlora=mk.lora(mk.LoraGrad, bf)))
    return bad


def graph_follows_routing(flags, lora=None):
    """A captured forward and backward, replayed after the routing changed in place, give what fresh calls give."""
    usual = dict(T=512, H=256, I=192, E=16, K=4)
    c, d = Case(**usual, lora=lora), Case(**usual, seed=9, routing='half')
    ours(c, flags=flags)  # warm: attributes are set once
    torch.cuda.synchronize()
    run = captured(c, flags)
    c.idx.copy_(d.idx); c.s.copy_(d.s)
    replayed, fresh = run(), ours(c, flags=flags)[0]
    ok = all(a is None or torch.equal(a, b) for a, b in zip(replayed, fresh))
    print('graph follows changed routing' + (', adapters' if lora else ''), 'ok' if ok else 'FAIL'); return not ok


def captured(c, flags):
    """A graph of one forward and backward; a function that replays it and returns its results."""
    g, kept = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(g): kept.append(ours(c, flags=flags)[0])

    def run():
        g.replay()
        torch.cuda.synchronize()
        return kept[0]
    return run


def streams_agree(flags, lora=None):
    """Two streams at once, each with its own buffers, against one after the other."""
    c, d = (Case(T=2048, H=512, I=256, E=16, K=4, seed=i, lora=lora) for i in (0, 1))
    want = [ours(x, flags=flags)[0] for x in (c, d)]; torch.cuda.synchronize()
    streams, got = [torch.cuda.Stream() for _ in range(2)], [None, None]
    for _ in range(3):
        for i, x in enumerate((c, d)):
            with torch.cuda.stream(streams[i]): got[i] = ours(x, flags=flags)[0]
    torch.cuda.synchronize()
    ok = all(a is None or torch.equal(a, b) for i in range(2) for a, b in zip(want[i], got[i]))
    print('two streams at once agree bit for bit' + (', adapters' if lora else ''), 'ok' if ok else 'FAIL'); return not ok


def huge(flags, name, T, H, I, E, K):
    """Tensors beyond 2^31 elements, by a few tokens and experts picked from all over: an expert's rows and nothing else."""
    torch.manual_seed(1)
    r = lambda *n, k: torch.empty(*n, device=dev, dtype=bf).normal_(0, k)
    x, gu, dn, g = r(T, H, k=1.), r(E, 2 * I, H, k=H ** -.5), r(E, H, I, k=I ** -.5), r(T, H, k=1.)
    idx, s = torch.randint(0, E, (T, K), device=dev), torch.rand(T, K, device=dev)
    p = mk.Problem(x, idx, s, *mk.concat(gu), mk.matrix(dn), I, E)
    saved, dx, ds = mk.nbytes(p.sizes.saved), torch.empty_like(x), torch.empty_like(s)
    y, _ = p.forward(saved=saved, flags=flags)
    dgu, ddn = torch.empty_like(gu), torch.empty_like(dn)
    p.backward(saved, g, dx, ds, *mk.concat(dgu), mk.matrix(ddn), bf, flags=flags)
    bad = []
    for t in (0, T // 2 + 1, T - 1):
        one = lambda v: v[t:t + 1].double().requires_grad_()
        xt, st, out = one(x), one(s), 0
        for k in range(K):
            h = xt @ gu[idx[t, k]].double().t()
            out = out + st[0, k] * ((torch.nn.functional.silu(h[:, :I]) * h[:, I:]) @ dn[idx[t, k]].double().t())
        out.backward(g[t:t + 1].double())
        bad += [n for n, got, want in (('y', y[t:t + 1], out), ('dx', dx[t:t + 1], xt.grad), ('dscore', ds[t:t + 1], st.grad)) if err(got, want.detach()) > 1e-2]
    for e in (0, E - 1):
        t, k = torch.where(idx == e)
        a, b = gu[e].double().requires_grad_(), dn[e].double().requires_grad_()
        h = x[t].double() @ a.t()
        ((torch.nn.functional.silu(h[:, :I]) * h[:, I:]) @ b.t() * s[t, k, None].double()).backward(g[t].double())
        bad += [n for n, got, want in (('dgate_up', dgu[e], a.grad), ('ddown', ddn[e], b.grad)) if err(got, want) > 1e-2]
    print(f'{name}: x {x.numel():.2e}, gate_up {gu.numel():.2e}, saved {p.sizes.saved / 2:.2e} elements, {p.path(flags)}', 'ok' if not bad else f'FAIL {bad}')
    return bool(bad)


def main():
    ap = argparse.ArgumentParser(); ap.add_argument('--cases', type=int, default=1000); ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--path'); ap.add_argument('--huge', action='store_true')
    o = ap.parse_args(); flags = mk.PORTABLE if o.path == 'portable' else 0
    lora = dict(up=16, down=16)
    bad = nan_is_confined(flags) + nan_is_confined(flags, lora)
    if dev == 'cuda':
        bad += refusals(flags) + sum(f(flags, l) for f in (graph_follows_routing, streams_agree) for l in (None, lora))
    if o.huge:
        bad += huge(flags, 'weights beyond 2^31', T=2048, H=4096, I=1536, E=192, K=4) + huge(flags, 'rows beyond 2^31', T=131072, H=2048, I=1024, E=16, K=12)
    bad += stress(o.cases, o.seed, flags)
    print('all pass' if not bad else f'{bad} fail'); return bad > 0


if __name__ == '__main__': sys.exit(main())
