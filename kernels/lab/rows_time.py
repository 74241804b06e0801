"""Times a product where every expert has exactly so many rows: what a tile of them costs. All builds in turns, L2 flushed before each.

  python3 kernels/lab/rows_time.py H,I,E,K ROWS[,ROWS...] LIBRARY... [-n N] [--steps down,dx,up,dact]
E * ROWS must be a multiple of K. A row a number of rows and product: ns for a column tile of an expert and a step of K, as if 66 pairs
of blocks were never idle, medians; then each over the first library's.
"""
import argparse, os, statistics as st, sys
import torch
os.environ.setdefault('MOEPROF_KERNELS', next(a for a in sys.argv if a.endswith('.so')))
from duel import Arm, STEPS, bf, dev, once

N_PAIR = 66


def column_steps(H, I):
    """Column tiles and steps of K of each product."""
    ceil = lambda a, b: -(-a // b)
    return {'down': ceil(H, 256) * ceil(I, 64), 'dx': ceil(H, 256) * 2 * ceil(I, 64), 'up': ceil(I, 128) * ceil(H, 64),
            'dact': ceil(I, 256) * ceil(H, 64)}


def inputs(H, E, K, rows):
    """Tokens whose choices go round the experts."""
    T = E * rows // K
    index = (torch.arange(T, device=dev)[:, None] * K + torch.arange(K, device=dev)[None]) % E
    return torch.randn(T, H, device=dev, dtype=bf), torch.randn(T, H, device=dev, dtype=bf), index, torch.rand(T, K, device=dev, dtype=bf)


def main():
    ap = argparse.ArgumentParser(); ap.add_argument('shape'); ap.add_argument('rows'); ap.add_argument('libraries', nargs='+')
    ap.add_argument('-n', type=int, default=7); ap.add_argument('--steps', default='down,dx,up,dact'); o = ap.parse_args()
    H, I, E, K = map(int, o.shape.split(','))
    if any(E * r % K for r in map(int, o.rows.split(','))):
        ap.error('%d experts of so many rows are no multiple of %d choices a token' % (E, K))
    flush = torch.empty(64 << 20, dtype=torch.int32, device=dev)
    gu, dn = torch.randn(E, 2 * I, H, device=dev, dtype=bf) * .02, torch.randn(E, H, I, device=dev, dtype=bf) * .02
    print(torch.cuda.get_device_name(), *[f'{i}={os.path.basename(p)}' for i, p in enumerate(o.libraries)], flush=True)
    for rows in map(int, o.rows.split(',')):
        x, g, index, score = inputs(H, E, K, rows)
        arms = [Arm(p, x, g, index, score, gu, dn, I, E) for p in o.libraries]
        for step in o.steps.split(','):
            forward, backward, _ = STEPS[step]
            ms = [[] for _ in arms]
            for turn in range(o.n + 1):  # the first warms up
                for j in [(i + turn) % len(arms) for i in range(len(arms))]:
                    ms[j].append(once(lambda: arms[j].run(forward, backward), flush))
            ms = [v[1:] for v in ms]
            unit = 1e6 * N_PAIR / (E * column_steps(H, I)[step])
            print(f'{rows:5d} rows {step:5s}', *[f'{st.median(v) * unit:6.0f} ns ({min(v) * unit:.0f}..{max(v) * unit:.0f}, n={o.n})' for v in ms],
                  '|', *[f'{st.median(a / b for a, b in zip(v, ms[0])):.3f}' for v in ms], flush=True)
        del arms, x, g, index, score


if __name__ == '__main__':
    main()
