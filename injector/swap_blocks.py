"""Swapping, part 6: blocks that neither dispatch nor hold a list, swapped as a whole with their exact return value.

Their router is called as it is and its own choice is used. A kind is a row of BLOCKS: whether a block is one, told by
its parts, and its unit.
"""


class WholeBlock(BlockUnit):
    """A block around stacked weights: no gradient is ever left out."""
    own_arm = "own"

    def __init__(self, moe, weights, activation):
        ListUnit.__init__(self, moe, moe.block, weights, activation)
        self.skips = False
        self.top_k = moe.router.top_k

    def own_experts(self, x, index, score):
        out, tensors = torch.zeros_like(x), self.weights.tensors()
        for e in torch.unique(index).tolist():
            rows, slot = torch.where(index == e)
            gate, up, down = self.weights.expert(tensors, e)[:3]
            a = act(self.act, FUNCTIONAL.linear(x[rows], gate), FUNCTIONAL.linear(x[rows], up), self.alpha, self.limit)
            out = out.index_add(0, rows, (FUNCTIONAL.linear(a, down) * score[rows, slot, None]).to(x.dtype))
        return out


# ---------------------------------------------------------------------------------------------------------
# Llama 4: every expert computes every token, of which the chosen are scaled before and the others are zero

class ScaledSite(Site):
    __slots__ = ()

    def __call__(self, hidden_states):
        unit = self.unit
        block = unit.site()
        x = hidden_states.reshape(-1, hidden_states.shape[-1])
        scores, logits = block.router(x)
        out = block.shared_expert(x)
        return out.add_(unit.routed(self.experts, x, scores)), logits


class ScaledUnit(WholeBlock):
    site_class, scales_input, own_arm = ScaledSite, True, "dense"

    def routed(self, experts, x, scores):
        """Scaled rows as tokens of their own, with one expert each and a weight of 1."""
        index = scores.topk(self.top_k, dim=1).indices
        rows = (x[:, None] * scores.gather(1, index)[..., None]).flatten(0, 1)
        self.enter(None, None)
        out = experts(rows, index.reshape(-1, 1), rows.new_ones(len(rows), 1))
        self.leave(None, None, None)
        return out.view(len(x), self.top_k, -1).sum(1) if self.top_k > 1 else out

    def route(self, logits):
        value, index = logits.topk(self.top_k, dim=1)
        return value.float().sigmoid().to(logits.dtype), index

    def from_logits(self, logits):
        score, index = self.route(logits)
        return torch.zeros_like(logits).scatter(1, index, score), logits

    def stand_ins(self, block, leaf):
        return [(block.router, lambda _: self.from_logits(leaf)), (block.shared_expert, torch.zeros_like)]

    def run(self, experts, x, index, leaf):
        return self.routed(experts, x, self.from_logits(leaf)[0])

    def scores(self, index, leaf):
        return leaf.double().gather(1, index).sigmoid()


def is_scaled(block):
    experts, router = block._modules.get("experts"), block._modules.get("router")
    return (set(block._modules) == {"experts", "router", "shared_expert"} and isinstance(router, torch.nn.Linear)
            and isinstance(getattr(router, "top_k", None), int) and hasattr(experts, "expert_dim")
            and argument_names(experts) == ["hidden_states"])


def scaled_unit(moe):
    if moe.outer is not moe.base:
        raise Refused("its experts are wrapped (%s)" % type(moe.outer).__name__)
    check_hooks(moe.base)
    return ScaledUnit(moe, Stacked(moe.base, True), (plain_activation(moe.base.act_fn), 0.0, 0.0))


# ---------------------------------------------------------------------------------------------------------
# Granite in 4.x: two stacked linears, and a router that gives rows sorted by expert

class Parallel(Stacked):
    """One stacked weight in each of two modules."""
    names = ("input_linear", "output_linear")
    gated, biased = True, False

    def __init__(self, block):
        self.module = weakref.ref(block)
        mine = dict(zip(self.names, self.tensors()))
        for name, p in mine.items():
            check_tensor(name, p)
        self._layout(block, mine, False)

    def tensors(self):
        modules = self.module()._modules
        return tuple([modules[name].weight for name in self.names])


class SortedSite(Site):
    __slots__ = ()

    def __call__(self, layer_input):
        unit = self.unit
        x = layer_input.reshape(-1, layer_input.shape[-1])
        order, _, gates, sizes, logits = unit.site().router(x)
        index, score = unit.choices(len(x), order, gates, sizes)
        return unit.scoped(self.experts, x, index, score).view(layer_input.shape), logits


class SortedUnit(WholeBlock):
    site_class, own_arm = SortedSite, "loop"

    def choices(self, n, order, gates, sizes):
        """(T, K) experts and weights out of rows sorted by expert."""
        sizes = torch.tensor(sizes, device=order.device)
        experts = torch.repeat_interleave(torch.arange(self.n, device=order.device), sizes, output_size=len(order))
        index = torch.empty_like(order).scatter_(0, order, experts)
        return index.view(n, -1), torch.empty_like(gates).scatter(0, order, gates).view(n, -1)

    def route(self, logits):
        value, index = logits.float().topk(self.top_k, dim=1)
        return torch.softmax(value, dim=1), index

    def stand_ins(self, block, leaf):
        return [(block.router.layer, lambda _: leaf)]

    def scores(self, index, leaf):
        return torch.softmax(leaf.double().gather(1, index), dim=1)


def is_sorted(block):
    router = block._modules.get("router")
    return (set(block._modules) == {"activation", "input_linear", "output_linear", "router"} and not own(block)
            and type(getattr(router, "layer", None)) is torch.nn.Linear and isinstance(getattr(router, "top_k", None), int))


def sorted_unit(moe):
    if any(hasattr(block, "parameter_name") for block in moe.block.modules()):
        raise Refused("its weights carry adapters, which its kernels' path in this version of transformers does not see")
    check_hooks(*[moe.block._modules[name] for name in ("activation", "input_linear", "output_linear")])
    return SortedUnit(moe, Parallel(moe.block), (plain_activation(moe.block.activation), 0.0, 0.0))


# ---------------------------------------------------------------------------------------------------------
# ERNIE 4.5 in 4.x: chosen with a correction, weighed without

class CorrectedSite(Site):
    __slots__ = ()

    def __call__(self, hidden_states):
        unit = self.unit
        block = unit.site()
        x = hidden_states.view(-1, hidden_states.shape[-1])
        with torch.autocast(x.device.type, enabled=False):
            logits = block.gate(x.float())
            score, index = unit.route(logits)
        out = unit.scoped(self.experts, x, index, score.to(x.dtype))
        if block.shared_experts is not None:
            out = out + block.shared_experts(x)
        return out.reshape(hidden_states.shape), logits


class CorrectedUnit(BlockUnit):
    site_class = CorrectedSite

    def __init__(self, moe, site, weights, activation):
        ListUnit.__init__(self, moe, site, weights, activation)
        self.top_k, self.least = site.top_k, site.norm_min

    def route(self, logits):
        score = FUNCTIONAL.softmax(logits, dim=1, dtype=torch.float)
        index = torch.topk(self.site().moe_statics(score), self.top_k, dim=-1).indices
        score = score.gather(1, index)
        return score / score.sum(dim=-1, keepdim=True).clamp(min=self.least), index

    def stand_ins(self, block, leaf):
        shared = block.shared_experts
        return [(block.gate, lambda _: leaf)] + ([(shared, torch.zeros_like)] if shared is not None else [])

    def scores(self, index, leaf):
        chosen = FUNCTIONAL.softmax(leaf.double(), dim=1).gather(1, index)
        return chosen / chosen.sum(dim=-1, keepdim=True).clamp(min=self.least)


def is_corrected(block):
    return (set(block._modules) <= {"gate", "experts", "moe_statics", "shared_experts"} and hasattr(block, "moe_statics")
            and hasattr(block, "norm_min") and hasattr(block, "shared_experts") and type(block.gate) is torch.nn.Linear)


# ---------------------------------------------------------------------------------------------------------
# Written by hand: a Linear as gate, a list of experts, a top_k. How its weights come from the logits, and whether it
# returns them too, is seen at the call that parity captures

RULES = {"softmax": lambda logits: logits.softmax(1), "sigmoid": torch.sigmoid}


class HandSite(Site):
    __slots__ = ()

    def __call__(self, hidden_states):
        unit = self.unit
        x = hidden_states.reshape(-1, hidden_states.shape[-1])
        logits = unit.gate()(x)
        score, index = unit.route(logits)
        out = unit.scoped(self.experts, x, index, score.to(x.dtype)).view(hidden_states.shape)
        return (out, logits) if unit.returns_logits else out


class HandUnit(BlockUnit):
    site_class = HandSite

    def __init__(self, moe, site, weights, activation):
        ListUnit.__init__(self, moe, site, weights, activation)
        self.top_k, self.gate_name = moe.top_k, gate_of(site)
        self.rule, self.renorm, self.returns_logits = "softmax", True, False

    def gate(self):
        return self.site()._modules[self.gate_name]

    def leaf_of(self, x, output):
        logits = self.gate()(x.reshape(-1, x.shape[-1]))
        self.returns_logits = isinstance(output, tuple)
        if self.returns_logits and (len(output) != 2 or output[1].shape != logits.shape):
            raise Refused("its block returns more than its output and the router's logits")
        return logits

    @torch.no_grad()
    def settle(self, capture):
        """The rule whose output is the block's."""
        own_out, found = self.own_run(capture.x, None, capture.leaf), []
        for rule in RULES:
            for renorm in (True, False):
                self.rule, self.renorm = rule, renorm
                score, index = self.route(capture.leaf)
                out = self.own_experts(capture.x, index, score)
                found.append((float((out.double() - own_out.double()).norm()), rule, renorm))
        _, self.rule, self.renorm = min(found)

    def route(self, logits):
        score, index = torch.topk(RULES[self.rule](logits.float()), self.top_k, dim=-1)
        return (score / score.sum(dim=-1, keepdim=True) if self.renorm else score), index

    def stand_ins(self, block, leaf):
        return [(self.gate(), lambda _: leaf)]

    def own_run(self, x, index, leaf):
        stand_in, before = self.gate().__dict__, self.gate().__dict__.get("forward", ABSENT)
        stand_in["forward"] = lambda _: leaf
        try:
            out = self.own()(x[None])
        finally:
            stand_in.pop("forward") if before is ABSENT else stand_in.__setitem__("forward", before)
        return (out[0] if isinstance(out, tuple) else out).reshape(x.shape)

    def scores(self, index, leaf):
        chosen = RULES[self.rule](leaf.double()).gather(1, index)
        return chosen / chosen.sum(dim=-1, keepdim=True) if self.renorm else chosen


def gate_of(block):
    """The name of the one Linear beside the experts, of a block that is made of nothing else."""
    beside = [name for name in block._modules if name != "experts"]
    fits = (len(beside) == 1 and "experts" in block._modules and not own(block) and is_router(beside[0])
            and type(block._modules[beside[0]]) is torch.nn.Linear)
    return beside[0] if fits else None


def is_by_hand(block):
    return (gate_of(block) is not None and not is_softmax_block(block) and not (type(block).__module__ or "").startswith("transformers.")
            and len(argument_names(block)) == 1 and not callable(getattr(block, "moe", None)))


LIST_BLOCKS = ((is_corrected, CorrectedUnit), (is_by_hand, HandUnit))
BLOCKS = ((is_scaled, scaled_unit), (is_sorted, sorted_unit))


def whole_block(moe):
    """The unit of a block that is swapped as a whole, or None."""
    return next((make(moe) for fits, make in BLOCKS if fits(moe.block)), None)
