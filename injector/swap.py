"""Swapping the experts of a running job, part 1: which layers can be swapped, and the call of the kernels.

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
import types

CUDA, CPU = 0, 1  # enum mk_target
MK_DTYPE = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2, torch.float64: 3, torch.int32: 4, torch.int64: 5}
SWIGLU, GEGLU_TANH, GEGLU_ERF, CLAMPED_GLU, RELU2 = range(5)  # enum mk_act
ACT_NAMES = ("swiglu", "geglu (tanh)", "geglu (erf)", "clamped glu", "relu2")
INFERENCE = 1  # MK_FLAG_INFERENCE
CPU_FP32 = 4  # MK_FLAG_CPU_FP32
FUNCTIONAL = torch.nn.functional
ABSENT = object()


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

    def __init__(self, experts):
        mine = own(experts)
        self.module = weakref.ref(experts)
        self.gated = bool(getattr(experts, "has_gate", True))
        if not self.gated:
            self.names = ("up_proj",) + self.names[1:2] + ("up_proj_bias", "down_proj_bias")
        if any(mine.get(name) is None or mine[name].dim() != 3 for name in self.names[:2]):
            raise Refused("its weights are not stacked in %s and %s" % self.names[:2])
        self.biased = bool(getattr(experts, "has_bias", self.names[2] in mine))
        self.names = self.names if self.biased else self.names[:2]
        for name in self.names:
            if name not in mine:
                raise Refused("it declares a bias and has no %s" % name)
            check_tensor(name, mine[name])
        self._layout(experts, mine)

    def _layout(self, experts, mine):
        declared = getattr(experts, "is_transposed", None)
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
        return [getattr(module, name) for name in self.names]

    def dtype(self):
        return self.tensors()[0].dtype

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
        return [p.detach().to(dtype) for p in tensors]

    def strides(self, tensors):
        """(gate, up, down) as (expert, row, column), in elements."""
        (a, b, c), (d, e, f) = tensors[0].stride(), tensors[1].stride()
        row, column = (c, b) if self.transposed else (b, c)
        step = row if self.concatenated or not self.gated else 2 * row
        wide = (a, step, column)
        return (wide, wide, (d, f, e) if self.transposed else (d, e, f))

    def up_offset(self, tensors):
        if not self.gated:
            return 0
        row = tensors[0].stride(2 if self.transposed else 1)
        return self.inter * row if self.concatenated else row

    def bias_strides(self, tensors):
        if len(tensors) < 4:
            return ((0, 0),) * 3
        wide = (tensors[2].stride(0), tensors[2].stride(1) * (1 if self.concatenated or not self.gated else 2))
        return (wide, wide, tuple(tensors[3].stride()))

    def matrices(self, tensors, device):
        return self.strides(tensors)

    def key(self, tensors):
        return tensors[0].stride(), tensors[1].stride()

    def pointers(self, tensors):
        """Addresses of gate, up, down and their biases; None gives 0."""
        wide, down = tensors[0], tensors[1]
        gate = wide.data_ptr() if wide is not None else 0
        up = gate + self.up_offset(tensors) * wide.element_size() if gate else 0
        first = (gate if self.gated else 0, up, down.data_ptr() if down is not None else 0)
        if len(tensors) < 4:
            return first + (0, 0, 0)
        bias, last = tensors[2], tensors[3]
        at = up_at = 0
        if bias is not None:
            at = bias.data_ptr()
            step = 0 if not self.gated else self.inter if self.concatenated else 1
            up_at = at + step * bias.stride(1) * bias.element_size()
        return first + (at if self.gated else 0, up_at, last.data_ptr() if last is not None else 0)

    def gradients(self, tensors, needed, dtype):
        """(what the kernels write to, what autograd gets)"""
        made = [torch.empty(p.shape, dtype=dtype, device=p.device) if need else None for p, need in zip(tensors, needed)]
        return made, made

    def gradient_strides(self, tensors):
        return self.strides([torch.empty(p.shape, device="meta") for p in tensors[:2]])


class Listed:
    """One module an expert, of three Linears without bias each."""
    gated, biased = True, False

    def __init__(self, experts, linears):
        self.sharded = False
        self.n = len(experts)
        self.linears = [[weakref.ref(member._modules[name]) for member in experts] for name in linears]
        self.params = [self._param(ref) for group in self.linears for ref in group]
        self.inter, self.hidden = self.params[0].shape
        if self.hidden % 8 or self.inter % 8:
            raise Refused("hidden and intermediate size must be multiples of 8")

    @staticmethod
    def _param(ref):
        linear = ref()
        if hasattr(linear, "lora_A"):
            raise Refused("its experts' Linears carry adapters, and the kernels have no low-rank path yet")
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

    def describe(self):
        return "one module an expert"

    def tensors(self):
        return self.params

    def dtype(self):
        return self.params[0].dtype

    def same_as_now(self):
        now = (ref() for group in self.linears for ref in group)
        return all(linear is not None and linear.weight is p for linear, p in zip(now, self.params))

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
        return stacks

    def bias_strides(self, tensors):
        return ((0, 0),) * 3

    def key(self, tensors):
        if len(tensors) == 3:  # shadows
            return None
        self.at = tuple([p.data_ptr() for p in tensors])
        return self.at

    def matrices(self, tensors, device):
        dense = ((self.inter * self.hidden, self.hidden, 1),) * 2 + ((self.inter * self.hidden, self.inter, 1),)
        if len(tensors) == 3:
            return dense
        n, size, at = self.n, tensors[0].element_size(), self.at
        rows = [[(p - min(at[i * n:(i + 1) * n])) // size for p in at[i * n:(i + 1) * n]] for i in range(3)]
        offsets = torch.tensor(rows, dtype=torch.int64, device=device)
        matrices = tuple((0,) + m[1:] + (offsets[i].data_ptr(), max(rows[i])) for i, m in enumerate(dense))
        return matrices + (offsets,)  # kept alive with the plan

    def pointers(self, tensors):
        if len(tensors) == 3:
            return tuple(t.data_ptr() if t is not None else 0 for t in tensors) + (0, 0, 0)
        n = self.n  # of the call whose key() was taken last, this one
        return tuple(min(self.at[i * n:(i + 1) * n]) for i in range(3)) + (0, 0, 0)

    def gradients(self, tensors, needed, dtype):
        n, made, handed = self.n, [], []
        for i in range(3):
            want = needed[i * n:(i + 1) * n]
            stack = None
            if any(want):
                stack = torch.empty((n,) + tuple(tensors[i * n].shape), dtype=dtype, device=tensors[0].device)
            made.append(stack)
            handed += [one if need else None for one, need in zip(stack.unbind(0), want)] if stack is not None else [None] * n
        return made, handed

    def gradient_strides(self, tensors):
        return ((self.inter * self.hidden, self.hidden, 1),) * 2 + ((self.inter * self.hidden, self.inter, 1),)


# ---------------------------------------------------------------------------------------------------------
# The call

def autocast_now(kind):
    if hasattr(torch, "get_autocast_dtype"):
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    if kind == "cuda":
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
    return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None


class Plan:
    """What of a call does not change: a C struct, and buffer sizes by number of tokens."""
    __slots__ = ("handle", "sizes", "keep", "flags")

    def __init__(self, unit, x, index, score, used, trained, dweight):
        weights = unit.weights
        matrices = weights.matrices(used, x.device)
        problem = (CUDA if x.is_cuda else CPU, weights.hidden, weights.inter, weights.n, index.shape[1], MK_DTYPE[x.dtype],
                   MK_DTYPE[index.dtype], MK_DTYPE[score.dtype], unit.act, unit.alpha, unit.limit)
        self.handle = guest.plan(problem, MK_DTYPE[dweight], matrices[:3], weights.gradient_strides(trained),
                                 weights.bias_strides(used))
        self.keep = matrices[3:]
        self.flags = CPU_FP32 if not x.is_cuda and x.dtype != torch.float64 and x.numel() > 1 << 16 else 0
        self.sizes = {}

    def sizes_of(self, n_token):
        found = self.sizes.get(n_token)
        if found is None:
            found = guest.sizes(self.handle, n_token)
            if isinstance(found, int):
                raise KernelError(found)
            if len(self.sizes) > 64:  # lengths vary
                self.sizes.clear()
            self.sizes[n_token] = found
        return found


class KernelError(RuntimeError):
    def __init__(self, code):
        RuntimeError.__init__(self, guest.strerror(code))


def raw_stream(device):
    return torch._C._cuda_getCurrentRawStream(device.index) if device.type == "cuda" else 0


def scratch(n, device):
    return torch.empty(n + 256, dtype=torch.uint8, device=device)


def rows_dense(t):
    """Rows may be strided for the kernels, elements may not, and no two rows may be the same memory."""
    return t if t.stride(1) == 1 and t.stride(0) >= t.shape[1] and not t.stride(0) % 8 else t.contiguous()


def row_stride(t):
    return t.stride(0) if t.shape[0] > 1 else t.shape[1]  # of a single row torch says anything


def small_rows(t):
    return t if t.stride(1) == 1 else t.contiguous()


class KernelCall:
    """The experts of one layer through the kernels: (T, H), (T, K), (T, K) -> (T, H)."""

    def __init__(self, unit):
        self.unit, self.weights = unit, unit.weights
        self.plans, self.kept = {}, None
        self.failed = None

    def __call__(self, x, index, score):
        if self.failed is not None or x.dim() != 2:
            return self.unit.own_experts(x, index, score)
        try:
            return self.run(x, index, score)
        except (KernelError, TypeError, AttributeError, KeyError, torch.cuda.OutOfMemoryError) as error:
            self.failed = "%s: %s" % (type(error).__name__, error) if not isinstance(error, KernelError) else str(error)
            return self.unit.own_experts(x, index, score)

    @staticmethod
    def compute_dtype(x, stored):
        """What the job's own linear layers would compute in."""
        cast = autocast_now(x.device.type)
        if cast is None and x.dtype is not stored:
            raise KernelError(-5)  # MK_EDTYPE
        return stored if cast is None or stored is torch.float64 else cast

    def run(self, x, index, score):
        weights = self.weights.tensors()
        dtype = self.compute_dtype(x, weights[0].dtype)
        given = x if x.dtype is dtype else x.to(dtype)
        used = weights
        if weights[0].dtype is not dtype:
            used = self.shadow(weights, dtype, all(type(w) is torch.nn.Parameter for w in weights))
        if torch.is_grad_enabled() and (x.requires_grad or score.requires_grad or any(w.requires_grad for w in weights)):
            out = Experts.apply(self, used, given, index, score, *weights)
        else:
            out, _ = self.forward(given.detach(), index, score.detach(), used, weights, INFERENCE)
        return out if out.dtype is x.dtype else out.to(x.dtype)

    def plan_of(self, x, index, score, used, weights):
        dweight = torch.float32 if weights[0].dtype is torch.float32 else x.dtype
        key = (x.dtype, index.dtype, score.dtype, index.shape[1], x.device, dweight, self.weights.key(used))
        plan = self.plans.get(key)
        if plan is None:
            if len(self.plans) > 8:  # weights that move
                self.plans.clear()
            plan = self.plans[key] = Plan(self.unit, x, index, score, used, weights, dweight)
        return plan

    def forward(self, x, index, score, used, weights, flags):
        x, index, score = rows_dense(x), small_rows(index), small_rows(score)
        plan = self.plan_of(x, index, score, used, weights)
        n, device = x.shape[0], x.device
        sizes = plan.sizes_of(n)
        n_saved, n_work = sizes[1 if flags & INFERENCE else 0], sizes[2]
        out = torch.empty((n, self.weights.hidden), dtype=x.dtype, device=device)
        saved, work = scratch(n_saved, device), scratch(n_work, device)
        with on_device(device):
            code = guest.forward(plan.handle, n, x.data_ptr(), row_stride(x), index.data_ptr(), row_stride(index),
                                 score.data_ptr(), row_stride(score), *self.weights.pointers(used), saved.data_ptr(), n_saved,
                                 work.data_ptr(), n_work, flags | plan.flags, raw_stream(device), out.data_ptr())
        if code:
            raise KernelError(code)
        return out, saved

    def backward(self, x, index, score, saved, used, weights, needed, dout):
        x, index, score, dout = rows_dense(x), small_rows(index), small_rows(score), dout.contiguous()
        plan = self.plan_of(x, index, score, used, weights)
        n, device = x.shape[0], x.device
        sizes = plan.sizes_of(n)
        dx = torch.empty((n, x.shape[1]), dtype=x.dtype, device=device) if needed[0] else None
        dscore = torch.empty(score.shape, dtype=score.dtype, device=device) if needed[1] else None
        dweight = torch.float32 if weights[0].dtype is torch.float32 else x.dtype
        written, handed = self.weights.gradients(weights, needed[2:], dweight)
        work = scratch(sizes[3], device)
        with on_device(device):
            code = guest.backward(plan.handle, n, x.data_ptr(), row_stride(x), index.data_ptr(), row_stride(index),
                                  score.data_ptr(), row_stride(score), *self.weights.pointers(used), saved.data_ptr(), sizes[0],
                                  work.data_ptr(), sizes[3], plan.flags, raw_stream(device), dout.data_ptr(),
                                  dx.data_ptr() if dx is not None else 0, dscore.data_ptr() if dscore is not None else 0,
                                  *self.weights.pointers(written))
        if code:
            raise KernelError(code)
        return dx, dscore, handed

    def shadow(self, weights, dtype, lasting):
        """Master weights in the compute dtype: once a step, and again when a weight was written to since. What is no
        parameter (a PEFT sum of weight and delta) is another tensor at each call and never kept."""
        state = (dtype, guest.step(), [(w._version, w.data_ptr()) for w in weights])
        if self.kept is None or self.kept[0] != state:
            self.kept = None  # gone before the new ones come
            self.kept = (state if lasting else None, self.weights.cast(weights, dtype))
        return self.kept[1]

    def used_now(self, weights, dtype):
        return weights if weights[0].dtype is dtype else self.shadow(weights, dtype, False)


@contextlib.contextmanager
def other_device(device):
    with torch.cuda.device(device):
        yield


NO_GUARD = contextlib.nullcontext()


def on_device(device):
    if device.type != "cuda" or device.index == torch._C._cuda_getDevice():
        return NO_GUARD
    return other_device(device)


class Experts(torch.autograd.Function):
    """Saves only tensors whose shapes depend on T and K alone, and the weights themselves: a checkpoint's replay
    that routes otherwise saves as many tensors of the same shapes, and sharded weights are read when they are there."""

    @staticmethod
    def forward(ctx, call, used, x, index, score, *weights):
        out, saved = call.forward(x, index, score, used, weights, 0)
        ctx.call = call
        ctx.hit = call.unit.hit_later(index)
        ctx.save_for_backward(x, index, score, saved, *weights)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dout):
        x, index, score, saved, *weights = ctx.saved_tensors
        call, needed = ctx.call, (ctx.needs_input_grad[2],) + ctx.needs_input_grad[4:]
        dout = dout if dout.dtype is x.dtype else dout.to(x.dtype)
        try:
            dx, dscore, dweights = call.backward(x, index, score, saved, call.used_now(weights, x.dtype), weights, needed, dout)
        except KernelError as error:  # the training goes on, by the job's own code
            call.failed = "backward: %s" % error
            dx, dscore, dweights = own_backward(call.unit, x, index, score, call.weights.tensors(), needed, dout)
        if ctx.hit is not None:
            dweights = call.unit.only_hit(ctx.hit, dweights)
        return (None, None, dx, None, dscore) + tuple(dweights)


def own_backward(unit, x, index, score, weights, needed, dout):
    with torch.enable_grad():
        x, score = x.detach().requires_grad_(needed[0]), score.detach().requires_grad_(needed[1])
        out = unit.own_experts(x, index, score)
        wanted = [t for t, need in zip([x, score] + list(weights), needed) if need]
        found = iter(torch.autograd.grad(out, wanted, dout.to(out.dtype), allow_unused=True))
    grads = [next(found) if need else None for need in needed]
    return grads[0], grads[1], grads[2:]
