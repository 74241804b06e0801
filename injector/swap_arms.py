"""Swapping: arms that no registry holds, each a row of EXTRA_ARMS: what people weigh against each other when
the loop over experts is too slow. All take the layer's own stacked weights as they lie, and the job's own routing.

An arm gives the function (x, index, score) -> out of one layer, or Refused. Its operations are torch's and those of
packages that the job's Python can import; nothing is installed or downloaded. What fails later in a forward runs as
the job's own code, and is reverted at the next step boundary.
"""
import importlib.util


class Rows:
    """The (token, slot) pairs sorted by expert. One beyond the last expert (a sentinel of expert parallelism) is left out."""

    def __init__(self, index, n):
        expert, order = index.reshape(-1).sort(stable=True)
        self.sizes = torch.zeros(n + 1, dtype=torch.int64, device=index.device)
        self.sizes = self.sizes.scatter_add_(0, expert.clamp(max=n), torch.ones_like(expert, dtype=torch.int64))[:n]
        self.counts = self.sizes.tolist()  # waits for the GPU, as every arm does that must know the counts
        self.n = sum(self.counts)
        self.expert, self.order = expert[:self.n], order[:self.n]


class AsTheyAre:
    """Rows stay as they are sorted; `matmul` multiplies them in groups."""

    def __init__(self, rows, matmul):
        self.rows, self.matmul = rows, matmul

    def spread(self, t):
        return t

    def linear(self, t, weight, bias):
        return self.matmul(t, weight, self.rows)

    def gather(self, t):
        return t


class Padded:
    """One bmm over all experts, each padded to the busiest one's rows."""

    def __init__(self, rows):
        self.n, self.most = len(rows.counts), max(rows.counts)
        first = rows.sizes.cumsum(0) - rows.sizes
        place = torch.arange(rows.n, device=rows.order.device) - first[rows.expert]
        self.at = rows.expert * self.most + place

    def spread(self, t):
        flat = t.new_zeros(self.n * self.most, t.shape[1]).index_copy(0, self.at, t)
        return flat.view(self.n, self.most, -1)

    def linear(self, t, weight, bias):
        return torch.bmm(t, weight) if bias is None else torch.baddbmm(bias[:, None], t, weight)

    def gather(self, t):
        return t.reshape(self.n * self.most, -1)[self.at]


class EqualCounts:
    """One bmm for all experts that have the same number of rows: nothing is padded, and as many bmm as counts differ."""

    def __init__(self, rows):
        device = rows.order.device
        order = sorted((count, e) for e, count in enumerate(rows.counts) if count)
        groups = collections.Counter(count for count, _ in order)
        self.groups = [(groups[count], count) for count in sorted(groups)]
        self.experts = torch.tensor([e for _, e in order], device=device, dtype=torch.int64)
        self.order = (rows.sizes[rows.expert] * len(rows.counts) + rows.expert).argsort(stable=True)

    def split(self, t):
        return t.split([n for n, _ in self.groups])

    def spread(self, t):
        parts = t[self.order].split([n * count for n, count in self.groups])
        return [part.view(n, count, -1) for part, (n, count) in zip(parts, self.groups)]

    def linear(self, parts, weight, bias):
        out = [torch.bmm(t, w) for t, w in zip(parts, self.split(weight[self.experts]))]
        return out if bias is None else [t + b[:, None] for t, b in zip(out, self.split(bias[self.experts]))]

    def gather(self, parts):
        flat = torch.cat([t.reshape(-1, t.shape[-1]) for t in parts])
        return torch.empty_like(flat).index_copy(0, self.order, flat)


# ---------------------------------------------------------------------------------------------------------
# One layer by one of them

def operands(unit):
    """(wide, down, wide's bias, down's bias) with matrices as (E, in, out); biases may be None."""
    wide, down, *biases = unit.weights.tensors()
    if not unit.weights.transposed:
        wide, down = wide.transpose(1, 2), down.transpose(1, 2)
    return (wide, down) + (tuple(biases) or (None, None))


def activated(unit, wide):
    weights = unit.weights
    if not weights.gated:
        return act(unit.act, None, wide)
    gate, up = wide.chunk(2, -1) if weights.concatenated else (wide[..., 0::2], wide[..., 1::2])
    return act(unit.act, gate, up, unit.alpha, unit.limit)


def by_rows(unit, layout, x, index, score):
    """Sorts, multiplies by a layout of the rows, weighs, and adds up in the order of slots."""
    rows = Rows(index, unit.n)
    if not rows.n:
        return torch.zeros_like(x)
    layout, (wide, down, wide_bias, down_bias) = layout(rows), operands(unit)
    hidden = layout.linear(layout.spread(x[rows.order // index.shape[1]]), wide, wide_bias)
    hidden = [activated(unit, t) for t in hidden] if isinstance(hidden, list) else activated(unit, hidden)
    out = layout.gather(layout.linear(hidden, down, down_bias)) * score.reshape(-1)[rows.order, None]
    slots = out.new_zeros(index.numel(), x.shape[1]).index_copy(0, rows.order, out)
    return slots.view(*index.shape, -1).sum(1).to(x.dtype)


def stacked_only(unit):
    if not isinstance(unit.weights, Stacked) or unit.outer() is not unit.site():
        raise Refused("it wants plain stacked weights, and this layer's are %s" % unit.weights.describe())


def laid_out(unit, layout):
    return lambda x, index, score: by_rows(unit, layout, x, index, score)


def without_bias(unit):
    if unit.weights.biased:
        raise Refused("it has no biases, and this layer has")


def padded_bmm(unit):
    return laid_out(unit, Padded)


def equal_bmm(unit):
    return laid_out(unit, EqualCounts)


def scattermoe(unit):
    """ScatterMoE's parallel_linear, which gathers and scatters inside of its kernels."""
    package = importlib.import_module("scattermoe")

    def run(x, index, score):
        wide, down, wide_bias, down_bias = operands(unit)
        order = package.flatten_sort_count(index, num_experts=unit.n)
        hidden = package.parallel_linear(x, wide, index.shape[1], *order, expert_biases=wide_bias, grouped_out=True)
        return package.parallel_linear(activated(unit, hidden).contiguous(), down, 1, *order, expert_biases=down_bias,
                                       gates=score.to(x.dtype), grouped_in=True)
    return run


def megablocks(unit):
    """MegaBlocks' grouped GEMM, as the kernels package serves it from what is on this machine."""
    without_bias(unit)
    constants = importlib.import_module("huggingface_hub").constants
    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True  # a guest downloads nothing
    try:
        multiply = importlib.import_module("kernels").get_kernel("kernels-community/megablocks", version=1).gg_ops.gmm
    except Exception as error:
        raise Refused("kernels-community/megablocks is not on this machine (%s: %s): load it once before training, with "
                      "kernels.get_kernel" % (type(error).__name__, error))
    finally:
        constants.HF_HUB_OFFLINE = offline
    grouped = lambda t, weight, rows: multiply(t, weight.contiguous(), rows.sizes.cpu(), False)
    return laid_out(unit, lambda rows: AsTheyAre(rows, grouped))


def qwen3_moe_fused(unit):
    """The grouped GEMM of the patch; the patch itself replaces the model's class before loading."""
    without_bias(unit)
    if unit.weights.transposed:
        raise Refused("it wants weights as (experts, out, in), and this layer's lie the other way round")
    multiply = importlib.import_module("qwen3_moe_fused.functional").moe_fused_linear
    grouped = lambda t, weight, rows: multiply(t, weight.transpose(1, 2), rows.sizes)
    return laid_out(unit, lambda rows: AsTheyAre(rows, grouped))


@functools.lru_cache(None)
def compiled(function):
    """One for all layers: dynamo keeps its graphs by function, and a layer is one of its inputs."""
    return torch.compile(function, mode="reduce-overhead")


class CompiledLoop:
    """The model's own loop under torch.compile(mode="reduce-overhead"). What dynamo made of it is part of the result: a
    loop over the experts that were hit depends on data, and what is not captured runs as it always did."""

    def __init__(self, unit):
        self.site = weakref.ref(unit.core())
        _, eager = dispatch_of(unit.core())
        if eager is None:
            raise Refused("it does not dispatch between implementations, so its own loop cannot be had by itself")
        self.compiled = compiled(eager)

    def __call__(self, x, index, score):
        return self.compiled(self.site(), x, index, score).clone()  # a CUDA graph's output is its own memory

    @staticmethod
    def note():
        counters = sys.modules["torch._dynamo.utils"].counters
        skips = counters["inductor"]["cudagraph_skips"]
        return ("torch.compile made %d graphs of the loop and broke off at %d places; %s" %
                (counters["stats"]["unique_graphs"], len(counters["graph_break"]) + len(counters["unimplemented"]),
                 "CUDA graphs were refused to %d of them" % skips if skips else "none was refused a CUDA graph"))


# ---------------------------------------------------------------------------------------------------------

# what it is; the package that it needs ("": none) and how to get it; whether on a GPU only; how a layer gets it
Extra = collections.namedtuple("Extra", "what package how gpu_only make")
EXTRA_ARMS = {
    "padded_bmm": Extra("bmm over experts padded to the busiest one", "", "", False, padded_bmm),
    "equal_bmm": Extra("bmm over groups of experts with equal counts", "", "", False, equal_bmm),
    "scattermoe": Extra("ScatterMoE's kernels", "scattermoe", "from github.com/shawntan/scattermoe", True, scattermoe),
    "megablocks": Extra("MegaBlocks' grouped GEMM through the kernels package", "kernels", "with pip install kernels", True,
                        megablocks),
    "qwen3-moe-fused": Extra("the grouped GEMM of the qwen3-moe-fused patch", "qwen3_moe_fused",
                             "from github.com/woct0rdho/transformers-qwen3-moe-fused", True, qwen3_moe_fused),
    "reduce-overhead": Extra('eager under torch.compile(mode="reduce-overhead")', "", "", False, CompiledLoop),
}


def extra_refusal(extra, unit):
    """Why this layer cannot have it, told without importing anything; "" when it may."""
    plain = isinstance(unit.weights, Stacked) and type(unit) in (Unit, DenseUnit) and unit.outer() is unit.site()
    found = importlib.util.find_spec(extra.package) if extra.package else True
    if found is None or getattr(found, "origin", found) is None:  # a folder of that name is no package
        return "the job's Python has no package %s; install it %s" % (extra.package, extra.how)
    if extra.gpu_only and unit.weights.tensors()[0].device.type != "cuda":
        return "its kernels run on a GPU only"
    if not plain:
        return "it wants plain stacked weights, and layer %d has %s" % (unit.layer, unit.weights.describe())
    return ""


class Guarded:
    """Another's implementation in the job's forward: what it raises is no business of the job."""

    def __init__(self, unit, function):
        self.unit, self.function, self.failed = unit, function, None

    def __call__(self, x, index, score):
        if self.failed is None:
            try:
                return self.function(x, index, score)
            except Exception as error:
                if type(error).__module__ == "torch.utils.checkpoint":  # how a replay ends, not a failure
                    raise
                self.failed = "%s: %s" % (type(error).__name__, str(error)[:300])
        return self.unit.own_experts(x, index, score)

    def note(self):
        note = getattr(self.function, "note", None)
        return note() if note is not None else ""


def is_extra(units, name):
    """A name that the model's registry has is the registry's."""
    return name in EXTRA_ARMS and name not in named_arms(units)


def arm_rows(units):
    """(name, why not or "", what it is) of every arm but the job's own and moeprof's."""
    rows = [(name, "", "an implementation of the model's own interface") for name in named_arms(units)]
    able = [unit for unit in units if isinstance(unit, Unit)]
    for name, extra in EXTRA_ARMS.items():
        if is_extra(units, name):
            why = extra_refusal(extra, able[0]) if able else ""
            rows.append((name, "%s: %s" % (extra.what, why) if why else "", extra.what))
    return rows


def arm_experts(unit, name):
    """The experts of one layer by that arm, or Refused; kept, so that what it once compiled is used again."""
    kept = unit.__dict__.setdefault("arms", {})
    if name not in kept or kept[name].failed:
        extra = is_extra([unit], name)
        kept[name] = Guarded(unit, EXTRA_ARMS[name].make(unit) if extra else named_experts(unit, name))
    return kept[name]
