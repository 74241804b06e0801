"""Times each step of forward and backward alone, L2 flushed before each, beside a dense GEMM of the same run.

  python3 kernels/lab/steps_time.py H,I,E,K T[,T...] [--flags N] [-n N]
TFLOP/s of useful FLOPs; GB/s of the least bytes for the memory-bound steps is left to the reader.
"""
import argparse, statistics as st
import torch
import mk
from mk import ROUTE, UP, DOWN, COMBINE, DACT, DX, DW_DOWN, DW_UP, DSCORE

dev, bf = 'cuda', torch.bfloat16


def timed(f, n, flush):
    ts = []
    for i in range(n + 2):
        a, b = torch.cuda.Event(True), torch.cuda.Event(True)
        flush.zero_(); a.record(); f(); b.record(); torch.cuda.synchronize()
        if i > 1: ts.append(a.elapsed_time(b))
    return st.median(ts), min(ts), max(ts)


def main():
    ap = argparse.ArgumentParser(); ap.add_argument('shape'); ap.add_argument('tokens'); ap.add_argument('--flags', type=int, default=0)
    ap.add_argument('-n', type=int, default=9); ap.add_argument('--skew', action='store_true'); o = ap.parse_args()
    H, I, E, K = map(int, o.shape.split(','))
    flush = torch.empty(64 << 20, dtype=torch.int32, device=dev)
    a, b = torch.randn(8192, 8192, device=dev, dtype=bf), torch.randn(8192, 8192, device=dev, dtype=bf)
    dense = 2 * 8192 ** 3 / timed(lambda: a @ b, o.n, flush)[0] / 1e9
    print(torch.cuda.get_device_name(), f'dense 8192^3 {dense:.0f} TFLOP/s', flush=True)
    del a, b
    gu, dn = torch.randn(E, 2 * I, H, device=dev, dtype=bf) * .02, torch.randn(E, H, I, device=dev, dtype=bf) * .02
    for T in map(int, o.tokens.split(',')):
        x, g = torch.randn(T, H, device=dev, dtype=bf), torch.randn(T, H, device=dev, dtype=bf)
        lo = torch.randn(T, E, device=dev) + (1.5 * torch.randn(E, device=dev) if o.skew else 0)
        w, idx = torch.topk(torch.softmax(lo, -1), K, -1)
        w = (w / w.sum(-1, keepdim=True)).to(bf)
        p = mk.Problem(x, idx, w, *mk.concat(gu), mk.matrix(dn), I, E)
        saved, work, wback = (mk.nbytes(n) for n in (p.sizes.saved, p.sizes.forward_workspace, p.sizes.backward_workspace))
        y, dx, ds, dgu, ddn = torch.empty_like(x), torch.empty_like(x), torch.empty_like(w), torch.empty_like(gu), torch.empty_like(dn)
        fwd = lambda s: (lambda: p.forward(y, saved, work, o.flags, s))
        bwd = lambda s: (lambda: p.backward(saved, g, dx, ds, *mk.concat(dgu), mk.matrix(ddn), bf, work=wback, flags=o.flags, steps=s))
        unit = 2 * T * K * H * I
        rows = [('route', fwd(ROUTE), 0), ('up', fwd(UP), 2), ('down', fwd(DOWN), 1), ('combine', fwd(COMBINE), 0), ('dact', bwd(DACT), 1),
                ('dx+sum', bwd(DX), 2), ('dw_down', bwd(DW_DOWN), 1), ('dw_up', bwd(DW_UP), 2), ('dscore', bwd(DSCORE), 0),
                ('forward', fwd(0), 3), ('backward', bwd(0), 6), ('both', lambda: (fwd(0)(), bwd(0)()), 9)]
        for name, f, n in rows:
            t, lo_, hi = timed(f, o.n, flush)
            print(f'T={T:6d} {name:9s} {t:8.3f} ms ({lo_:.3f}..{hi:.3f}, n={o.n})' + (f' {n * unit / t / 1e9:6.1f} TFLOP/s = {n * unit / t / 1e9 / dense:.3f} of dense' if n else ''), flush=True)
        del p, x, g, saved, work, wback, y, dx; torch.cuda.empty_cache()


if __name__ == '__main__': main()
