"""Swapping, part 2: one call of the kernels, and its place in autograd.

A call comes some hundred times a step and the GPU waits for it, so that everything that stays the same from call to
call is in a Plan: 20 us of host time are the aim, kernels and torch's own allocations apart (tests/bridge/swap_bench.py).
"""


def autocast_now(kind):
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def autocast_of_old_torch(kind):  # before 2.4
    if kind == "cuda":
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
    return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None


if not hasattr(torch, "get_autocast_dtype"):
    autocast_now = autocast_of_old_torch


class KernelError(RuntimeError):
    def __init__(self, code):
        RuntimeError.__init__(self, guest.strerror(code))


class Plan:
    """What of a call follows from shapes, types and strides: a C struct, and the sizes of buffers."""
    __slots__ = ("handle", "saved_bytes", "bare_bytes", "forward_bytes", "backward_bytes", "dx_row_bytes", "dweight", "up_offsets",
                 "dup_offsets", "keep")

    def __init__(self, unit, x, index, score, used, weights):
        mine = unit.weights
        matrices = mine.matrices(used, x.device)
        self.dweight = torch.float32 if weights[0].dtype is torch.float32 else x.dtype
        problem = (CUDA if x.is_cuda else CPU, mine.hidden, mine.inter, mine.n, index.shape[1], MK_DTYPE[x.dtype],
                   MK_DTYPE[index.dtype], MK_DTYPE[score.dtype], unit.act, unit.alpha, unit.limit)
        flags = CPU_FP32 if not x.is_cuda and x.dtype != torch.float64 and x.numel() > 1 << 16 else 0
        rows = (x.shape[0], row_stride(x), row_stride(index), row_stride(score), flags)
        gradients, self.dup_offsets = mine.gradient_layout(weights, self.dweight)
        lora = mine.lora(used)
        self.handle = guest.plan(problem, rows, MK_DTYPE[self.dweight], matrices[:3], gradients, mine.bias_strides(used), lora)
        self.up_offsets = mine.up_offsets(used)
        self.keep = matrices[3:], lora
        sizes = guest.sizes(self.handle)
        if isinstance(sizes, int):
            raise KernelError(sizes)
        self.saved_bytes, self.bare_bytes, self.forward_bytes, self.backward_bytes = sizes
        self.dx_row_bytes = -(-x.numel() * index.shape[1] * x.element_size() // 256) * 256 if x.is_cuda else 0


def scratch(n, device):
    return torch.empty(n + 256, dtype=torch.uint8, device=device)


def spare(gradient, n):
    """Address of a gradient's memory as scratch of n bytes, until it is written; 0 where it is none."""
    return gradient.data_ptr() if n and gradient is not None and gradient.numel() * gradient.element_size() >= n else 0


def readable(t, step):
    """Rows may be strided for the kernels, elements may not, and no two rows may be the same memory."""
    rows, columns = t.shape  # of a dimension of one torch's stride says nothing
    return not t.numel() or (columns == 1 or t.stride(1) == 1) and (rows < 2 or (t.stride(0) >= columns and not t.stride(0) % step))


def row_stride(t):
    return t.stride(0) if t.shape[0] > 1 else t.shape[1]


def rows_dense(x, index, score):
    return tuple(t if readable(t, step) else t.contiguous() for t, step in ((x, 8), (index, 1), (score, 1)))


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
        dtype = self.compute_dtype(x, self.weights.stored(weights))
        given = x if x.dtype is dtype else x.to(dtype)
        used = self.used(weights, dtype)
        plan = self.plan_of(given, index, score, used, weights)
        if plan is None:
            given, index, score = rows_dense(given, index, score)
            plan = self.plan_of(given, index, score, used, weights)
        if torch.is_grad_enabled() and (x.requires_grad or score.requires_grad or any([w.requires_grad for w in weights])):
            out = apply_experts(self, plan, used, given, index, score, *weights)
        else:
            out, _ = self.forward(plan, given, index, score, used, INFERENCE)
        return out if out.dtype is x.dtype else out.to(x.dtype)

    def plan_of(self, x, index, score, used, weights):
        """None where rows have to be made dense first."""
        key = (x.shape, x.stride(), x.dtype, index.shape, index.stride(), index.dtype, score.shape, score.stride(), score.dtype,
               x.device, weights[0].dtype, self.weights.key(used))
        try:
            return self.plans[key]
        except KeyError:
            if len(self.plans) > 64:  # lengths vary, or weights move
                self.plans.clear()
            self.plans[key] = plan = self.new_plan(x, index, score, used, weights)
            return plan

    def new_plan(self, x, index, score, used, weights):
        if index.shape != score.shape or len(index) != len(x):
            raise KernelError(-2)  # MK_ESHAPE
        if not (readable(x, 8) and readable(index, 1) and readable(score, 1)):
            return None
        return Plan(self.unit, x, index, score, used, weights)

    def forward(self, plan, x, index, score, used, flags):
        device = x.device
        out = x.new_empty(*x.shape)
        saved_bytes = plan.bare_bytes if flags else plan.saved_bytes
        saved, work = scratch(saved_bytes, device), scratch(plan.forward_bytes, device)
        with on_device(device):
            code = guest.forward(plan.handle, flags, x.data_ptr(), index.data_ptr(), score.data_ptr(), saved.data_ptr(),
                                 saved_bytes, work.data_ptr(), plan.forward_bytes, stream_of(device), out.data_ptr(),
                                 *self.weights.pointers(used, plan.up_offsets))
        if code:
            raise KernelError(code)
        return out, saved

    def backward(self, x, index, score, saved, used, weights, needed, dout):
        plan = self.plan_of(x, index, score, used, weights)
        if plan is None:  # what unpacked the saved tensors left other strides
            x, index, score = rows_dense(x, index, score)
            plan = self.plan_of(x, index, score, used, weights)
        dout, device = dout.contiguous(), x.device
        dx = x.new_empty(*x.shape) if needed[0] else None
        dscore = score.new_empty(*score.shape) if needed[1] else None
        written, handed = self.weights.gradients(weights, needed[2:], plan.dweight)
        dx_row = spare(written[0], plan.dx_row_bytes)
        work_bytes = plan.backward_bytes - plan.dx_row_bytes if dx_row else plan.backward_bytes
        work = scratch(work_bytes, device)
        with on_device(device):
            code = guest.backward(plan.handle, x.data_ptr(), index.data_ptr(), score.data_ptr(), saved.data_ptr(),
                                  plan.saved_bytes, work.data_ptr(), work_bytes, stream_of(device), dout.data_ptr(),
                                  dx.data_ptr() if dx is not None else 0, dscore.data_ptr() if dscore is not None else 0, dx_row,
                                  *self.weights.pointers(used, plan.up_offsets),
                                  *self.weights.pointers(written, plan.dup_offsets))
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

    def used(self, weights, dtype):
        """The weights as the kernels read them."""
        if weights[0].dtype is dtype:
            return weights
        return self.shadow(weights, dtype, all(type(w) is torch.nn.Parameter for w in weights))


# ---------------------------------------------------------------------------------------------------------
# Devices

@contextlib.contextmanager
def other_device(device):
    with torch.cuda.device(device):
        yield


NO_GUARD = contextlib.nullcontext()


def on_device(device):
    if device.type != "cuda" or device.index == torch._C._cuda_getDevice():
        return NO_GUARD
    return other_device(device)


def stream_of(device):
    return torch._C._cuda_getCurrentRawStream(device.index) if device.type == "cuda" else 0


# ---------------------------------------------------------------------------------------------------------
# Autograd

def applied(function):
    """function.apply without its Python part (2 us), which serves functorch alone."""
    transforms = getattr(torch._C, "_are_functorch_transforms_active", None)
    direct = super(torch.autograd.Function, function).apply
    return (lambda *args: function.apply(*args) if transforms() else direct(*args)) if transforms else function.apply


def once(gradients):
    """A backward whose results cannot be differentiated again, said when that is tried; torch's own once_differentiable
    costs 2 us where nobody tries, and lets a constant incoming gradient pass."""
    def backward(ctx, dout):
        if not torch.is_grad_enabled():
            return gradients(ctx, dout)
        with torch.no_grad():
            found = gradients(ctx, dout)
        refuse = torch._C._functions.DelayedError(
            b"moeprof's experts have no second derivative; `moeprof swap PID off` puts the job's own back", len(found))
        return refuse(*[g if g is None else g.detach().requires_grad_() for g in found])
    return backward


class Experts(torch.autograd.Function):
    """Saves only tensors whose shapes depend on T and K alone, and the weights themselves: a checkpoint's replay
    that routes otherwise saves as many tensors of the same shapes, and sharded weights are read when they are there."""

    @staticmethod
    def forward(ctx, call, plan, used, x, index, score, *weights):
        out, saved = call.forward(plan, x, index, score, used, 0)
        ctx.call = call
        ctx.hit = call.unit.hit_later(index)
        ctx.save_for_backward(x, index, score, saved, *weights)
        return out

    @staticmethod
    @once
    def backward(ctx, dout):
        x, index, score, saved, *weights = ctx.saved_tensors
        call, needed = ctx.call, ctx.needs_input_grad
        needed = (needed[3],) + needed[5:]
        dout = dout if dout.dtype is x.dtype else dout.to(x.dtype)
        try:
            found = call.backward(x, index, score, saved, call.used(weights, x.dtype), weights, needed, dout)
        except (KernelError, torch.cuda.OutOfMemoryError) as error:
            call.failed, found = "backward: %s" % error, None
        if found is None:  # by the job's own code, once the error no longer keeps the buffers of the failed call
            found = own_backward(call.unit, x, index, score, call.weights.tensors(), needed, dout)
        dx, dscore, dweights = found
        if ctx.hit is not None:
            dweights = call.unit.only_hit(ctx.hit, dweights)
        return (None, None, None, dx, None, dscore, *dweights)


apply_experts = applied(Experts)


def own_backward(unit, x, index, score, weights, needed, dout):
    with torch.enable_grad():
        x, score = x.detach().requires_grad_(needed[0]), score.detach().requires_grad_(needed[1])
        out = unit.own_experts(x, index, score)
        wanted = [t for t, need in zip([x, score] + list(weights), needed) if need]
        found = iter(torch.autograd.grad(out, wanted, dout.to(out.dtype), allow_unused=True))
    grads = [next(found) if need else None for need in needed]
    return grads[0], grads[1], grads[2:]
