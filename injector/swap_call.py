"""Swapping, part 2: one call of the kernels, and its place in autograd.

A call comes some hundred times a step and the GPU waits for it, so that everything that stays the same from call to
call is in a Plan, and C reads and makes the tensors (tests/bridge/swap_bench.py): what is left is autograd's own.
"""


def autocast_now(kind):
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def autocast_of_old_torch(kind):  # before 2.4
    if kind == "cuda":
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
    return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None


if not hasattr(torch, "get_autocast_dtype"):
    autocast_now = autocast_of_old_torch
any_autocast = getattr(torch._C, "_is_any_autocast_enabled", lambda: True)
grad_enabled = torch.is_grad_enabled  # by a name of its own: torch has thousands
current_gpu, current_stream = (getattr(torch._C, "_cuda_" + name, None) for name in ("getDevice", "getCurrentRawStream"))
in_transform = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)


def show_tensors():
    """Shows the guest what tensors look like, so that its C may read and make them without asking Python."""
    if [int(n) for n in torch.__version__.split(".")[:2]] < [2, 4]:
        return  # its functions had other arguments once
    sample = torch.empty(4, 6, device="cpu")[1:, 2:]
    for t in (sample, torch.nn.Parameter(sample, requires_grad=False)):
        guest.tensor_check(t, id(type(t)), t._cdata, t.data_ptr(), tuple(t.shape), t.stride())


show_tensors()


class KernelError(RuntimeError):
    def __init__(self, code):
        RuntimeError.__init__(self, guest.strerror(code))


class Plan:
    """What of a call follows from shapes, types and strides: a C struct, with what a call reads and what it makes."""
    __slots__ = ("handle", "stored", "state", "gpu", "keep")

    def __init__(self, mine, unit, x, index, score, used, weights):
        operands, self.state = mine.seen(used)
        matrices, self.stored = mine.matrices(used, x.device), weights[0].dtype
        dweight = x.new_empty(0, dtype=torch.float32 if self.stored is torch.float32 else x.dtype)
        problem = (CUDA if x.is_cuda else CPU, mine.hidden, mine.inter, mine.n, index.shape[1], MK_DTYPE[x.dtype],
                   MK_DTYPE[index.dtype], MK_DTYPE[score.dtype], unit.act, unit.alpha, unit.limit)
        flags = CPU_FP32 if not x.is_cuda and x.dtype != torch.float64 and x.numel() > 1 << 16 else 0
        row_bytes = -(-x.numel() * index.shape[1] * x.element_size() // 256) * 256 if x.is_cuda else 0
        rows = (x.shape[0], row_stride(x), row_stride(index), row_stride(score), flags, row_bytes)
        strides, places, shapes, first_bytes = mine.gradient_layout(weights, dweight)
        lora = mine.lora(used)
        samples = x.new_empty(0), score.new_empty(0), x.new_empty(0, dtype=torch.uint8)
        self.handle = guest.plan(problem, rows, MK_DTYPE[dweight.dtype], matrices[:3], strides, mine.bias_strides(used), lora,
                                 mine.places(used), places, samples, tuple([(dweight, *shape) for shape in shapes]),
                                 0 < row_bytes <= first_bytes, x, index, score, operands)
        if isinstance(self.handle, int):
            raise KernelError(self.handle)
        self.gpu, self.keep = x.device.index if x.is_cuda else None, (matrices[3:], lora)

    def stream(self):
        """None where another device is the current one."""
        if self.gpu is None:
            return 0
        return current_stream(self.gpu) if current_gpu() == self.gpu else None


def readable(t, step):
    """Rows may be strided for the kernels, elements may not, and no two rows may be the same memory."""
    rows, columns = t.shape  # of a dimension of one torch's stride says nothing
    return not t.numel() or (columns == 1 or t.stride(1) == 1) and (rows < 2 or (t.stride(0) >= columns and not t.stride(0) % step))


def row_stride(t):
    return t.stride(0) if t.shape[0] > 1 else t.shape[1]


def rows_dense(x, index, score):
    return tuple(t if readable(t, step) else t.contiguous() for t, step in ((x, 8), (index, 1), (score, 1)))


def in_place(saved):
    """What forward saved, at a multiple of 256 again where the job's hooks on saved tensors put it elsewhere (pyswap.c)."""
    was, now = 0 if saved.is_cuda else int(saved[-1]), -saved.data_ptr() % 256
    if was == now and saved.is_contiguous():
        return saved
    moved, size = torch.empty(saved.shape, dtype=saved.dtype, device=saved.device), len(saved) - 256
    at = -moved.data_ptr() % 256
    moved[at:at + size] = saved[was:was + size]
    return moved


class KernelCall:
    """The experts of one layer through the kernels: (T, H), (T, K), (T, K) -> (T, H)."""

    def __init__(self, unit):
        self.unit, self.weights = unit, unit.weights
        self.plans, self.last, self.kept = {}, None, None
        self.failed = None  # why the layer goes back at the next boundary
        self.stopped = False  # until then forward runs the job's own code; not where backward failed: a replay must do
        # what its forward did

    def __call__(self, x, index, score):
        if self.stopped or x.dim() != 2 or in_transform():  # torch.func sees tensors without memory
            return self.unit.own_experts(x, index, score)
        try:
            return self.run(x, index, score)
        except (KernelError, TypeError, AttributeError, KeyError, torch.cuda.OutOfMemoryError) as error:
            self.failed = "%s: %s" % (type(error).__name__, error) if not isinstance(error, KernelError) else str(error)
            self.stopped = True
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
        dtype = self.weights.stored(weights)
        if any_autocast() or x.dtype is not dtype:
            dtype = self.compute_dtype(x, dtype)
        given = x if x.dtype is dtype else x.to(dtype)
        used = self.used(weights, dtype)
        plan, operands = self.plan_of(given, index, score, used, weights)
        if plan is None:
            given, index, score = rows_dense(given, index, score)
            plan, operands = self.plan_of(given, index, score, used, weights)
        if grad_enabled() and (x.requires_grad or score.requires_grad or any([w.requires_grad for w in weights])):
            out = apply_experts((self, plan, operands, index, operands is weights), given, score, *weights)
        else:
            out, _ = self.forward(plan, given, index, score, operands, INFERENCE)
        return out if given is x else out.to(x.dtype)

    def plan_of(self, x, index, score, used, weights):
        """(plan, the tensors that it reads weights from). No plan where rows have to be made dense first."""
        plan, (operands, state) = self.last, self.weights.seen(used)
        if (plan is not None and plan.stored is weights[0].dtype and plan.state == state
                and guest.fits(plan.handle, x, index, score, operands)):
            return plan, operands
        key = (x.shape, x.stride(), x.dtype, index.shape, index.stride(), index.dtype, score.shape, score.stride(), score.dtype,
               x.device, weights[0].dtype, state, tuple([t.stride() for t in operands]))
        if key not in self.plans:
            if len(self.plans) > 64:  # lengths vary, or weights move
                self.plans.clear()
            self.plans[key] = self.new_plan(x, index, score, used, weights)
        self.last = self.plans[key]
        return self.last, operands

    def new_plan(self, x, index, score, used, weights):
        if index.shape != score.shape or len(index) != len(x):
            raise KernelError(-2)  # MK_ESHAPE
        if not (readable(x, 8) and readable(index, 1) and readable(score, 1)):
            return None
        return Plan(self.weights, self.unit, x, index, score, used, weights)

    def forward(self, plan, x, index, score, operands, flags):
        stream = plan.stream()
        if stream is None:
            with torch.cuda.device(plan.gpu):
                return self.forward(plan, x, index, score, operands, flags)
        found = guest.forward(plan.handle, flags, stream, x, index, score, operands)
        if type(found) is int:
            raise KernelError(found)
        return found

    def differentiate(self, tensors, needed, dout):
        """From what Experts saved."""
        (x, index, score, saved), weights = tensors[:4], tensors[4:]
        dout = dout if dout.dtype is x.dtype else dout.to(x.dtype)
        return self.backward(x, index, score, saved, self.used(weights, x.dtype), weights, needed, dout)

    def backward(self, x, index, score, saved, used, weights, needed, dout):
        plan, operands = self.plan_of(x, index, score, used, weights)
        if plan is None:  # what unpacked the saved tensors left other strides
            x, index, score = rows_dense(x, index, score)
            plan, operands = self.plan_of(x, index, score, used, weights)
        stream = plan.stream()
        if stream is None:
            with torch.cuda.device(plan.gpu):
                return self.backward(x, index, score, saved, used, weights, needed, dout)
        found = guest.backward(plan.handle, self.weights.wanted(needed), stream, x, index, score, operands, in_place(saved),
                               dout.contiguous())
        if type(found) is int:
            raise KernelError(found)
        return self.weights.handed(found, needed)

    def shadow(self, weights, dtype, lasting):
        """Master weights in the compute dtype: once a call of the model, as autocast does, since a write through .data
        shows nowhere (a step towards the gradient and back, averaged weights); and again when a weight was written to since
        all the same. What is no parameter (a PEFT sum of weight and delta) is another tensor at each call and never kept."""
        if not lasting:  # nor need it have a version, as in inference mode
            return self.weights.cast(weights, dtype)
        state = (dtype, guest.step(), session.calls, [(w._version, w.data_ptr()) for w in weights])
        if self.kept is None or self.kept[0] != state:
            self.kept = None  # gone before the new ones come
            self.kept = (state, self.weights.cast(weights, dtype))
        return self.kept[1]

    def used(self, weights, dtype):
        """The weights as the kernels read them."""
        if weights[0].dtype is dtype:
            return weights
        return self.shadow(weights, dtype, all(type(w) is torch.nn.Parameter for w in weights))


# ---------------------------------------------------------------------------------------------------------
# Autograd

def applied(function):
    """function.apply without its Python part (2 us), which serves torch.func alone, and there the job's own experts run.
    Nor is the node's needed, which looks for the backward, by a class that has one."""
    function._backward_cls.apply = function.backward
    return super(torch.autograd.Function, function).apply


def once(gradients):
    """A backward whose results cannot be differentiated again, said when that is tried; torch's own once_differentiable
    costs 2 us where nobody tries, and lets a constant incoming gradient pass."""
    def backward(ctx, dout):
        if not grad_enabled():
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
    def forward(ctx, given, x, score, *weights):
        call, plan, operands, index, saves_all = given  # as one: torch looks long at an argument that is no tensor
        out, saved = call.forward(plan, x, index, score, operands, 0)
        hit = call.unit.hit_later(index) if call.unit.skips else None
        ctx.given = call, hit, plan if saves_all and hit is None else None
        ctx.save_for_backward(x, index, score, saved, *weights)
        return out

    @staticmethod
    @once
    def backward(ctx, dout):
        (call, hit, plan), tensors, needed = ctx.given, ctx.saved_tensors, ctx.needs_input_grad
        try:
            if plan is not None:  # what is saved is all that the kernels read
                stream = plan.stream()
                found = guest.gradients(plan.handle, stream, tensors, needed, dout) if stream is not None else None
                if type(found) is tuple:
                    return found
            found = call.differentiate(tensors, needed[1:], dout)
        except (KernelError, torch.cuda.OutOfMemoryError) as error:
            call.failed, found = "backward: %s" % error, None
        if found is None:  # by the job's own code, once the error no longer keeps the buffers of the failed call
            x, index, score = tensors[:3]
            found = own_backward(call.unit, x, index, score, call.weights.tensors(), needed[1:], dout)
        if hit is not None:
            found = (*found[:2], *call.unit.only_hit(hit, found[2:]))
        return (None, *found)


apply_experts = applied(Experts)


@contextlib.contextmanager
def unhooked(tensors):
    """The job's hooks on its weights see each gradient that backward gives them, and nothing that is worked out in here."""
    kept = [(t, t._backward_hooks) for t in tensors if t._backward_hooks]
    try:
        for t, _ in kept:
            t._backward_hooks = None
        yield
    finally:
        for t, hooks in kept:
            t._backward_hooks = hooks


def own_backward(unit, x, index, score, weights, needed, dout):
    cast = x.dtype if x.dtype is not unit.weights.dtype() else None  # backward itself runs outside of autocast
    with torch.enable_grad(), autocast(x.device.type, cast), unhooked(weights):
        x, score = x.detach().requires_grad_(needed[0]), score.detach().requires_grad_(needed[1])
        out = unit.own_experts(x, index, score)
        wanted = [t for t, need in zip([x, score] + list(weights), needed) if need]
        found = iter(torch.autograd.grad(out, wanted, dout.to(out.dtype), allow_unused=True))
    grads = [next(found) if need else None for need in needed]
    return grads
