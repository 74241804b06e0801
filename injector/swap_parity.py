"""Swapping, part 7: parity. Both arms on the job's own activations and incoming gradients, against fp64.

One step is listened to: of each layer the first call that a gradient comes back to. A sample of its tokens is kept,
evenly spaced: experts treat tokens one by one, so a sample is a smaller batch of the same job.
What is compared: output, gradients of the input, of the router's part (leaf) and of every weight that the job trains.
Under autocast an own arm may compute in fp32 all the same (grouped_mm does): then the autocast dtype's rounding is the
scale, and that is said.
The measure is the distance from an fp64 reference over the reference's norm, and the job's own arm sets the scale:
the other arm may be at most TIMES as far away, plus half a rounding step. Whole tensors hide a wrong row, so the worst
row of output, input and leaf gradient has a bound too. An own arm that is itself far away from what its weights say
(a layout that is not as declared, adapters that are not seen) is no scale: refused.
"""
ROWS = 4096  # tokens of a layer at most
SAMPLE_BYTES = 2 << 30  # of all layers, and at most a quarter of the free memory
TIMES, ROW_TIMES = 2.0, 4.0
FAR = {torch.float32: 1e-3, torch.float64: 1e-7}  # an own arm further away than this is no scale
FAR_HALF = 0.1
REFERENCE = 1e-14  # what the reference itself may be away: an fp64 arm that adds in its order is at 0 from it
N_SUMS = 5  # of class Sums
STEPS_TO_WAIT = 3


class Capture:
    """Stands in one layer's site for one step: calls what was there, keeps what went in and the gradient that came."""

    def __init__(self, unit, rows, experts=None, twice=False):
        """With experts, what is compared with: sharded weights are there in the layer's own backward and not between
        steps, so such a layer is compared as soon as its gradient comes. With twice, both arms run a second time on it:
        do they repeat themselves bit for bit?"""
        self.unit, self.rows, self.before, self.twice = unit, rows, unit.installed(), twice
        self.experts = experts if unit.weights.sharded else None
        self.result = self.failed = None
        self.x = self.index = self.leaf = self.dout = None
        self.cast = None
        self.complete = False
        site = unit.site()
        if self.before is None and unit.attr in site.__dict__:
            site.__dict__["_moeprof_own"] = site.__dict__[unit.attr]
        site.__dict__[unit.attr] = CaptureSite(self)

    def call(self, args, kwargs):
        unit = self.unit
        function = self.before if self.before is not None else unit.own()
        output = function(*args, **kwargs)
        if torch.is_grad_enabled() and not self.complete and not graph_capture():
            try:
                self.keep(args, kwargs, output)
            except Exception as error:  # never the job's problem
                self.failed = error
        return output

    def keep(self, args, kwargs, output):
        unit, given = self.unit, list(args) + list(kwargs.values())
        out = output[0] if isinstance(output, tuple) else output
        if isinstance(unit, BlockUnit):
            x, index, leaf = given[0], None, unit.leaf_of(given[0], output)
        else:
            x, index, leaf = given[0], given[1], given[2]
            if isinstance(unit, DenseUnit):
                index = kwargs.get("router_indices", index)
                leaf = kwargs.get("routing_weights", leaf).gather(1, index)
        hidden = x.shape[-1]
        x = x.reshape(-1, hidden)
        step = max(1, -(-x.shape[0] // self.rows))
        pick = slice(None, None, step)
        self.x, self.leaf = x.detach()[pick].clone(), leaf.detach()[pick].clone()
        self.index = index[pick].clone() if index is not None else None
        self.cast = autocast_now(x.device.type)
        self.x_needs, self.leaf_needs = x.requires_grad, leaf.requires_grad
        if out.requires_grad:
            self.complete = True
            out.register_hook(lambda grad: self.gradient(grad, hidden, pick))

    def gradient(self, grad, hidden, pick):
        try:
            self.dout = grad.detach().reshape(-1, hidden)[pick].clone()
        except Exception as error:
            self.failed = error
        if self.experts is not None:
            self.result = check(self.unit, self.experts, self)

    def remove(self):
        site = self.unit.site()
        if site is not None and isinstance(site.__dict__.get(self.unit.attr), CaptureSite):
            kept = site.__dict__.get("_moeprof_own")
            if self.before is not None:
                site.__dict__[self.unit.attr] = self.before
            elif kept is not None:
                site.__dict__[self.unit.attr] = site.__dict__.pop("_moeprof_own")
            else:
                del site.__dict__[self.unit.attr]


class CaptureSite(Site):
    __slots__ = ("capture",)

    def __init__(self, capture):
        Site.__init__(self, capture.unit, None, "capture")
        self.capture = capture

    def __call__(self, *args, **kwargs):
        return self.capture.call(args, kwargs)


def rows_for(units):
    """Tokens to keep of each layer."""
    budget = SAMPLE_BYTES
    first = next((unit for unit in units if isinstance(unit, Unit)), None)
    device = first.weights.tensors()[0].device
    if device.type == "cuda":
        budget = min(budget, torch.cuda.mem_get_info(device)[0] // 4)
    return max(16, min(ROWS, budget // (len(units) * first.weights.hidden * 8)))


# ---------------------------------------------------------------------------------------------------------

class Result:
    """Parity of one layer: the worst quantity, both arms' errors, or why there is none."""

    def __init__(self, layer, name="", error=None, own_error=None, tokens=0, why=None):
        self.layer, self.name, self.error, self.own_error, self.tokens, self.why = layer, name, error, own_error, tokens, why
        self.note = ""  # what a user should know although it passed
        self.out_cosine = self.own_out_cosine = None
        self.gradient, self.cosine, self.own_cosine = "", None, None  # of the gradient with the least cosine
        self.repeats = None  # (this arm, the job's own) when run twice: the same bits

    @property
    def ratio(self):
        return None if self.error is None or not self.own_error else self.error / self.own_error


class Sums:
    """One quantity, gathered expert by expert, as sums of squares: of the reference, of the distance of the own and the
    new one from it, of the own and the new one themselves."""

    def __init__(self, device):
        self.sums = torch.zeros(N_SUMS, dtype=torch.float64, device=device)

    def add(self, reference, own_one, new_one):
        self.sums[0] += reference.square().sum()
        for i, got in ((1, own_one), (2, new_one)):
            self.sums[i] += reference.square().sum() if got is None else (got.double() - reference).square().sum()
            self.sums[i + 2] += 0 if got is None else got.double().square().sum()


def grads_of(function, x, leaf, weights, capture):
    """(out, dx, dleaf, [dweight..]) of one arm on fresh leaves; None for what the job does not differentiate."""
    x, leaf = x.detach().requires_grad_(capture.x_needs), leaf.detach().requires_grad_(capture.leaf_needs)
    out = function(x, leaf)
    if capture.dout is None or not out.requires_grad:
        return out.detach(), None, None, [None] * len(weights)
    wanted = [t for t in [x, leaf] + weights if t.requires_grad]
    with unhooked(weights):
        found = iter(torch.autograd.grad(out, wanted, capture.dout.to(out.dtype), allow_unused=True, retain_graph=True))
    grads = [next(found) if t.requires_grad else None for t in [x, leaf] + weights]
    return out.detach(), grads[0], grads[1], grads[2:]


def compare(unit, experts, capture):
    """The Result of one layer. Under the GIL on the training thread, outside of forward."""
    if capture.x is None:
        raise Refused("it was not called with gradients on in %d steps" % STEPS_TO_WAIT)
    unit.settle(capture)
    index = capture.index if capture.index is not None else unit.route(capture.leaf)[1]
    kind = capture.x.device.type
    with torch.enable_grad(), autocast(kind, capture.cast):
        weights = list(unit.weights.tensors())
        if any(hasattr(w, "_local_tensor") for w in weights):
            raise Refused("its weights are sharded where it runs (a DTensor that is not local)")
        own_arm, new_arm = lambda x, leaf: unit.own_run(x, index, leaf), lambda x, leaf: unit.run(experts, x, index, leaf)
        own_one = grads_of(own_arm, capture.x, capture.leaf, weights, capture)
        unit.skips = own_skips(unit, capture, index)
        new_one = grads_of(new_arm, capture.x, capture.leaf, weights, capture)
        repeats = None
        if capture.twice and has_room(weights):
            repeats = tuple(same_bits(one, grads_of(arm, capture.x, capture.leaf, weights, capture))
                            for arm, one in ((new_arm, new_one), (own_arm, own_one)))
    if getattr(experts, "failed", None):
        raise Refused(experts.failed)
    result = judge(unit, capture, own_one, new_one, measure(unit, capture, index, weights, own_one, new_one))
    result.repeats = repeats
    return result


def has_room(weights):
    """For one more set of gradients, and as much again to spare."""
    device = weights[0].device
    return device.type != "cuda" or torch.cuda.mem_get_info(device)[0] > 2 * sum(w.numel() * w.element_size() for w in weights)


def same_bits(one, other):
    """Of two results of grads_of()."""
    return all(a is b or (a is not None and b is not None and torch.equal(a, b))
               for a, b in zip([*one[:3], *one[3]], [*other[:3], *other[3]]))


def autocast(kind, dtype):
    return torch.autocast(kind, dtype=dtype) if dtype is not None else torch.autocast(kind, enabled=False)


def own_skips(unit, capture, index):
    """True when the job's own loop leaves experts without tokens without a gradient: asked with one token."""
    trained = [w for w in unit.weights.tensors() if w.requires_grad]
    if not isinstance(unit, ListUnit) or not trained:
        return False
    out = unit.own_run(capture.x[:1], index[:1], capture.leaf[:1])
    with unhooked(trained):
        return any(grad is None for grad in torch.autograd.grad(out.sum(), trained, allow_unused=True))


@torch.no_grad()
def measure(unit, capture, index, weights, own_one, new_one):
    """{quantity: N_SUMS sums and the three of its worst row (0: none)}, not relative to anything yet."""
    device = capture.x.device
    x, dout = capture.x.double(), capture.dout.double() if capture.dout is not None else None
    leaf = capture.leaf.detach().double().requires_grad_(True)
    with torch.enable_grad():
        score = unit.scores(index, leaf)
    out, dx, dscore = torch.zeros_like(x), torch.zeros_like(x), torch.zeros(index.shape, dtype=torch.float64, device=device)
    parts, own_grads, new_grads = {}, filled(own_one[3], weights), filled(new_one[3], weights)
    for e in range(unit.n):
        rows, slot = torch.where(index == e)
        pieces = reference_expert(unit, x[rows], unit.weights.expert(weights, e), score.detach()[rows, slot, None],
                                  dout[rows] if dout is not None else None)
        out.index_add_(0, rows, pieces["out"])
        if dout is not None:
            dx.index_add_(0, rows, pieces["dx"])
            dscore[rows, slot] = pieces["dscore"]
            unit.weights.errors(parts, weights, e, pieces["dweights"], own_grads, new_grads)
    table = {"out": row_sums(out, own_one[0], new_one[0])}
    if dout is not None:
        with torch.enable_grad():
            dleaf = torch.autograd.grad(score, leaf, dscore)[0] if score.requires_grad and score is not leaf else dscore
        for name, reference, i in (("dx", dx, 1), (unit.leaf_name, dleaf, 2)):
            if own_one[i] is not None:
                table[name] = row_sums(reference, own_one[i], new_one[i])
    table.update((name, (sums.sums, None)) for name, sums in parts.items())
    names = list(table)
    flat = torch.stack([torch.cat([table[name][0], table[name][1] if table[name][1] is not None
                                   else torch.zeros(3, dtype=torch.float64, device=device)]) for name in names])
    return dict(zip(names, flat.tolist()))


def row_sums(reference, own_one, new_one):
    sums, rows = Sums(reference.device), [reference.square().sum(1).max()] if reference.numel() else None
    sums.add(reference, own_one, new_one)
    if rows is None:
        return sums.sums, None
    for got in (own_one, new_one):
        rows.append((reference if got is None else got.double() - reference).square().sum(1).max())
    return sums.sums, torch.stack(rows)


def reference_expert(unit, x, matrices, score, dout):
    """One expert in fp64: its share of the output and, with dout, of every gradient."""
    if not unit.scales_input:
        return scaled_after(unit, x, matrices, score, dout)
    pieces = scaled_after(unit, x * score, matrices, torch.ones_like(score), dout)
    if dout is not None:
        pieces.update(dx=pieces["dx"] * score, dscore=(pieces["dx"] * x).sum(1))
    return pieces


def scaled_after(unit, x, matrices, score, dout):
    gate, up, down, gate_bias, up_bias, down_bias = (m.double() if m is not None else None for m in matrices)
    g = None if gate is None else x @ gate.t() + (0 if gate_bias is None else gate_bias)
    u = x @ up.t() + (0 if up_bias is None else up_bias)
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in (g, u) if t is not None]
        a = act(unit.act, leaves[0] if g is not None else None, leaves[-1], unit.alpha, unit.limit)
    y = a.detach() @ down.t() + (0 if down_bias is None else down_bias)
    pieces = {"out": y * score}
    if dout is None:
        return pieces
    pieces["dscore"] = (dout * y).sum(1)
    dy = dout * score
    found = torch.autograd.grad(a, leaves, dy @ down)
    dg, du = (found[0] if g is not None else None), found[-1]
    pieces["dx"] = du @ up + (0 if dg is None else dg @ gate)
    pieces["dweights"] = (None if dg is None else dg.t() @ x, du.t() @ x, dy.t() @ a.detach(),
                          None if dg is None else dg.sum(0), du.sum(0), dy.sum(0))
    return pieces


def weight_errors(weights, parts, tensors, e, reference, own_grads, new_grads):
    """Adds expert e's weight gradients; one of None counts as zero, as an optimizer takes it."""
    names = ("dgate", "dup", "ddown", "dgate_bias", "dup_bias", "ddown_bias")
    mine = [weights.expert(grads, e) for grads in (own_grads, new_grads)]
    trained = weights.trained(tensors, e)
    for i, name in enumerate(names):
        if trained[i] and reference[i] is not None:
            parts.setdefault(name, Sums(reference[i].device)).add(reference[i], mine[0][i], mine[1][i])


Stacked.errors = Listed.errors = weight_errors


def filled(grads, weights):
    """Gradients with zeros for None: broadcast, so that they take no memory."""
    return [torch.zeros((), dtype=w.dtype, device=w.device).expand(w.shape) if g is None else g for g, w in zip(grads, weights)]


def judge(unit, capture, own_one, new_one, table):
    """The quantity that is furthest beyond the job's own arm, and whether that is too far."""
    dtype = capture.cast or unit.weights.dtype()
    half_step = torch.finfo(dtype).eps / 2
    worst = Result(unit.layer, tokens=len(capture.x))
    if new_one[0].dtype != own_one[0].dtype or new_one[0].shape != own_one[0].shape:
        worst.name, worst.why = "out", "its output has another type or shape than the job's own"
        return worst
    cosines_of(worst, table)
    for name, (norm, own_sum, new_sum, _, _, row, own_row, new_row) in table.items():
        if not norm > 0:
            if new_sum > 0 or norm != norm:
                worst.name, worst.why = name, "%s is not zero where the reference is, or not finite" % name
                return worst
            continue
        own_error, new_error = (own_sum / norm) ** 0.5, (new_sum / norm) ** 0.5
        scale = max(own_error, REFERENCE)
        if capture.cast is not None and own_error < half_step / 8:
            scale, worst.note = half_step, ("the job's own arm is outside of autocast here and computes in %s, this one in %s"
                                            % (plain_name(unit.weights.dtype()), plain_name(dtype)))
        why = verdict(name, half_step, FAR.get(dtype, FAR_HALF), own_error, scale, new_error)
        row_error, row_bound = row_errors(row, own_row, new_row, half_step, scale)
        if why is None and not row_error <= row_bound:
            why = "a row of %s differs: error %.2g, bound %.2g" % (name, row_error, row_bound)
        if worst.error is None or why or new_error / (own_error + half_step) > worst.error / (worst.own_error + half_step):
            worst.name, worst.error, worst.own_error, worst.why = name, new_error, own_error, why
        if why:
            return worst
    return worst


def cosines_of(result, table):
    """Of the output, and of the gradient that the new arm points furthest away with: what rounding leaves near 1."""
    for name, (norm, own_sum, new_sum, own_norm, new_norm, *_) in table.items():
        new_one, own_one = cosine(norm, new_norm, new_sum), cosine(norm, own_norm, own_sum)
        if name == "out":
            result.out_cosine, result.own_out_cosine = new_one, own_one
        elif new_one is not None and (result.cosine is None or new_one < result.cosine):
            result.gradient, result.cosine, result.own_cosine = name, new_one, own_one


def cosine(norm, other, distance):
    """From three sums of squares: of two vectors and of their difference. None where there is no direction."""
    if not (norm > 0 and 0 < other < float("inf")):
        return None
    return max(-1.0, min(1.0, (norm + other - distance) / (2 * (norm * other) ** 0.5)))


def plain_name(dtype):
    return str(dtype).replace("torch.", "")


def row_errors(row, own_row, new_row, half_step, scale):
    """Error of the worst row over the largest row, and its bound."""
    if not row:
        return 0.0, 1.0
    return (new_row / row) ** 0.5, 2 * half_step + ROW_TIMES * max((own_row / row) ** 0.5, scale)


def verdict(name, half_step, far, own_error, scale, new_error):
    if not own_error <= far:
        return ("%s of the job's own arm is %.2g away from what its weights say: adapters or a layout that are not seen"
                % (name, own_error))
    if not new_error <= TIMES * scale + half_step:
        return "%s: error %.2g, the job's own arm %.2g" % (name, new_error, own_error)
    return None
