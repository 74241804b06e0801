"""Swapping, part 4: adapters (LoRA) of PEFT beside frozen experts.

On stacked experts (target_parameters) PEFT makes weight + delta anew at each call, through a parametrization that is
registered and removed around it, and autograd keeps the sum of every layer until its backward. Here the outermost
wrapper is the site and the kernels get the adapters' matrices where they lie: nothing of the size of the weights is made.
On one Linear an expert (4.5x) the block is the site as without adapters.
One active, unmerged adapter a parameter and frozen weights; every other state runs through PEFT's own code, either for
a call (adapters switched off, merged) or for good (several adapters: the plain unit, within PEFT's parametrization).
What the kernels' low-rank path does not take (rank, types) runs as a sum of weight and delta, made for one call, dropped
after it, and made again for its backward.
"""
NO_MATRIX = (0, 0, 0)


class Beside:
    """Adapters beside frozen weights. What the kernels read is a pair: the weights, and the adapters' tensors."""

    def seen(self, used):
        (operands, state), (low, low_state) = super().seen(used[0]), self.low_seen(used[1])
        return (*operands, *low), (state, low_state)

    def matrices(self, used, device):
        return super().matrices(used[0], device)

    def bias_strides(self, used):
        return super().bias_strides(used[0])

    def places(self, used):
        low = used[1]
        return super().places(used[0]) + self.low_places(low, len(super().seen(used[0])[0]), low[0].element_size())

    def gradient_layout(self, tensors, sample):
        places, shapes = self.low_gradients(tensors, sample.element_size())
        return (NO_MATRIX,) * 3, NOWHERE * 6 + places, shapes, 0  # the weights are frozen

    def stored(self, tensors):
        return self.base()[0].dtype

    def dtype(self):
        return self.base()[0].dtype


class Adapter:
    """One ParamWrapper: which of the stacked parameters it adapts, and its pair of matrices."""

    def __init__(self, wrapper, position):
        self.wrapper, self.position = weakref.ref(wrapper), position
        self.swapped = wrapper._did_swap_in_out_features  # weights are (E, out, in), not (E, in, out)
        self.n = wrapper.num_experts

    def ready(self):
        wrapper = self.wrapper()
        active = wrapper.active_adapters
        return (not wrapper.disable_adapters and not wrapper.merged and len(active) == 1
                and active[0] in wrapper._modules["lora_A"]._modules)

    def pair(self):
        wrapper = self.wrapper()
        name, modules = wrapper.active_adapters[0], wrapper._modules
        try:  # as Stacked.tensors
            return tuple([modules[which]._modules[name]._parameters["weight"] for which in ("lora_A", "lora_B")])
        except KeyError:
            return wrapper.lora_A[name].weight, wrapper.lora_B[name].weight

    def scale(self):
        wrapper = self.wrapper()
        return wrapper.scaling[wrapper.active_adapters[0]]

    def factors(self, a, b):
        """(left, right) with delta = left @ right, for each expert. A is expert-major, B rank-major."""
        a, b = a.reshape(self.n, -1, a.shape[-1]), b.reshape(b.shape[0], -1, self.n).permute(2, 0, 1)
        return (b, a) if self.swapped else (a.transpose(1, 2), b.transpose(1, 2))


class Adapted(Beside, Stacked):
    """Frozen stacked weights and the adapters on them; what the job trains are the adapters."""

    def __init__(self, experts, adapters):
        Stacked.__init__(self, experts)
        self.adapters = adapters
        self.plain = Stacked(experts)  # what a sum of weight and delta is
        self.sharded = self.sharded or any(hasattr(t, "_local_tensor") for t in self.tensors())

    def describe(self):
        return "%s, an adapter on %s" % (Stacked.describe(self), " and ".join(self.names[a.position] for a in self.adapters))

    def ready(self):
        return self.same_as_now() and all([adapter.ready() for adapter in self.adapters])

    def same_as_now(self):
        """Weights that the job trains by now want gradients too."""
        return not any([p.requires_grad for p in self.base()])

    def base(self):
        return Stacked.tensors(self)

    def tensors(self):
        return [t for adapter in self.adapters for t in adapter.pair()]

    # --- as the kernels read them ---------------------------------------------------------------------------

    def low_seen(self, tensors):
        return tensors, tuple([adapter.scale() for adapter in self.adapters])

    def low_matrices(self, i, a, b):
        """(A, B) of adapter i: strides of the map into the rank, and out of it."""
        (a0, a1), (b0, b1) = a.stride(), b.stride()
        first, second = (len(a) // self.n * a0, a0, a1), (b1, b0, self.n * b1)
        if self.adapters[i].swapped != self.transposed:
            return first, second
        return second[:1] + second[:0:-1], first[:1] + first[:0:-1]  # delta is the other way round

    def halves(self, matrix):
        """The rows of gate and of up in a matrix that holds both."""
        expert, row, column = matrix
        wide = (expert, row if self.concatenated or not self.gated else 2 * row, column)
        return (wide if self.gated else NO_MATRIX), wide

    def lora(self, used):
        ranks, scales, matrices = [0, 0], [0.0, 0.0], [NO_MATRIX] * 6
        for i, adapter in enumerate(self.adapters):
            a, b = used[1][2 * i:2 * i + 2]
            if a.dtype is not b.dtype or not (a.is_contiguous() and b.is_contiguous()):
                raise KernelError(-5)  # MK_ELAYOUT
            low, high = self.low_matrices(i, a, b)
            at = adapter.position
            ranks[at], scales[at] = len(a) // self.n, adapter.scale()
            if at:
                matrices[4:] = low, high
            else:
                matrices[1], (matrices[2], matrices[3]) = low, self.halves(high)
        return (MK_DTYPE[used[1][0].dtype], *ranks, 0, *scales, tuple(matrices), tuple(matrices))

    def low_places(self, tensors, first, element_bytes):
        """Of A and B, which begin at operand `first`: gate and up share an A."""
        found = [NOWHERE] * 6
        for i, adapter in enumerate(self.adapters):
            straight = adapter.swapped != self.transposed
            low, high = (2 * i, 2 * i + 1) if straight else (2 * i + 1, 2 * i)
            if adapter.position:
                found[4:] = (first + low, 0), (first + high, 0)
            else:
                row = tensors[high].stride(0 if straight else 1) * element_bytes if self.gated else 0
                gate = (first + high, 0) if self.gated else NOWHERE
                found[1:4] = (first + low, 0), gate, (first + high, self.inter * row if self.concatenated else row)
        return sum(found, ())

    def low_gradients(self, tensors, element_bytes):
        return self.low_places(tensors, 0, element_bytes), [t.shape for t in tensors]

    # --- as a sum of weight and delta ---------------------------------------------------------------------

    def merged(self, tensors, dtype):
        """The weights that the job computes with, as functions of the adapters' tensors."""
        found = [p.detach() if p.dtype is dtype else p.detach().to(dtype) for p in self.base()]
        for i, adapter in enumerate(self.adapters):
            left, right = adapter.factors(*tensors[2 * i:2 * i + 2])
            at = adapter.position
            found[at] = torch.baddbmm(found[at], left.to(dtype), right.to(dtype), alpha=adapter.scale())
        return tuple(found)

    def expert(self, tensors, e):
        one = [p[e:e + 1].double() for p in self.base()]
        for i, adapter in enumerate(self.adapters):
            left, right = adapter.factors(*tensors[2 * i:2 * i + 2])
            one[adapter.position] = one[adapter.position] + adapter.scale() * (left[e].double() @ right[e].double())
        return Stacked.expert(self, one, 0)

    def errors(self, parts, tensors, e, reference, own_grads, new_grads):
        """Parity of the adapters' gradients, from the reference's gradient of the weights."""
        for i, adapter in enumerate(self.adapters):
            here = slice(2 * i, 2 * i + 2)
            dweight = self._whole(reference, adapter.position)
            left, right = (t[e].double() for t in adapter.factors(*tensors[here]))
            wanted = adapter.scale() * (dweight @ right.t()), adapter.scale() * (left.t() @ dweight)
            mine = [[t[e] for t in adapter.factors(*grads[here])] for grads in (own_grads, new_grads)]
            names = ("B", "A") if adapter.swapped else ("A", "B")
            for k, name in enumerate(names):
                if tensors[here][name == "B"].requires_grad:
                    title = "dlora_%s of %s" % (name, self.names[adapter.position])
                    parts.setdefault(title, Sums(dweight.device)).add(wanted[k], mine[0][k], mine[1][k])

    def _whole(self, reference, position):
        """dgate and dup, or ddown, put together as the parameter lies."""
        dgate, dup, ddown = reference[:3]
        if position == 1:
            whole = ddown
        elif not self.gated:
            whole = dup
        elif self.concatenated:
            whole = torch.cat([dgate, dup])
        else:
            whole = torch.stack([dgate, dup], 1).flatten(0, 1)
        return whole.t() if self.transposed else whole


class LoraCall(KernelCall):
    """The experts of one layer with adapters through the kernels."""

    def __init__(self, unit):
        KernelCall.__init__(self, unit)
        self.sum = None  # why there is a sum of weight and delta, and its call

    def __call__(self, x, index, score):
        if not self.weights.ready():
            return self.unit.own_experts(x, index, score)
        return KernelCall.__call__(self, x, index, score)

    def used(self, tensors, dtype):
        return KernelCall.used(self, self.weights.base(), dtype), tensors

    def run(self, x, index, score):
        if self.sum is None:
            try:
                return KernelCall.run(self, x, index, score)
            except KernelError as error:
                if not hasattr(self.weights, "merged"):
                    raise
                self.sum = SumCall(self)
                guest.log(0, "swap: layer %d: a sum of weight and adapter is made for each call: %s" % (self.unit.layer, error))
        return self.sum.run(x, index, score)


class SumCall(KernelCall):
    """The same with weight + delta, made for a call."""

    def __init__(self, owner):
        KernelCall.__init__(self, owner.unit)
        self.weights, self.adapted, self.owner = self.unit.weights.plain, self.unit.weights, owner

    def run(self, x, index, score):
        dtype = self.compute_dtype(x, self.adapted.dtype())
        given = x if x.dtype is dtype else x.to(dtype)
        tensors = self.adapted.tensors()
        if torch.is_grad_enabled() and (x.requires_grad or score.requires_grad or any([t.requires_grad for t in tensors])):
            out = apply_lora(self, given, index, score, *tensors)
        else:
            out, _ = self.sum_forward(given, index, score, tensors, INFERENCE)
        return out if out.dtype is x.dtype else out.to(x.dtype)

    @torch.no_grad()
    def sum_forward(self, x, index, score, tensors, flags):
        used = self.adapted.merged(tensors, x.dtype)
        plan, operands = self.plan_of(x, index, score, used, used)
        if plan is None:
            x, index, score = rows_dense(x, index, score)
            plan, operands = self.plan_of(x, index, score, used, used)
        return self.forward(plan, x, index, score, operands, flags)


class LoraExperts(torch.autograd.Function):
    @staticmethod
    def forward(ctx, call, x, index, score, *tensors):
        out, saved = call.sum_forward(x, index, score, tensors, 0)
        ctx.call = call
        ctx.save_for_backward(x, index, score, saved, *tensors)
        return out

    @staticmethod
    @once
    def backward(ctx, dout):
        x, index, score, saved, *tensors = ctx.saved_tensors
        call, needed = ctx.call, (ctx.needs_input_grad[1],) + ctx.needs_input_grad[3:]
        dout = dout if dout.dtype is x.dtype else dout.to(x.dtype)
        try:
            found = lora_backward(call, x, index, score, saved, tensors, needed, dout)
        except (KernelError, torch.cuda.OutOfMemoryError) as error:
            call.owner.failed, found = "backward: %s" % error, None
        if found is None:  # by PEFT's code, once the error no longer keeps the buffers of the failed call
            found = own_backward(call.unit, x, index, score, call.adapted.tensors(), needed, dout)
        return (None, found[0], None, *found[1:])


apply_lora = applied(LoraExperts)


def lora_backward(call, x, index, score, saved, tensors, needed, dout):
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_(need) for t, need in zip(tensors, needed[2:])]
        weights = call.adapted.merged(leaves, x.dtype)
    used, wanted = tuple([w.detach() for w in weights]), [w.requires_grad for w in weights]
    dx, dscore, *dweights = call.backward(x, index, score, saved, used, used, tuple(needed[:2]) + tuple(wanted), dout)
    asked = [leaf for leaf in leaves if leaf.requires_grad]
    if not asked:
        return [dx, dscore] + [None] * len(leaves)
    ends = [(w, d) for w, d in zip(weights, dweights) if w.requires_grad]
    found = iter(torch.autograd.grad([w for w, _ in ends], asked, [d for _, d in ends]))
    return [dx, dscore] + [next(found) if leaf.requires_grad else None for leaf in leaves]


class LoraUnit(Unit):
    """A layer whose experts are within PEFT's wrappers: the outermost is the site."""

    def core(self):
        return self.weights.module()

    def inside(self, function):
        return function()

    def named(self, function):
        """A registered implementation, within PEFT's own parametrization."""
        core = self.weights.module

        def call(x, index, score):
            experts = core()
            experts.__dict__["forward"] = lambda *args: function(experts, *args)
            try:
                return self.own_experts(x, index, score)
            finally:
                del experts.__dict__["forward"]
        return call


def adapters_of(outer_module, experts):
    """The adapters between the outermost wrapper and the experts, or None when PEFT's own way is to be taken."""
    found, module = [], outer_module
    names = Stacked.names[:2] if bool(getattr(experts, "has_gate", True)) else ("up_proj", "down_proj")
    while module is not experts:
        name = getattr(module, "parameter_name", None)
        if name not in names or not hasattr(module, "_did_swap_in_out_features") or module.num_experts < 2:
            return None
        if own(experts)[name].requires_grad:
            return None
        found.append(Adapter(module, names.index(name)))
        module = module.base_layer
    positions = [adapter.position for adapter in found]
    inside = [experts] + [adapter.wrapper() for adapter in found[1:]]
    plain = ("forward" not in experts.__dict__ and all("forward" not in a.wrapper().__dict__ for a in found)
             and not any(map(is_hooked, inside)))  # hooks on what a call of the outermost alone would leave out
    if not found or not plain or len(set(positions)) < len(positions) or not all(a.ready() for a in found):
        return None
    return found
