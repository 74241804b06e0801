"""Swapping, part 5: adapters of PEFT on one Linear an expert (gate_proj, up_proj, down_proj of 4.5x).

Every expert has an adapter of the same rank and scale on the same of its three matrices, or the layer is refused by
name. Whether adapters are switched off or merged is asked of the first expert at each call and of all between steps.
"""


def adapter_of(linear):
    """(A, B, scale) of one Linear's adapter, or Refused."""
    if (type(linear).__module__ or "").split(".")[0] != "peft" or not hasattr(linear, "lora_A") or type(linear).__name__ != "Linear":
        raise Refused("an expert's matrix is a %s, not a Linear with a plain adapter" % type(linear).__name__)
    active = active_on(linear)
    if len(active) != 1:
        raise Refused("%d adapters are active on one Linear (%s); the kernels take one" % (len(active), ", ".join(active) or "none"))
    if linear.merged:
        raise Refused("its adapter '%s' is merged" % active[0])
    name = active[0]
    p = getattr(linear.lora_dropout[name], "p", 0.0)
    if p:
        raise Refused("its adapter '%s' has a dropout of %g, which the kernels do not have; set lora_dropout=0" % (name, p))
    if getattr(linear, "use_dora", {}).get(name) or getattr(linear, "lora_variant", {}).get(name) is not None:
        raise Refused("its adapter '%s' is not a plain LoRA (DoRA or another variant)" % name)
    if linear.lora_B[name].bias is not None or linear.lora_A[name].bias is not None or getattr(linear, "fan_in_fan_out", False):
        raise Refused("its adapter '%s' has a bias or transposed weights" % name)
    return linear.lora_A[name].weight, linear.lora_B[name].weight, float(linear.scaling[name])


def active_on(linear):
    return [name for name in linear.active_adapters if name in linear.lora_A]


class AdaptedList(Beside, Listed):
    """Frozen Linears and their adapters: for gate, up and down (A of every expert, B of every expert) or nothing."""

    def __init__(self, linears):
        self.wrappers = [[weakref.ref(linear) for linear in group] for group in linears]
        Listed.__init__(self, [[getattr(linear, "base_layer", linear) for linear in group] for group in linears])
        if any(p.requires_grad for p in self.params):
            raise Refused("its weights are trained beside the adapters")
        self.kinds, self.low = [], []  # kinds: 0 gate, 1 up, 2 down
        self.active = {}  # kind: the name of its adapter, as a list
        self.ranks, self.scales = [0, 0], [0.0, 0.0]  # of gate and up, of down
        for kind, group in enumerate(linears):
            self._add(kind, group)
        self.apart = {0, 1} <= set(self.kinds)
        self.low_where = Whereabouts(self.n, 2 * len(self.kinds))

    def _add(self, kind, group):
        with_adapter = [hasattr(linear, "lora_A") for linear in group]
        if not any(with_adapter):
            return
        if not all(with_adapter):
            raise Refused("some of its experts have an adapter on %s and some have none" % ("gate", "up", "down")[kind])
        found = [adapter_of(linear) for linear in group]
        rank, scale = found[0][0].shape[0], found[0][2]
        place = kind // 2
        if any(a.shape[0] != rank or s != scale for a, _, s in found) or self.ranks[place] not in (0, rank) or (
                self.ranks[place] and self.scales[place] != scale):
            raise Refused("its experts' adapters differ in rank or scale")
        if any(not t.is_contiguous() or t.dtype is not found[0][0].dtype for a, b, _ in found for t in (a, b)):
            raise Refused("its adapters' matrices differ in type, or are not contiguous")
        self.ranks[place], self.scales[place] = rank, scale
        self.kinds.append(kind)
        self.active[kind] = active_on(group[0])
        self.low += [a for a, _, _ in found] + [b for _, b, _ in found]

    def describe(self):
        return "one module an expert, adapters on %s" % ", ".join(("gate", "up", "down")[kind] for kind in self.kinds)

    def base(self):
        return self.params

    def tensors(self):
        return self.low

    def ready(self):
        for kind in self.kinds:
            first = self.wrappers[kind][0]()
            if first is None or first.disable_adapters or first.merged or active_on(first) != self.active[kind]:
                return False
            if first.scaling[self.active[kind][0]] != self.scales[kind // 2] or self.params[kind * self.n].requires_grad:
                return False
        return True

    def same_as_now(self):
        if not self.in_place() or any([p.requires_grad for p in self.params]):
            return False
        if not self.ready():  # switched off, merged or another one for a while is no other model
            return True
        try:
            now = [adapter_of(ref()) for kind in self.kinds for ref in self.wrappers[kind]]
        except Refused:
            return False
        mine = [t for part in self.low_where.parts(self.low)[::2] for t in part]
        return Listed.same_as_now(self) and all(a is t for (a, _, _), t in zip(now, mine))

    # --- as the kernels read them ---------------------------------------------------------------------------

    def low_seen(self, tensors):
        return (), self.low_where.look(tensors)

    def lora(self, used):
        parts = self.low_where.parts(used[1])
        device, matrices, dense, alive = parts[0][0].device, [NO_MATRIX] * 6, [NO_MATRIX] * 6, []
        for i, (group, part) in enumerate(zip(self.low_where.groups, parts)):
            at = self.place(i)
            matrices[at], offsets = group.matrix(part[0], device)
            dense[at] = (part[0].numel(), part[0].stride(0), 1)
            alive.append(offsets)
        return (MK_DTYPE[parts[0][0].dtype], *self.ranks, int(self.apart), *self.scales, tuple(matrices), tuple(dense), alive)

    def place(self, i):
        """Where group i (A or B of a kind) stands among gate_a, up_a, gate_b, up_b, down_a, down_b. An A that gate and
        up do not both have is up_a, which serves what has a B."""
        kind, b = self.kinds[i // 2], i % 2
        if kind == 2:
            return 4 + b
        return kind + 2 if b else kind if self.apart else 1

    def low_places(self, tensors, first, element_bytes):
        return self._placed([(-1, group.base) for group in self.low_where.groups])

    def low_gradients(self, tensors, element_bytes):
        """One tensor a group."""
        shapes = [(self.n, *part[0].shape) for part in self.low_where.parts(tensors)]
        return self._placed([(i, 0) for i in range(len(shapes))]), shapes

    def _placed(self, groups):
        found = [NOWHERE] * 6
        for i, one in enumerate(groups):
            found[self.place(i)] = one
        return sum(found, ())

    def wanted(self, needed):
        return needed[0], needed[1], *[any(part) for part in self.low_where.parts(needed[2:])]

    # --- as parity reads them -------------------------------------------------------------------------------

    def pairs(self, tensors, e):
        """(kind, A, B, scale) of one expert; also of gradients"""
        parts = self.low_where.parts(tensors)
        return [(kind, parts[2 * i][e], parts[2 * i + 1][e], self.scales[kind // 2]) for i, kind in enumerate(self.kinds)]

    def expert(self, tensors, e):
        found = [self.params[i * self.n + e].double() for i in range(3)]
        for kind, a, b, scale in self.pairs(tensors, e):
            found[kind] = found[kind] + scale * (b.double() @ a.double())
        return (*found, None, None, None)

    def errors(self, parts, tensors, e, reference, own_grads, new_grads):
        mine = [self.pairs(grads, e) for grads in (own_grads, new_grads)]
        for i, (kind, a, b, scale) in enumerate(self.pairs(tensors, e)):
            a64, b64, dweight = a.double(), b.double(), reference[kind]
            for name, t, wanted, k in (("A", a, scale * (b64.t() @ dweight), 1), ("B", b, scale * (dweight @ a64.t()), 2)):
                if t.requires_grad:
                    title = "dlora_%s of %s" % (name, ("gate", "up", "down")[kind])
                    parts.setdefault(title, Sums(dweight.device)).add(wanted, mine[0][i][k], mine[1][i][k])
