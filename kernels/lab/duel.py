"""Times builds of the library against each other: every step and whole calls, all builds and a dense GEMM in each round, in turns,
so that a GPU which clocks lower as it warms up does so for all of them.

  python3 kernels/lab/duel.py H,I,E,K T[,T...] LIBRARY LIBRARY... [-n N] [--steps up,forward,...]
A row a step: median ms (least..greatest) of the first library; then of each: its time over the first's and its share of dense, both
medians over the rounds.
"""
import argparse, ctypes as C, os, statistics as st, sys
import torch
os.environ.setdefault('MOEPROF_KERNELS', next(a for a in sys.argv if a.endswith('.so')))  # mk loads one at once
import mk
from mk import ROUTE, UP, DOWN, COMBINE, DACT, DX, DW_DOWN, DW_UP, DSCORE

dev, bf = 'cuda', torch.bfloat16
STEPS = {'up': (UP, 0, 2), 'down': (DOWN, 0, 1), 'dact': (0, DACT, 1), 'dx': (0, DX, 2), 'dw_down': (0, DW_DOWN, 1), 'dw_up': (0, DW_UP, 2),
         'route': (ROUTE, 0, 0), 'combine': (COMBINE, 0, 0), 'forward': (0, None, 3), 'backward': (None, 0, 6), 'both': (0, 0, 9)}


def library(path):
    lib = C.CDLL(os.path.abspath(path))
    lib.mk_get_api.restype = C.POINTER(mk.Api)
    return lib.mk_get_api(1).contents


class Arm:
    """One library with buffers of its own, since their layout may differ."""
    def __init__(s, path, x, g, idx, w, gu, dn, I, E):
        s.api = mk.api = library(path)
        s.p = mk.Problem(x, idx, w, *mk.concat(gu), mk.matrix(dn), I, E)
        s.saved, s.work, s.wback = (mk.nbytes(n) for n in (s.p.sizes.saved, s.p.sizes.forward_workspace, s.p.sizes.backward_workspace))
        s.out, s.g = [torch.empty_like(t) for t in (x, x, w, gu, dn)], g
        s.run(0, 0)

    def run(s, forward, backward):
        """Steps of each; 0 with the other None: all of one direction."""
        mk.api, (y, dx, ds, dgu, ddn) = s.api, s.out
        if forward or (forward == 0 and not backward):
            s.p.forward(y, s.saved, s.work, 0, forward)
        if backward or (backward == 0 and not forward):
            s.p.backward(s.saved, s.g, dx, ds, *mk.concat(dgu), mk.matrix(ddn), bf, work=s.wback, steps=backward)


def once(f, flush):
    a, b = torch.cuda.Event(True), torch.cuda.Event(True)
    flush.zero_(); a.record(); f(); b.record(); torch.cuda.synchronize()
    return a.elapsed_time(b)


def main():
    ap = argparse.ArgumentParser(); ap.add_argument('shape'); ap.add_argument('tokens'); ap.add_argument('libraries', nargs='+')
    ap.add_argument('-n', type=int, default=7); ap.add_argument('--steps', default=','.join(STEPS)); o = ap.parse_args()
    H, I, E, K = map(int, o.shape.split(','))
    flush = torch.empty(64 << 20, dtype=torch.int32, device=dev)
    a, b = torch.randn(8192, 8192, device=dev, dtype=bf), torch.randn(8192, 8192, device=dev, dtype=bf)
    dense = lambda: a @ b
    gu, dn = torch.randn(E, 2 * I, H, device=dev, dtype=bf) * .02, torch.randn(E, H, I, device=dev, dtype=bf) * .02
    print(torch.cuda.get_device_name(), *[f'{i}={os.path.basename(p)}' for i, p in enumerate(o.libraries)], flush=True)
    for T in map(int, o.tokens.split(',')):
        x, g = torch.randn(T, H, device=dev, dtype=bf), torch.randn(T, H, device=dev, dtype=bf)
        w, idx = torch.topk(torch.softmax(torch.randn(T, E, device=dev), -1), K, -1)
        w = (w / w.sum(-1, keepdim=True)).to(bf)
        arms = [Arm(p, x, g, idx, w, gu, dn, I, E) for p in o.libraries]
        for name in o.steps.split(','):
            fwd, bwd, n = STEPS[name]
            ts, flops = [[] for _ in arms], n * 2 * T * K * H * I / 1e9
            ds = []
            for r in range(o.n + 1):
                ds.append(once(dense, flush))
                for i in range(len(arms)):
                    i = (i + r) % len(arms)
                    ts[i].append(once(lambda: arms[i].run(fwd, bwd), flush))
            ts, ds = [t[1:] for t in ts], ds[1:]
            rows = [f'{st.median(t / u for t, u in zip(ts[i], ts[0])):.3f}' + (f' {st.median(flops / t / (2 * 8192 ** 3 / d / 1e9) for t, d in zip(ts[i], ds)):.3f}' if n else '') for i in range(len(arms))]
            print(f'T={T:6d} {name:8s} {st.median(ts[0]):7.3f} ms ({min(ts[0]):.3f}..{max(ts[0]):.3f}, n={o.n}) | ' + ' | '.join(rows)
                  + f' | dense {2 * 8192 ** 3 / st.median(ds) / 1e9:.0f}', flush=True)
        del arms, x, g; torch.cuda.empty_cache()


if __name__ == '__main__': main()
