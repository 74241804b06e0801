"""Kernels on the GPU, what single cases cannot show: random shapes, NaN confined to its token, refusals, graphs, streams.

  python3 tests/gpu/kernels_stress.py [--cases N] [--seed S] [--path hopper|portable]
"""
import argparse, random, sys
import torch

from kernels_check import mk, Case, check, loop, ours, weights, err, bf, dev


def random_case(r):
    e = r.choice([1, 2, 3, 7, 16, 40])
    k = r.randint(1, min(e, 9))
    return dict(T=r.choice([1, 2, 31, 64, 100, 255, 256, 257, 700, 2048]), H=8 * r.randint(1, 90), I=8 * r.randint(1, 60), E=e, K=k,
                act=r.choice([mk.SWIGLU] * 4 + [mk.GEGLU_TANH, mk.GEGLU_ERF, mk.CLAMPED_GLU]), bias=r.random() < .3,
                routing=r.choice(['uniform', 'uniform', 'one', 'half']) if k <= e // 2 else 'uniform', sentinel=r.choice([0, 0, .3]),
                score=r.choice([bf, torch.float32]), index=r.choice([torch.int64, torch.int32]), seed=r.randint(0, 1 << 30))


def stress(n, seed, flags):
    r, bad = random.Random(seed), 0
    for i in range(n):
        a = random_case(r)
        kw = dict(layout=r.choice(['concat', 'concat', 'interleaved', 'list']), accumulate=r.randint(0, 1), flags=flags)
        # few tokens: rounding of single numbers, not of sums, decides; then finiteness and closeness to fp64 is all that is asked
        if a['T'] >= 64: bad += not check(f'random {i} ' + ' '.join(f'{k}={v}' for k, v in a.items() if k in 'THIEK'), Case(**a), **kw)
        else:
            c = Case(**a); want = loop(c, torch.float64)
            if kw['accumulate']: want[3:] = [None if t is None else t + .5 for t in want[3:]]
            got, _ = ours(c, **kw)
            worst = max(err(g, w) for g, w in zip(got, want) if g is not None and w is not None and w.norm() > 0) if c.T else 0
            if not worst < 2e-2: print(f'random {i} FAIL {worst:.1e} {a} {kw}'); bad += 1
    return bad


def nan_is_confined(flags):
    """A NaN in one token's x reaches that token's output and dx, and no other token's."""
    c = Case(T=300, H=256, I=192, E=8, K=2); c.x[77, 5] = float('nan')
    got, _ = ours(c, flags=flags)
    others = torch.arange(c.T, device=dev) != 77
    ok = bool(torch.isfinite(got[0][others].float()).all() and torch.isfinite(got[1][others].float()).all() and torch.isnan(got[0][77].float()).all())
    hit = torch.zeros(c.E, dtype=torch.bool, device=dev); hit[c.idx[77]] = True
    ok &= bool(torch.isfinite(got[3][~hit].float()).all() and torch.isfinite(got[4][~hit].float()).all())  # experts it did not visit
    print('NaN confined to its token and its experts', 'ok' if ok else 'FAIL'); return not ok


def refused(name, code, f):
    try: f()
    except mk.Refused as e:
        print(f'refused {name}: {e}', 'ok' if e.code == code else f'FAIL code {e.code}'); return e.code != code
    print(f'refused {name} FAIL: it ran'); return True


def refusals(flags):
    c = Case(T=64, H=256, I=128, E=4, K=2); bad = 0
    make = lambda x=c.x, gu=c.gu: mk.Problem(x, c.idx, c.s, *mk.concat(gu), mk.matrix(c.dn), c.I, c.E)
    odd = torch.empty(64 * 256 + 1, device=dev, dtype=bf)[1:].view(64, 256)
    bad += refused('misaligned x', -3, lambda: make(x=odd).forward(flags=flags))
    bad += refused('fp32', -4, lambda: mk.Problem(c.x.float(), c.idx, c.s, *mk.concat(c.gu.float()), mk.matrix(c.dn.float()), c.I, c.E).forward(torch.empty(64, 256, device=dev), flags=flags))
    bad += refused('small workspace', -7, lambda: make().forward(work=torch.empty(256, dtype=torch.uint8, device=dev), flags=flags))
    return bad


def graph_follows_routing(flags):
    """A captured forward, replayed after the routing changed in place, gives what a fresh call gives."""
    c = Case(T=512, H=256, I=192, E=16, K=4); d = Case(T=512, H=256, I=192, E=16, K=4, seed=9, routing='half')
    m, *keep = weights(c, 'concat')
    p = mk.Problem(c.x, c.idx, c.s, *m, c.I, c.E)
    saved, work, y = mk.nbytes(p.sizes.saved), mk.nbytes(p.sizes.forward_workspace), torch.empty_like(c.x)
    side = torch.cuda.Stream(); side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side): p.forward(y, saved, work, flags=flags)
    torch.cuda.current_stream().wait_stream(side)
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g): p.forward(y, saved, work, flags=flags)
    c.idx.copy_(d.idx); c.s.copy_(d.s)
    y.fill_(float('nan')); g.replay(); replayed = y.clone()
    p.forward(y, saved, work, flags=flags)
    ok = torch.equal(replayed, y); print('graph follows changed routing', 'ok' if ok else 'FAIL'); return not ok


def streams_agree(flags):
    c = Case(T=2048, H=512, I=256, E=16, K=4); want, _ = ours(c, flags=flags); torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side): got, _ = ours(c, flags=flags)
    side.synchronize()
    ok = all(a is None or torch.equal(a, b) for a, b in zip(want, got)); print('streams agree bit for bit', 'ok' if ok else 'FAIL'); return not ok


def main():
    ap = argparse.ArgumentParser(); ap.add_argument('--cases', type=int, default=100); ap.add_argument('--seed', type=int, default=0); ap.add_argument('--path')
    o = ap.parse_args(); flags = mk.PORTABLE if o.path == 'portable' else 0
    bad = nan_is_confined(flags) + refusals(flags) + graph_follows_routing(flags) + streams_agree(flags) + stress(o.cases, o.seed, flags)
    print('all pass' if not bad else f'{bad} fail'); return bad > 0


if __name__ == '__main__': sys.exit(main())
