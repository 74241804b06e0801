"""These kernels beside every other experts implementation that is installed: same inputs, same run, by turns.

  python3 kernels/lab/peers.py [--arms NAME,..] [--shapes NAME,..|all] [--tokens N,..] [--routing KIND,..] [-n N] [--json FILE]

Names of arms: peers_arms.py; of shapes: shapes.h; of routings: uniform, zipf, allonk, half. What is missing is named as missing.
Timed: routing metadata, both products, activation, combine; in backward the gradients of x, both weights and the scores. Normal data,
the L2 flushed before each call, the arms by turns within each repetition. Twice: as called from PyTorch, and on the GPU alone (the call as
a CUDA graph), where it can be captured. Every arm's output and gradients are first held against an fp32 loop over the experts.
A dense GEMM of cuBLAS, 8192^3, takes its turn too: what is left of its rate is a share that heat and power do not move.
SonicMoE wants gate and up rows interleaved, and a cache of what it compiles: QUACK_CACHE_DIR. An arm slower than a second is timed 3 times.
"""
import argparse, gc, json, os, re, statistics as st, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import torch
import torch.nn.functional as F
from peers_arms import ARMS

bf, dev = torch.bfloat16, 'cuda' if torch.cuda.is_available() else 'cpu'


def shapes():
    text = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'shapes.h')).read()
    return {name: tuple(map(int, rest.split(','))) for name, rest in re.findall(r'\{ "([^"]+)",([^}]*)\}', text)}


class Case:
    """Inputs of one timed case."""

    def __init__(self, shape, T, routing):
        self.H, self.I, self.E, self.K, self.T = *shape, T
        torch.manual_seed(1)
        normal = lambda *size: torch.randn(*size, device=dev, dtype=bf)
        keys = self.weights(routing).log() - torch.empty(T, self.E, device=dev).exponential_().log()  # Gumbel: without replacement
        self.idx = torch.topk(keys, self.K, -1).indices
        w = torch.softmax(torch.randn(T, self.K, device=dev), -1)
        self.x, self.w, self.g = normal(T, self.H).requires_grad_(), w.to(bf).requires_grad_(), normal(T, self.H)
        self.gu, self.dn = (torch.nn.Parameter(normal(*size) * .02) for size in ((self.E, 2 * self.I, self.H), (self.E, self.H, self.I)))

    def weights(self, routing):
        e = torch.arange(self.E, device=dev)
        if routing == 'zipf': return 1. / (e + 1)
        few = {'uniform': self.E, 'allonk': self.K, 'half': max(self.K, (self.E + 1) // 2)}[routing]
        return torch.where(e < few, 1., 1e-12)


# ---- are they right?

def reference(c):
    """fp32 loop: the output, and gradients of x, w, gu, dn."""
    x, w, gu, dn = (t.detach().float().requires_grad_() for t in (c.x, c.w, c.gu, c.dn))
    y = torch.zeros(c.T, c.H, device=dev)
    for e in c.idx.unique().tolist():
        t, k = torch.where(c.idx == e)
        gate, up = F.linear(x[t], gu[e]).chunk(2, -1)
        y = y.index_add(0, t, F.linear(F.silu(gate) * up, dn[e]) * w[t, k, None])
    return [y.detach(), *torch.autograd.grad(y, [x, w, gu, dn], c.g.float())]


def errors(make):
    """Relative errors of an arm's results on a small case."""
    c = Case((256, 128, 8, 2), 257, 'uniform')
    arm = make(c)
    y = arm.forward()
    got = [y.detach(), *torch.autograd.grad(y, arm.leaves, c.g)]
    got[3] = arm.gu_grad(got[3])
    return {n: ((a.float() - b).norm() / b.norm()).item() for n, a, b in zip(('y', 'dx', 'dw', 'dgu', 'ddn'), got, reference(c))}


def usable(names):
    """Those of the arms that run here and are right; says why the others are not."""
    good = []
    for name in names:
        try: found = errors(ARMS[name])
        except Exception as e:
            print(f'{name}: missing: {type(e).__name__}: {str(e).splitlines()[0][:200] if str(e) else ""}', flush=True)
            continue
        right = all(v < 2e-2 for v in found.values())
        print(f'{name}: relative errors against fp32: ' + ' '.join(f'{k} {v:.1e}' for k, v in found.items()) + ('' if right else ': wrong, left out'), flush=True)
        good += [name] * right
    return good


# ---- how fast?

class Timed:
    """One function of one arm, and its milliseconds."""

    def __init__(self, arm, what, way, f, flop):
        self.arm, self.what, self.way, self.f, self.flop, self.ms = arm, what, way, f, flop, []

    def run(self, flush):
        if len(self.ms) >= 3 and min(self.ms) > 1000: return
        a, b = torch.cuda.Event(True), torch.cuda.Event(True)
        flush.zero_(); a.record(); self.f(); b.record(); torch.cuda.synchronize()
        self.ms.append(a.elapsed_time(b))


def captured(f, pool):
    """f as a CUDA graph, or None: it waits for the GPU, or for another reason cannot be one. What it makes nobody reads, so
    that all of a case share one pool: gradients of each would not fit."""
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side): f(); f()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool): f()
        return graph.replay
    except Exception:
        torch.cuda.synchronize()
        return None
    finally:
        torch.cuda.empty_cache()  # a stream keeps what was freed on it


def timed_ways(name, c, pool):
    """Forward and both, as called and on the GPU alone. Gradients are freed at once: the arms share one card."""
    arm, flop = ARMS[name](c), 6 * c.T * c.K * c.H * c.I
    both = lambda: torch.autograd.grad(arm.forward(), arm.leaves, c.g) and None
    both()
    for what, f, k in (('forward', arm.forward, 1), ('fwd+bwd', both, 3)):
        yield Timed(name, what, 'called', f, k * flop)
        graph = captured(f, pool)
        if graph: yield Timed(name, what, 'gpu', graph, k * flop)


def dense():
    a, b = (torch.randn(8192, 8192, device=dev, dtype=bf) for _ in range(2))
    return Timed('cublas', '8192^3', 'gpu', lambda: a @ b, 2 * 8192 ** 3)


def time_case(names, c, n, flush):
    ways, pool = [dense()], torch.cuda.graph_pool_handle()
    for name in names:
        try: ways += list(timed_ways(name, c, pool))
        except Exception as e: print(f'  {name}: failed here: {type(e).__name__}: {str(e).splitlines()[0][:160] if str(e) else ""}', flush=True)
    for _ in range(n):
        for way in ways: way.run(flush)
    return ways


def report(shape, c, routing, ways, out):
    rate = ways[0].flop / st.median(ways[0].ms) * 1e3
    mine = {(w.what, w.way): st.median(w.ms) for w in ways if w.arm == 'moeprof'}
    for w in ways:
        ms = st.median(w.ms)
        own = mine.get((w.what, w.way))
        print(f'{shape:12s} T={c.T:6d} {routing:8s} {w.arm:16s} {w.what:8s} {w.way:6s} {ms:9.3f} ms ({min(w.ms):.3f}..{max(w.ms):.3f}, n={len(w.ms)}) {w.flop / ms / 1e9:6.1f} TFLOP/s = {w.flop / ms * 1e3 / rate:.3f} of dense'
              + (f'  moeprof {ms / own:.2f} x' if own and w.arm != 'moeprof' else ''), flush=True)
        if out: print(json.dumps(dict(shape=shape, tokens=c.T, routing=routing, arm=w.arm, what=w.what, way=w.way, n=len(w.ms), flop=w.flop,
                                      seconds=dict(median=ms / 1e3, min=min(w.ms) / 1e3, max=max(w.ms) / 1e3), dense_flop_per_second=rate)), file=out, flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--arms', default=','.join(ARMS)); ap.add_argument('--shapes', default='qwen3-30b'); ap.add_argument('--tokens', default='4096,32768')
    ap.add_argument('--routing', default='uniform'); ap.add_argument('-n', type=int, default=9); ap.add_argument('--json'); ap.add_argument('--seconds', type=float, default=1e9, help='begin no case after this long')
    o, begin, known = ap.parse_args(), time.time(), shapes()
    wrong = [s for s in o.shapes.split(',') if s not in known and s != 'all'] + [a for a in o.arms.split(',') if a not in ARMS]
    if wrong: ap.error(f'unknown: {", ".join(wrong)}; shapes are {", ".join(known)}; arms are {", ".join(ARMS)}')
    names = usable(o.arms.split(','))
    if dev == 'cpu': sys.exit('no GPU here: nothing is timed')
    gc.freeze()  # torch collects garbage before each capture, among all that the packages have made
    flush, out = torch.empty(64 << 20, dtype=torch.int32, device=dev), open(o.json, 'a') if o.json else None
    print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}', flush=True)
    for shape in known if o.shapes == 'all' else o.shapes.split(','):
        for T in map(int, o.tokens.split(',')):
            for routing in o.routing.split(','):
                if time.time() - begin > o.seconds: sys.exit(f'out of time before {shape}, T = {T}, {routing}')
                c = Case(known[shape], T, routing)
                report(shape, c, routing, time_case(names, c, o.n, flush), out)
                del c; torch.cuda.empty_cache()


if __name__ == '__main__': main()
