"""Experts implementations that people use, one row each in ARMS: a function that takes a case (peers.Case) and returns an Arm.

All get the same tensors: x (T, H), w (T, K) and idx (T, K), gu (E, 2I, H) with gate rows first, dn (E, H, I), in bf16. What an
implementation wants otherwise (interleaved rows, fp32 scores) it gets as a copy, made outside of the time. Packages are imported here
and nowhere else: what is missing raises as it is called, and peers.py names it.
"""
import collections, importlib
import torch
import torch.nn.functional as F

# forward() -> (T, H); the tensors that get gradients, in the order x, w, gu, dn; what makes gu's gradient comparable
Arm = collections.namedtuple('Arm', 'forward leaves gu_grad', defaults=(lambda g: g,))


def leaves(c):
    return [c.x, c.w, c.gu, c.dn]


def moeprof(c, name='moeprof'):
    return Arm(*getattr(importlib.import_module('arm_moeprof'), name)(c))


def experts_class():
    return importlib.import_module('transformers.models.qwen3_moe.modeling_qwen3_moe').Qwen3MoeExperts


def module_of(c, implementation):
    """transformers' own module around the case's weights."""
    config = importlib.import_module('transformers').Qwen3MoeConfig(hidden_size=c.H, moe_intermediate_size=c.I, num_experts=c.E, num_experts_per_tok=c.K)
    config._experts_implementation = implementation
    with torch.device('meta'): m = experts_class()(config)
    del m.gate_up_proj, m.down_proj
    m.gate_up_proj, m.down_proj = c.gu, c.dn
    return m


def transformers_arm(implementation):
    def make(c):
        m = module_of(c, implementation)
        return Arm(lambda: m(c.x, c.idx, c.w), leaves(c))
    return make


def unsloth(c):
    """As a black box: what the class of transformers does once unsloth has been imported."""
    before = experts_class().forward
    importlib.import_module('unsloth')
    if experts_class().forward is before and not hasattr(unsloth, 'replaced'):
        raise RuntimeError("unsloth leaves this transformers' experts as they are")
    unsloth.replaced = True
    m = module_of(c, 'grouped_mm')
    return Arm(lambda: m(c.x, c.idx, c.w), leaves(c))


def scattermoe(c):
    package = importlib.import_module('scattermoe')
    def forward():
        order = package.flatten_sort_count(c.idx, num_experts=c.E)
        gate, up = package.parallel_linear(c.x, c.gu.transpose(1, 2), c.K, *order, grouped_out=True).chunk(2, -1)
        return package.parallel_linear((F.silu(gate) * up).contiguous(), c.dn.transpose(1, 2), 1, *order, gates=c.w, grouped_in=True)
    return Arm(forward, leaves(c))


def hasten_tuners():
    """Triton's tuners try each candidate for 125 ms, of which Liger has some 240 a shape and SonicMoE's sums some 50: 25 ms do. What is timed then does not change."""
    testing = importlib.import_module('triton.testing')
    whole = testing.do_bench
    if not hasattr(testing, 'hastened'):
        testing.do_bench = lambda f, warmup=25, rep=100, **more: whole(f, warmup=min(warmup, 5), rep=min(rep, 20), **more)
        testing.hastened = True


def spare_small():
    """For the small case that is only checked the first of Liger's candidates will do."""
    for t in vars(importlib.import_module('liger_kernel.ops.fused_moe_kernels')).values():
        if hasattr(t, 'configs') and hasattr(t, 'early_config_prune'):
            t.early_config_prune = lambda configs, named, **more: configs[:1] if {**named, **more}['H_dim'] < 512 else configs


def liger(c):
    f, idx = importlib.import_module('liger_kernel.ops.fused_moe').LigerFusedMoEFunction, c.idx.int()
    hasten_tuners()
    spare_small()
    return Arm(lambda: f.apply(c.x, c.gu, c.dn, idx, c.w), leaves(c))


def gmm():
    """MegaBlocks' grouped GEMM: of the package, or as the kernels package serves it without a network."""
    try: return importlib.import_module('grouped_gemm.ops').gmm
    except ImportError as first: why = first
    constants = importlib.import_module('huggingface_hub').constants
    constants.HF_HUB_OFFLINE = True
    try: return importlib.import_module('kernels').get_kernel('kernels-community/megablocks', version=1).gg_ops.gmm
    except Exception as second: raise RuntimeError(f'neither grouped_gemm ({why}) nor kernels-community/megablocks ({second})')


def megablocks(c):
    """Its dropless path: sort, gather, grouped GEMMs, scatter. Group sizes are the host's, so that it waits for the GPU."""
    multiply, gu, dn = gmm(), c.gu, c.dn
    def forward():
        expert, order = c.idx.reshape(-1).sort(stable=True)
        sizes = torch.bincount(expert, minlength=c.E).cpu()
        gate, up = multiply(c.x[order // c.K], gu, sizes, trans_b=True).chunk(2, -1)
        rows = multiply(F.silu(gate) * up, dn, sizes, trans_b=True) * c.w.reshape(-1)[order, None]
        return torch.zeros_like(c.x).index_add(0, order // c.K, rows)
    return Arm(forward, leaves(c))


def prune_sonicmoe():
    """Its tuner would compile 22 configurations a GEMM, minutes long; those of its own table for Hopper stay. Nor has it to warm up a
    card that is warm, 0.2 s for each product of each case."""
    tuner, interface = importlib.import_module('quack.autotuner'), importlib.import_module('quack.gemm_interface')
    tiles = {(128, 256, False), (128, 192, True), (128, 128, True)}
    def good(config):
        return config.cluster_m == 2 and not config.swap_ab and (config.tile_m, config.tile_n, config.pingpong) in tiles
    tuner._gpu_warmup = lambda *_, **__: None
    for t in vars(interface).values():
        prune = getattr(t, 'early_config_prune', None) if isinstance(t, tuner.Autotuner) else None
        if prune and not hasattr(t, 'pruned'):
            t.early_config_prune = lambda configs, named, prune=prune, **more: [x for x in prune(configs, named, **more) if good(x.kwargs['config'])]
            t.pruned = True


def sonicmoe(c):
    """Its two autograd functions, behind its own metadata; it wants gate and up rows interleaved and fp32 scores."""
    lib, enums = importlib.import_module('sonicmoe.functional'), importlib.import_module('sonicmoe.enums')
    prune_sonicmoe()
    hasten_tuners()
    n, idx, act = c.T * c.K, c.idx.int(), enums.ActivationType.SWIGLU
    w, gu = c.w.detach().float().requires_grad_(), torch.stack(c.gu.detach().chunk(2, 1), 2).reshape(c.E, 2 * c.I, c.H).requires_grad_()
    ints = lambda k: torch.empty(k, dtype=torch.int32, device=c.x.device)
    def forward():
        scatter, rank, counts, offsets, gather = ints(n), ints(n), ints(c.E), ints(c.E + 1), ints(n)
        lib.TC_topk_router_metadata_triton(idx, c.E, counts, offsets, gather, scatter, rank)
        hidden, pre = lib._UpProjection.apply(c.x, gu.permute(1, 2, 0), None, offsets, n, c.K, gather, scatter, rank, None, False, act, False, False)
        return lib._DownProjection.apply(hidden, pre, c.dn.permute(1, 2, 0), None, w, offsets, c.T, c.K, gather, scatter, rank, None, False, act)
    return Arm(forward, [c.x, w, gu, c.dn], lambda g: torch.cat((g[:, 0::2], g[:, 1::2]), 1))


ARMS = {
    'moeprof': moeprof,
    'moeprof-portable': lambda c: moeprof(c, 'moeprof_portable'),
    'eager': transformers_arm('eager'),
    'grouped_mm': transformers_arm('grouped_mm'),
    'scattermoe': scattermoe,
    'liger': liger,
    'sonicmoe': sonicmoe,
    'megablocks': megablocks,
    'unsloth': unsloth,  # the last: it changes transformers as it is imported
}
