"""Swapping the experts of a running job, part 1: activations and weights, as the job has them.

Executed in hook.py's namespace when the first request comes (CONTROL.md), never in a job that is not asked.

A layer is swapped by an attribute of one module instance: `experts.forward`, `block.moe` or `block.forward`.
Undoing deletes it, so that what runs afterwards is the job's own code. Everything outside of that call (router,
PEFT wrappers, hooks of parallelism, output capture) stays the model's own, in 5.x for every layer by itself,
which a value in the shared config could not give.
The layout of weights is what the module declares, or its class's structure; parity then holds the declaration
against what the job's own code computes. Shapes alone decide nothing.
"""
import functools
import inspect
import operator
import types

CUDA, CPU = 0, 1  # enum mk_target
MK_DTYPE = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2, torch.float64: 3, torch.int32: 4, torch.int64: 5}
SWIGLU, GEGLU_TANH, GEGLU_ERF, CLAMPED_GLU, RELU2 = range(5)  # enum mk_act
ACT_NAMES = ("swiglu", "geglu (tanh)", "geglu (erf)", "clamped glu", "relu2")
INFERENCE = 1  # MK_FLAG_INFERENCE
CPU_FP32 = 4  # MK_FLAG_CPU_FP32
FUNCTIONAL = torch.nn.functional
ABSENT = object()
NOWHERE = (-1, 0)


def same_dice(device=None):
    """What runs of the job's code in here (an expert with dropout) draws none of the job's random numbers."""
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() and torch.cuda.is_initialized() else "cpu")
    gpus = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    return torch.random.fork_rng(devices=gpus)


class Refused(Exception):
    """Why a layer cannot be swapped, as a sentence for the user."""


# ---------------------------------------------------------------------------------------------------------
# Activations: recognised by what they compute

def act(kind, gate, up, alpha=0.0, limit=0.0):
    """The activation of the kernels' definition, in whatever dtype is given."""
    if kind == SWIGLU:
        return FUNCTIONAL.silu(gate) * up
    if kind == GEGLU_TANH:
        return FUNCTIONAL.gelu(gate, approximate="tanh") * up
    if kind == GEGLU_ERF:
        return FUNCTIONAL.gelu(gate) * up
    if kind == CLAMPED_GLU:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return gate * torch.sigmoid(alpha * gate) * (up + 1)
    return FUNCTIONAL.relu(up) ** 2


def same(a, b):
    return a.shape == b.shape and bool(torch.allclose(a.float(), b.float(), rtol=1e-5, atol=1e-6))


@torch.no_grad()
def plain_activation(function):
    """Which of the activations act(gate) * up a function of one argument belongs to."""
    t = torch.linspace(-5, 5, 64)
    for kind in (SWIGLU, GEGLU_TANH, GEGLU_ERF):
        if same(function(t.clone()), act(kind, t, torch.ones_like(t))):
            return kind
    raise Refused("its activation %s is none that the kernels have" % type(function).__name__)


@torch.no_grad()
def gate_activation(experts, function, concatenated):
    """(kind, alpha, limit) of a method that takes gate and up in one tensor."""
    t = torch.linspace(-9, 9, 96).view(3, 32)
    gate, up = (t[:, :16], t[:, 16:]) if concatenated else (t[:, ::2], t[:, 1::2])
    got = function(t.clone())
    alpha, limit = (float(getattr(experts, name, 0.0) or 0.0) for name in ("alpha", "limit"))
    for kind in (SWIGLU, GEGLU_TANH, GEGLU_ERF) + ((CLAMPED_GLU,) if limit else ()):
        if same(got, act(kind, gate, up, alpha, limit)):
            return kind, alpha, limit
    raise Refused("its gate is its own (%s) and none that the kernels have" % function.__qualname__)


# ---------------------------------------------------------------------------------------------------------
# Weights of one layer

def check_tensor(name, p):
    """Refuses what is not a plain tensor of numbers on one device."""
    if hasattr(p, "ds_id"):
        raise Refused("%s is sharded by DeepSpeed ZeRO-3" % name)
    if p.device.type == "meta" or not p.numel():
        raise Refused("%s is not in memory (offloaded or sharded away)" % name)
    if hasattr(p, "quant_state") or type(p).__name__ in ("Params4bit", "Int8Params"):
        raise Refused("%s is quantised by bitsandbytes" % name)
    if hasattr(p, "_local_tensor") and not any(q.is_shard() for q in p.placements) and p.device_mesh.size() > 1:
        raise Refused("%s is a replicated DTensor" % name)
    if p.dtype not in MK_DTYPE or not p.is_floating_point():
        raise Refused("%s is stored as %s" % (name, str(p.dtype).replace("torch.", "")))
    if p.device.type not in ("cpu", "cuda"):
        raise Refused("%s is on a device of type %s" % (name, p.device.type))


class Stacked:
    """3-D parameters gate_up_proj (or up_proj) and down_proj of one module, read anew at each call: PEFT's
    parametrization and FSDP put other tensors there while the module runs."""
    names = ("gate_up_proj", "down_proj", "gate_up_proj_bias", "down_proj_bias")

    def __init__(self, experts, transposed=None):
        """transposed: of a class that does not declare it but is made that way."""
        mine = own(experts)
        self.module = weakref.ref(experts)
        self.gated = bool(getattr(experts, "has_gate", True))
        if not self.gated:
            self.names = ("up_proj",) + self.names[1:2] + ("up_proj_bias", "down_proj_bias")
        if hasattr(experts, self.names[0] + "_blocks"):
            raise Refused("its weights are quantised (mxfp4, as blocks and scales)")
        for name in self.names[:2]:
            if hasattr(mine.get(name), "_fsdp_flattened") or isinstance(experts.__dict__.get(name), torch.Tensor):
                raise Refused("%s is a piece of a flat parameter of FSDP1 (FullyShardedDataParallel)" % name)
            if name in mine:
                check_tensor(name, mine[name])
        if any(mine.get(name) is None or mine[name].dim() != 3 for name in self.names[:2]):
            raise Refused("its weights are not stacked in %s and %s" % self.names[:2])
        self.biased = bool(getattr(experts, "has_bias", self.names[2] in mine))
        self.names = self.names if self.biased else self.names[:2]
        for name in self.names:
            if name not in mine:
                raise Refused("it declares a bias and has no %s" % name)
            check_tensor(name, mine[name])
        self.pick = operator.itemgetter(*self.names)
        self._layout(experts, mine, getattr(experts, "is_transposed", transposed))

    def _layout(self, experts, mine, declared):
        if declared is None and self.biased and hasattr(experts, "alpha") and hasattr(experts, "limit"):
            declared, self.concatenated = True, False  # gpt-oss before it declared itself
        else:
            self.concatenated = bool(getattr(experts, "is_concatenated", True))
        if declared is None:
            raise Refused("it does not declare how its weights lie (is_transposed)")
        self.transposed = bool(declared)
        shape = mine[self.names[1]].shape
        self.n = int(shape[0])
        self.inter, self.hidden = (int(shape[1]), int(shape[2])) if self.transposed else (int(shape[2]), int(shape[1]))
        wide = self.inter * (2 if self.gated else 1)
        self.sharded = any(hasattr(p, "_local_tensor") for p in mine.values())
        expected = (self.hidden, wide) if self.transposed else (wide, self.hidden)
        if not self.sharded and tuple(mine[self.names[0]].shape[1:]) != expected:
            raise Refused("%s and %s do not fit each other" % self.names[:2])
        if self.hidden % 8 or self.inter % 8:
            raise Refused("hidden and intermediate size must be multiples of 8")

    def describe(self):
        return "stacked%s%s%s" % (", transposed" if self.transposed else "", "" if self.concatenated else ", interleaved",
                                  ", biased" if self.biased else "")

    def tensors(self):
        module = self.module()
        try:  # a getattr of a parameter costs ten times as much
            return self.pick(module._parameters)
        except KeyError:
            return tuple([getattr(module, name) for name in self.names])

    def dtype(self):
        return self.tensors()[0].dtype

    def stored(self, tensors):
        return tensors[0].dtype

    def lora(self, used):
        return None

    def same_as_now(self):
        return True

    def expert(self, tensors, e):
        """(gate, up, down, gate bias, up bias, down bias) of one expert as (I, H), (I, H), (H, I), ..; also of gradients."""
        wide, down = tensors[0][e], tensors[1][e]
        if self.transposed:
            wide, down = wide.t(), down.t()
        gate, up = self._halves(wide)
        biases = (None, None, None)
        if len(tensors) > 2:
            biases = self._halves(tensors[2][e]) + (tensors[3][e],)
        return (gate, up, down) + biases

    def trained(self, tensors, e):
        """Which of expert()'s six the job differentiates."""
        wide, down, *biases = [t.requires_grad for t in tensors]
        return (wide and self.gated, wide, down) + ((biases[0] and self.gated, biases[0], biases[1]) if biases else (False,) * 3)

    def _halves(self, wide):
        if not self.gated:
            return None, wide
        if self.concatenated:
            return wide[:self.inter], wide[self.inter:]
        return wide[0::2], wide[1::2]

    def cast(self, tensors, dtype):
        return tuple([p.detach().to(dtype) for p in tensors])

    def strides(self, tensors):
        """(gate, up, down) as (expert, row, column), in elements."""
        (a, b, c), (d, e, f) = tensors[0].stride(), tensors[1].stride()
        row, column = (c, b) if self.transposed else (b, c)
        step = row if self.concatenated or not self.gated else 2 * row
        wide = (a, step, column)
        return (wide, wide, (d, f, e) if self.transposed else (d, e, f))

    def up_offsets(self, tensors):
        """Bytes from the gate's first element to the up matrix's, in the weights and in the biases."""
        if not self.gated:
            return 0, 0
        steps = [tensors[0].stride(2 if self.transposed else 1) * tensors[0].element_size()]
        steps.append(tensors[2].stride(1) * tensors[2].element_size() if len(tensors) > 2 else 0)
        return tuple(self.inter * step if self.concatenated else step for step in steps)

    def bias_strides(self, tensors):
        if len(tensors) < 4:
            return ((0, 0),) * 3
        wide = (tensors[2].stride(0), tensors[2].stride(1) * (1 if self.concatenated or not self.gated else 2))
        return (wide, wide, tuple(tensors[3].stride()))

    def matrices(self, tensors, device):
        return self.strides(tensors)

    def seen(self, used):
        """(a tuple of the tensors that a call reads its weights from, what else a plan depends on besides their layout)"""
        return used, None

    def places(self, used):
        """(number among the operands, bytes from its beginning) of gate, up, down and their biases; (-1, address) of what
        lies in none of them, (-1, 0) of what there is not."""
        up_at, bias_at = self.up_offsets(used)
        gate, gate_bias = ((0, 0), (2, 0)) if self.gated else (NOWHERE, NOWHERE)
        return gate + (0, up_at, 1, 0) + (gate_bias + (2, bias_at, 3, 0) if len(used) > 2 else NOWHERE * 3)

    def wanted(self, needed):
        """Which of what the kernels make (dx, dscore, gradients of weights) is needed, from which inputs need one."""
        return needed

    def handed(self, made, needed):
        """What autograd gets, from what the kernels made."""
        return made

    def gradient_layout(self, tensors, sample):
        """(strides, places, shapes, bytes of the first) of the gradients that the kernels make, typed as the sample"""
        made = [torch.empty(p.shape, dtype=sample.dtype, device="meta") for p in tensors]
        return self.strides(made), self.places(made), [p.shape for p in made], made[0].numel() * sample.element_size()


class Scattered:
    """Tensors of one shape, one an expert, as one matrix: the lowest address and distances from it."""

    def __init__(self):
        self.at, self.base, self.made = None, 0, None

    def look(self, tensors):
        """True when the tensors lie elsewhere than last time."""
        at = [t.data_ptr() for t in tensors]
        moved = at != self.at
        if moved:
            self.at, self.base, self.made = at, min(at), None
        return moved

    def matrix(self, one, device):
        """((stride_expert, stride_row, stride_col, offsets, span), what must stay alive)"""
        if self.made is None:
            distances = [(at - self.base) // one.element_size() for at in self.at]
            self.made = torch.tensor(distances, dtype=torch.int64, device=device), max(distances)
        offsets, span = self.made
        return (0, one.stride(0), one.stride(1), offsets.data_ptr(), span), offsets


class Whereabouts:
    """Groups of Scattered. All addresses are read once a step, the first and the last at each call: what moves weights
    within a step moves all of them."""

    def __init__(self, n, n_group):
        self.n, self.groups = n, [Scattered() for _ in range(n_group)]
        self.seen, self.moves = None, 0

    def look(self, tensors):
        """A number that is another one when the tensors lie elsewhere."""
        seen = guest.step(), tensors[0].data_ptr(), tensors[-1].data_ptr()
        if seen != self.seen:
            self.seen = seen
            self.moves += any([group.look(part) for group, part in zip(self.groups, self.parts(tensors))])
        return self.moves

    def parts(self, tensors):
        return [tensors[i * self.n:(i + 1) * self.n] for i in range(len(self.groups))]


def plain_weight(linear):
    """The weight of one expert's Linear, or Refused."""
    if type(linear) is not torch.nn.Linear:
        raise Refused("an expert's matrix is a %s, not a plain Linear" % type(linear).__name__)
    if linear.bias is not None:
        raise Refused("its Linears have a bias")
    if "parametrizations" in linear._modules or linear._forward_pre_hooks or linear._forward_hooks or "forward" in linear.__dict__:
        raise Refused("an expert's Linear has hooks of its own, which a swap would not run")
    check_tensor("an expert's weight", linear.weight)
    if not linear.weight.is_contiguous():
        raise Refused("an expert's weight is not contiguous")
    if hasattr(linear.weight, "_local_tensor"):
        raise Refused("its experts are sharded one by one")
    return linear.weight


DENSE = (0, 0, 1, 0, 2, 0) + NOWHERE * 3  # places of three stacks


class Listed:
    """One module an expert, of three Linears without bias each: gate, up and down of all experts."""
    gated, biased = True, False

    def __init__(self, linears):
        self.sharded = False
        self.n = len(linears[0])
        self.linears = [weakref.ref(linear) for group in linears for linear in group]
        self.params = [plain_weight(linear) for group in linears for linear in group]
        self.parents = []
        self.where = Whereabouts(self.n, 3)
        self.inter, self.hidden = self.params[0].shape
        if self.hidden % 8 or self.inter % 8:
            raise Refused("hidden and intermediate size must be multiples of 8")

    def describe(self):
        return "one module an expert"

    def tensors(self):
        return self.params

    def dtype(self):
        return self.params[0].dtype

    def stored(self, tensors):
        return self.params[0].dtype

    def lora(self, used):
        return None

    def rests_on(self, *parents):
        """(a module, the name of one of its children) for what a swap relies on being there."""
        self.parents = [(weakref.ref(parent), name, weakref.ref(parent._modules[name])) for parent, name in parents]

    def in_place(self):
        """False when a module was wrapped (by adapters) or replaced since."""
        for parent, name, child in self.parents:
            parent, child = parent(), child()
            if parent is None or child is None or parent._modules.get(name) is not child:
                return False
        return True

    def same_as_now(self):
        now = (ref() for ref in self.linears)
        return self.in_place() and all(linear is not None and linear.weight is p for linear, p in zip(now, self.params))

    def expert(self, tensors, e):
        n = self.n
        return tensors[e], tensors[n + e], tensors[2 * n + e], None, None, None

    def trained(self, tensors, e):
        return [tensors[i * self.n + e].requires_grad for i in range(3)] + [False] * 3

    def cast(self, tensors, dtype):
        n, first = self.n, tensors[0]
        stacks = [torch.empty((n,) + tuple(tensors[i * n].shape), dtype=dtype, device=first.device) for i in range(3)]
        with torch.no_grad():
            torch._foreach_copy_([one for stack in stacks for one in stack.unbind(0)], [p.detach() for p in tensors])
        return tuple(stacks)

    def bias_strides(self, tensors):
        return ((0, 0),) * 3

    def seen(self, used):
        return (used, None) if len(used) == 3 else ((), self.where.look(used))  # 3: shadows

    def places(self, used):
        if len(used) == 3:
            return DENSE
        return tuple([value for group in self.where.groups for value in (-1, group.base)]) + NOWHERE * 3

    def matrices(self, tensors, device):
        if len(tensors) == 3:
            return self.dense()
        found = [group.matrix(part[0], device) for group, part in zip(self.where.groups, self.where.parts(tensors))]
        return tuple(matrix for matrix, _ in found) + tuple(alive for _, alive in found)

    def dense(self):
        size = self.inter * self.hidden
        return ((size, self.hidden, 1),) * 2 + ((size, self.inter, 1),)

    def wanted(self, needed):
        return needed[0], needed[1], *[any(part) for part in self.where.parts(needed[2:])]

    def handed(self, made, needed):
        return made[0], made[1], *unstacked(made[2:], needed[2:], self.n)

    def gradient_layout(self, tensors, sample):
        shapes = [(self.n, *tensors[i * self.n].shape) for i in range(3)]
        return self.dense(), DENSE, shapes, self.n * tensors[0].numel() * sample.element_size()


def unstacked(stacks, needed, n):
    """The gradients of single experts, or None where not needed, out of stacks of n, or None where none is."""
    each = []
    for i, stack in enumerate(stacks):
        mine = needed[i * n:(i + 1) * n]
        if stack is None:
            each += [None] * n
        elif all(mine):
            each += stack.unbind(0)
        else:
            each += [one if need else None for one, need in zip(stack.unbind(0), mine)]
    return each
