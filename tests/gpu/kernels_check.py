"""Kernels on the GPU against fp64 on the same rounded inputs, and against the eager loop's own error.

  python3 tests/gpu/kernels_check.py [--quick] [--path hopper|portable] [--only WORD]
Passes where the RMS error of output and every gradient is at most 4e-3 relative and 1.05 times the eager bf16 loop's; with
adapters 4.5e-3, since A x is rounded on its own, and the eager loop computes as PEFT does, with weights that hold them. Without a GPU: the CPU reference, small cases.
"""
import argparse, sys
import torch
from kernels_case import Case, NAMES, accumulated, bf, dev, err, f32, fp16, loop, mk, ours, reference


def judge(c, got, want, eager):
    """Names of results that are wrong, and all errors as text."""
    bad, text = [], []
    for n, g, w, e in zip(NAMES, got, want, eager):
        if g is None or w is None: continue
        if not torch.isfinite(g.float()).all(): bad.append(n + ' not finite'); text.append(f'{n} nan'); continue
        ge, ee = err(g, w), err(e, w)
        text.append(f'{n} {ge:.1e}/{ee:.1e}')
        few = g.numel() < 64 or c.T * c.K < 16  # rounding of the few numbers themselves
        most = 8e-3 if few else 4.5e-3 if c.lora else 4e-3
        if ge > most or ge > 1.05 * ee + 2e-5: bad.append(n)
    return bad, text


def check(name, c, want_path=None, **kw):
    want, eager = reference(c), loop(c, c.dtype)
    if kw.get('accumulate'): want, eager = accumulated(want), accumulated(eager)
    try: got, path = ours(c, **kw)
    except mk.Refused as e: print(f'{name:44s} REFUSED: {e}'); return False
    bad, text = judge(c, got, want, eager)
    again, _ = ours(c, **kw)
    if not all(g is None or torch.equal(g, h) for g, h in zip(got, again)): bad.append('differs from run to run')
    if want_path and path != want_path: bad.append(f'path {path}')
    print(f"{name:44s} {path:8s} {'ok' if not bad else 'FAIL ' + ','.join(bad)}  {' '.join(text)}", flush=True)
    return not bad


def cases(quick):
    """Any path."""
    for T in (0, 1, 7, 63, 64, 65, 127, 129) if not quick else (0, 65, 129):
        yield f'T={T}', dict(T=T, H=256, I=128, E=8, K=2), {}
    yield 'T=4096', dict(T=4096, H=512, I=384, E=32, K=4), {}
    yield 'T=4096 one expert', dict(T=4096, H=256, I=256, E=1, K=1), {}
    yield 'many tiles a block', dict(T=16384, H=512, I=512, E=24, K=4), {}
    yield 'many tiles a block, skewed', dict(T=8192, H=1024, I=768, E=64, K=8, routing='half'), {}
    yield 'K=1', dict(T=300, H=256, I=128, E=8, K=1), {}
    yield 'K=E prime', dict(T=257, H=256, I=128, E=7, K=7), {}
    yield 'E=1024', dict(T=300, H=64, I=64, E=1024, K=8), {}
    yield 'H, I odd multiples of 8', dict(T=200, H=328, I=200, E=5, K=3), {}
    yield 'H, I small', dict(T=130, H=8, I=8, E=3, K=2), {}
    yield 'one takes all', dict(T=700, H=256, I=256, E=16, K=2, routing='one'), {}
    yield 'half empty, fp32 score, int32 index', dict(T=300, H=256, I=256, E=16, K=2, routing='half', score=f32, index=torch.int32), {}
    yield 'sentinels', dict(T=300, H=256, I=128, E=8, K=4, sentinel=.5), {}
    yield 'all dropped', dict(T=70, H=256, I=128, E=8, K=2, sentinel=1.), {}
    yield 'interleaved', dict(T=300, H=256, I=192, E=8, K=2), dict(layout='interleaved')
    yield 'list of experts', dict(T=300, H=256, I=192, E=8, K=2), dict(layout='list')
    yield 'fp32 gradients, accumulated', dict(T=300, H=256, I=192, E=8, K=2), dict(gdtype=f32, accumulate=1)
    yield 'bf16 gradients, accumulated', dict(T=300, H=256, I=192, E=8, K=2), dict(accumulate=1)
    yield 'frozen', dict(T=300, H=256, I=192, E=8, K=2), dict(frozen=True)
    yield 'geglu tanh', dict(T=300, H=256, I=192, E=8, K=2, act=mk.GEGLU_TANH), {}
    yield 'geglu erf', dict(T=300, H=256, I=192, E=8, K=2, act=mk.GEGLU_ERF), {}
    yield 'clamped glu, biases', dict(T=300, H=256, I=192, E=8, K=2, act=mk.CLAMPED_GLU, bias=True), {}


def lora_cases(quick):
    """Adapters, on any path."""
    usual = dict(H=256, I=192, E=8, K=2)
    for r in (4, 8, 16, 32, 64, 128) if not quick else (16,):
        yield f'adapters, rank {r}', dict(T=300, **usual, lora=dict(up=r, down=r)), dict(frozen=True)
    for T in (0, 1, 7, 63, 64, 65, 127, 129) if not quick else (0, 65):
        yield f'adapters, T={T}', dict(T=T, **usual, lora=dict(up=16, down=16)), dict(frozen=True)
    yield 'adapters, T=4096', dict(T=4096, H=1024, I=768, E=32, K=4, lora=dict(up=16, down=16)), dict(frozen=True)
    yield 'adapters, many tiles a block', dict(T=16384, H=512, I=512, E=24, K=4, lora=dict(up=32, down=8)), dict(frozen=True)
    yield 'adapters, K=1', dict(T=300, H=256, I=128, E=8, K=1, lora={}), dict(frozen=True)
    yield 'adapters, K=E prime', dict(T=257, H=256, I=128, E=7, K=7, lora=dict(up=12, down=20)), dict(frozen=True)
    yield 'adapters, E=1024', dict(T=300, H=64, I=64, E=1024, K=8, lora=dict(up=4, down=4)), dict(frozen=True)
    yield 'adapters, H, I odd multiples of 8', dict(T=200, H=328, I=200, E=5, K=3, lora=dict(up=24, down=40)), dict(frozen=True)
    yield 'adapters, one takes all', dict(T=700, H=256, I=256, E=16, K=2, routing='one', lora=dict(up=16)), dict(frozen=True)
    yield 'adapters, half empty, sentinels', dict(T=300, H=256, I=256, E=16, K=2, routing='half', sentinel=.3, lora={}), dict(frozen=True)
    yield 'adapters and trained weights', dict(T=300, **usual, lora=dict(up=16, down=16)), dict(gdtype=f32)
    yield 'adapters in bf16, accumulated', dict(T=300, **usual, lora=dict(up=16, down=16, dtype=bf)), dict(frozen=True, accumulate=1)
    yield 'adapters in fp32, accumulated', dict(T=300, **usual, lora=dict(up=16, down=16)), dict(frozen=True, accumulate=1)
    yield 'adapters, interleaved', dict(T=300, **usual, lora=dict(up=16, down=16)), dict(frozen=True, layout='interleaved')
    yield 'adapters apart, list of experts, dense B', dict(T=300, **usual, lora=dict(up=12, down=8, apart=True, form='dense')), dict(frozen=True, layout='list')
    yield 'adapters apart, rank 128', dict(T=300, **usual, lora=dict(up=128, down=128, apart=True)), dict(frozen=True)
    yield 'adapters on gate and up alone', dict(T=300, **usual, lora=dict(up=16, down=0)), dict(frozen=True)
    yield 'adapters on down alone', dict(T=300, **usual, lora=dict(up=0, down=16)), dict(frozen=True)


def portable_cases():
    """What the Hopper path leaves to the portable one."""
    usual = dict(H=256, I=192, E=8, K=2)
    yield 'gpt-oss layout, clamped, biases', dict(T=300, H=256, I=192, E=8, K=2, act=mk.CLAMPED_GLU, bias=True), dict(layout='gptoss')
    yield 'transposed', dict(T=300, H=256, I=192, E=8, K=2), dict(layout='transposed')
    yield 'relu2, no gate', dict(T=300, H=256, I=192, E=8, K=2, act=mk.RELU2), {}
    yield 'fp16', dict(T=300, H=256, I=192, E=8, K=2, dtype=fp16, score=fp16), {}
    yield 'adapters, gpt-oss layout, biases', dict(T=300, **usual, act=mk.CLAMPED_GLU, bias=True, lora=dict(up=16, down=16)), dict(frozen=True, layout='gptoss')
    yield 'adapters, transposed', dict(T=300, **usual, lora=dict(up=16, down=16)), dict(frozen=True, layout='transposed')
    yield 'adapters, relu2', dict(T=300, **usual, act=mk.RELU2, lora=dict(up=16, down=16)), dict(frozen=True)
    yield 'adapters, fp16', dict(T=300, **usual, dtype=fp16, score=fp16, lora=dict(up=16, down=16)), dict(frozen=True)


def chosen(o):
    todo = [(n, a, k, o.path) for n, a, k in [*cases(o.quick), *lora_cases(o.quick)]]
    if o.path != 'hopper': todo += [(n, a, k, None) for n, a, k in portable_cases()]
    small = dev == 'cuda' or (lambda a: a['T'] * a['K'] * a['H'] * a['I'] <= 3e7)  # the CPU reference takes about a second for that
    return [t for t in todo if o.only in t[0] and (small is True or small(t[1]))]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--quick', action='store_true')
    ap.add_argument('--path')
    ap.add_argument('--only', default='')
    o = ap.parse_args()
    flags = mk.PORTABLE if o.path == 'portable' else 0
    todo = chosen(o)
    n_bad = sum(not check(n, Case(**a), want, flags=flags, **k) for n, a, k, want in todo)
    print(f'{len(todo) - n_bad} of {len(todo)} cases pass')
    return n_bad > 0


if __name__ == '__main__':
    sys.exit(main())
