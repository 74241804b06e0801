"""Swapping, part 3: the layers of a model as units that can be swapped, each with the job's own way back."""
import operator

LINEARS = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))


class Site:
    """What stands in for a method of one module instance while another arm runs.

    A copy or a pickle of the model carries the job's own method instead.
    """
    __slots__ = ("unit", "experts", "moeprof_arm")

    def __init__(self, unit, experts, arm):
        self.unit, self.experts, self.moeprof_arm = unit, experts, arm

    def __reduce__(self):
        return operator.itemgetter(0), ((self.unit.own(),),)


class StackedSite(Site):
    __slots__ = ()

    def __call__(self, hidden_states, top_k_index, top_k_weights):
        return self.experts(hidden_states, top_k_index, top_k_weights)


class DenseSite(Site):
    """gpt-oss in 4.5x: one weight for every expert, of which the chosen ones are not zero."""
    __slots__ = ()

    def __call__(self, hidden_states, router_indices=None, routing_weights=None):
        batch, hidden = hidden_states.shape[0], hidden_states.shape[-1]
        out = self.experts(hidden_states.reshape(-1, hidden), router_indices, routing_weights.gather(1, router_indices))
        return out.view(batch, -1, hidden)


class ListSite(Site):
    """DeepSeek's block.moe in 4.5x. The experts' own modules are not called, so their counting is done here."""
    __slots__ = ()

    def __call__(self, hidden_states, topk_indices, topk_weights):
        return self.unit.scoped(self.experts, hidden_states, topk_indices, topk_weights)


class BlockSite(Site):
    """The block of Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE in 4.5x, with its own gate and its exact return value."""
    __slots__ = ()

    def __call__(self, hidden_states):
        unit = self.unit
        block = unit.site()
        shape = hidden_states.shape
        x = hidden_states.view(-1, shape[-1])
        logits = block.gate(x)
        score, index = unit.route(logits)
        out = unit.scoped(self.experts, x, index, score.to(x.dtype))
        if unit.shared:
            out = out + FUNCTIONAL.sigmoid(block.shared_expert_gate(x)) * block.shared_expert(x)
        return out.reshape(shape), logits


class Unit:
    """One layer: where it is swapped, its weights, and its own arm. Holds no module alive.

    `leaf` is what the router gives to the layer, as parity differentiates it: the chosen experts' weights, or for a
    block that routes by itself, the logits.
    """
    attr, site_class, leaf_name = "forward", StackedSite, "dscore"
    reason = own_arm = None
    scales_input = False  # the router's weight multiplies what an expert is given, not what it gives

    def __init__(self, moe, site, weights, activation):
        self.layer, self.n, self.weights = moe.layer, moe.n, weights
        self.act, self.alpha, self.limit = activation
        self.site, self.outer = weakref.ref(site), weakref.ref(moe.outer)
        self.title = type(site).__name__
        self.skips = True  # an expert without tokens gets no gradient at all; parity looks
        self.probe_dtype = None

    def describe(self):
        return "%s, %s" % (self.weights.describe(), ACT_NAMES[self.act])

    def core(self):
        """The module that transformers dispatches on."""
        return self.site()

    def kernel_call(self):
        return LoraCall(self) if isinstance(self.weights, Beside) else KernelCall(self)

    def named(self, function):
        site = self.site
        return lambda x, index, score: function(site(), x, index, score)

    # --- the site ---------------------------------------------------------------------------------------

    def own(self):
        """The job's own method."""
        site = self.site()
        kept, there = site.__dict__.get("_moeprof_own"), site.__dict__.get(self.attr)
        if kept is None and there is not None and not isinstance(there, Site):
            kept = there
        return kept if kept is not None else types.MethodType(getattr(type(site), self.attr), site)

    def installed(self):
        site = self.site()
        found = site.__dict__.get(self.attr) if site is not None else None
        return found if isinstance(found, Site) else None

    def install(self, experts, arm):
        site = self.site()
        if self.installed() is None and self.attr in site.__dict__:
            site.__dict__["_moeprof_own"] = site.__dict__[self.attr]
        site.__dict__[self.attr] = self.site_class(self, experts, arm)

    def put(self, installed):
        """Puts back what installed() gave."""
        if installed is None:
            self.restore()
        else:
            self.install(installed.experts, installed.moeprof_arm)

    def restore(self):
        if self.installed() is None:
            return
        site = self.site()
        kept = site.__dict__.pop("_moeprof_own", None)
        if kept is not None:
            site.__dict__[self.attr] = kept
        else:
            del site.__dict__[self.attr]

    # --- calls ------------------------------------------------------------------------------------------

    def own_experts(self, x, index, score):
        return self.own()(x, index, score)

    def own_run(self, x, index, leaf):
        return self.own_experts(x, index, leaf)

    def run(self, experts, x, index, leaf):
        return experts(x, index, leaf)

    def settle(self, capture):
        """What only a call of the job shows."""

    def scores(self, index, leaf):
        """The weights of the chosen experts, in fp64, as a function of the leaf."""
        return leaf.double()

    def inside(self, function):
        """Calls function where the weights are those that the job computes with: within PEFT's wrappers."""
        outer, site, before = self.outer(), self.site(), self.installed()
        if outer is site or not hasattr(outer, "parameter_name"):
            return function()
        result = []
        self.install(lambda x, *_: (result.append(function()), x)[1], "inside")
        try:
            nothing = torch.empty(0)
            type(outer).forward(outer, nothing, nothing, nothing)
        finally:
            self.put(before)
        return result[0]

    # --- gradients of experts without tokens ------------------------------------------------------------

    def hit_later(self, index):
        return None

    def only_hit(self, hit, grads):
        return grads


class DenseUnit(Unit):
    site_class = DenseSite

    def own_experts(self, x, index, score):
        dense = torch.zeros(x.shape[0], self.n, dtype=score.dtype, device=score.device).scatter(1, index, score)
        return self.own()(x[None], router_indices=index, routing_weights=dense)[0]


class ListUnit(Unit):
    attr, site_class, own_arm = "moe", ListSite, "loop"

    def __init__(self, moe, site, weights, activation):
        Unit.__init__(self, moe, site, weights, activation)
        self.enter, self.leave = guest.scope_hooks(moe.layer, "expert", 3)
        self.count = guest.routing_hook(moe.layer, moe.n, 1, None)

    def scoped(self, experts, x, index, score):
        """The phase and the counting that the experts' own modules would have given."""
        self.enter(None, None)
        self.count(None, (x, index), {})
        out = experts(x, index, score)
        self.leave(None, None, None)
        return out

    def hit_later(self, index):
        """Which experts have tokens, on its way to the host without a wait; read in backward, long done by then."""
        if not self.skips:
            return None
        hit = torch.zeros(self.n + 1, dtype=torch.uint8, device=index.device).scatter_(0, index.clamp(0, self.n).reshape(-1), 1)
        if not index.is_cuda:
            return hit, None
        host = torch.empty(self.n + 1, dtype=torch.uint8, pin_memory=True)
        host.copy_(hit, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return host, event

    def only_hit(self, hit, grads):
        hit, event = hit
        if event is not None:
            event.synchronize()
        hit = hit.tolist()
        return [grad if hit[i % self.n] else None for i, grad in enumerate(grads)]


class BlockUnit(ListUnit):
    attr, site_class, leaf_name = "forward", BlockSite, "dlogits"

    def __init__(self, moe, site, weights, activation):
        ListUnit.__init__(self, moe, site, weights, activation)
        self.top_k, self.renorm = site.top_k, bool(getattr(site, "norm_topk_prob", True))
        self.shared = hasattr(site, "shared_expert")

    def route(self, logits):
        score, index = torch.topk(FUNCTIONAL.softmax(logits, dim=1, dtype=torch.float), self.top_k, dim=-1)
        return (score / score.sum(dim=-1, keepdim=True) if self.renorm else score), index

    def own_experts(self, x, index, score):
        """The textbook loop, for a call that the kernels refuse: the block's own cannot be given its routing."""
        block, out = self.site(), torch.zeros_like(x)
        for e in torch.unique(index).tolist():
            rows, slot = torch.where(index == e)
            out = out.index_add(0, rows, (block.experts[e](x[rows]) * score[rows, slot, None]).to(x.dtype))
        return out

    def leaf_of(self, x, output):
        """The router's logits in what the block returned."""
        return output[1]

    def stand_ins(self, block, leaf):
        return [(block.gate, lambda _: leaf)] + ([(block.shared_expert, torch.zeros_like)] if self.shared else [])

    def own_run(self, x, index, leaf):
        """The job's own block with the captured logits as its gate's answer, without its shared expert."""
        stand_ins = self.stand_ins(self.site(), leaf)
        before = [module.__dict__.get("forward", ABSENT) for module, _ in stand_ins]
        for module, function in stand_ins:
            module.__dict__["forward"] = function
        try:
            return self.own()(x[None])[0].reshape(x.shape)
        finally:
            for (module, _), old in zip(stand_ins, before):
                module.__dict__.pop("forward") if old is ABSENT else module.__dict__.__setitem__("forward", old)

    def run(self, experts, x, index, leaf):
        score, index = self.route(leaf)
        return experts(x, index, score.to(x.dtype))

    def scores(self, index, leaf):
        chosen = FUNCTIONAL.softmax(leaf.double(), dim=1).gather(1, index)
        return chosen / chosen.sum(dim=-1, keepdim=True) if self.renorm else chosen


class Unswappable:
    """A layer that stays as it is, and why."""

    def __init__(self, moe, reason):
        self.layer, self.reason = moe.layer, reason
        self.title = type(moe.base if not moe.members else moe.block).__name__

    def installed(self):
        return None

    def restore(self):
        pass


# ---------------------------------------------------------------------------------------------------------
# Recognising them

def unit_of(moe, compiled, fsdp, copied):
    base, block = moe.base, moe.block
    site = block if moe.members else base
    if copied:
        raise Refused("torch's DataParallel runs copies of it, one a GPU; start the job with torchrun, a process a GPU, to swap it")
    if any(id(module) in compiled for module in site.modules()):
        raise Refused("it runs inside a compiled region; start the job without torch.compile to swap it")
    for module in (site, moe.outer):
        if hasattr(module, "_old_forward") or hasattr(module, "_hf_hook"):
            raise Refused("accelerate's hooks wrap its forward (offloading, or a device map)")
        check_parallel(module, fsdp)
    return whole_block(moe) or (list_unit(moe) if moe.members else stacked_unit(moe))


# Classes that declare nothing and are made one way, by package and name: are weights transposed, and the activation.
MADE_ONE_WAY = {("liger_kernel", "LigerExperts"): (False, (SWIGLU, 0.0, 0.0))}


def stacked_unit(moe):
    experts = moe.base
    if routing_source(moe)[0] != "index":
        raise Refused("its forward does not take the chosen experts of each token")
    check_wrappers(moe.outer, experts)
    transposed, made = MADE_ONE_WAY.get((type(experts).__module__.split(".")[0], type(experts).__name__), (None, None))
    weights = Stacked(experts, transposed)
    apply_gate, function = getattr(experts, "_apply_gate", None), getattr(experts, "act_fn", None)
    if not weights.gated:
        t = torch.linspace(-5, 5, 64)
        if function is None or not same(function(t.clone()), act(RELU2, None, t)):
            raise Refused("it has no gate, and its activation is not relu2")
        kind = RELU2, 0.0, 0.0
    elif apply_gate is not None:
        kind = gate_activation(experts, apply_gate, weights.concatenated)
    elif not weights.concatenated:
        kind = CLAMPED_GLU, float(experts.alpha), float(experts.limit)
    elif made is not None:
        kind = made
    elif function is not None:
        kind = plain_activation(function), 0.0, 0.0
    else:
        raise Refused("it does not say what its activation is")
    dense = made is None and not hasattr(experts, "is_transposed")
    adapters = None if dense or moe.outer is experts else adapters_of(moe.outer, experts)
    if adapters:
        return LoraUnit(moe, moe.outer, Adapted(experts, adapters), kind)
    return (DenseUnit if dense else Unit)(moe, experts, weights, kind)


def is_ours(hook):
    """Of this guest, or what a copy of a model has in its place (Hook.__reduce__)."""
    return isinstance(hook, Hook) or isinstance(getattr(hook, "__self__", None), contextlib.nullcontext)


def is_hooked(module):
    """Are there hooks of the job on it?"""
    kinds = module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks
    return any(not is_ours(hook) for kind in kinds for hook in kind.values())


def check_hooks(*modules):
    """Refuses what a swap would not call by itself, and the job listens to."""
    for module in modules:
        for one in module.modules():
            if is_hooked(one):
                raise Refused("%s has hooks of its own, which a swap would not run" % type(one).__name__)


def check_wrappers(outer_module, experts):
    module = outer_module
    while module is not experts:
        if hasattr(module, "parameter_name") and not (type(module).forward.__module__ or "").startswith("peft."):
            raise Refused("its adapters are applied by code of another library (%s)" % type(module).forward.__module__)
        module = next((module._modules[name] for name in WRAPPED if module._modules.get(name) is not None), experts)


def list_unit(moe):
    block, first = moe.block, unwrap(moe.members[0])
    names = next((names for names in LINEARS if all(name in first._modules for name in names)), None)
    if names is None:
        raise Refused("its experts are not made of gate, up and down matrices")
    kind = listed_activation(first, names), 0.0, 0.0
    if any(unwrap(member) is not member for member in moe.members):
        raise Refused("its experts are wrapped one by one")
    check_hooks(*moe.members)
    weights = listed_weights([[member._modules[name] for member in moe.members] for name in names])
    weights.rests_on(*[(moe.base, name) for name in moe.base._modules],
                     *[(member, name) for member in moe.members for name in names])
    special = next((made for fits, made in LIST_BLOCKS if fits(block)), None)
    if special is not None:
        return special(moe, block, weights, kind)
    if callable(getattr(block, "moe", None)) and len(inspect.signature(type(block).moe).parameters) == 4:
        return ListUnit(moe, block, weights, kind)
    if not is_softmax_block(block):
        raise Refused("how its block routes is not known to moeprof")
    if getattr(block, "jitter_noise", 0):
        raise Refused("its router's input is jittered")
    return BlockUnit(moe, block, weights, kind)


def listed_weights(linears):
    if any(hasattr(linear, "lora_A") for group in linears for linear in group):
        return AdaptedList(linears)
    return Listed(linears)


@torch.no_grad()
def listed_activation(expert, names):
    """Of an expert that says it in act_fn, else by what its forward computes from matrices made up for it."""
    if getattr(expert, "act_fn", None) is not None:
        return plain_activation(expert.act_fn)
    t = torch.linspace(-5, 5, 64)
    answers = dict(zip(names, (lambda _: t.clone(), lambda _: torch.ones_like(t), lambda a: a)))
    before = [expert._modules[name].__dict__.get("forward", ABSENT) for name in names]
    try:
        for name in names:
            expert._modules[name].__dict__["forward"] = answers[name]
        return plain_activation(lambda _: expert.forward(t))
    except Refused:
        raise Refused("its experts' activation is none that the kernels have") from None
    finally:
        for name, old in zip(names, before):
            mine = expert._modules[name].__dict__
            mine.pop("forward") if old is ABSENT else mine.__setitem__("forward", old)


def is_softmax_block(block):
    """softmax over all experts, top-k, renormalised as declared: told by attributes here, and held against what the
    block computes by parity."""
    shared = [name for name in block._modules if "shared" in name]
    return (type(block._modules.get("gate")) is torch.nn.Linear and isinstance(getattr(block, "top_k", None), int)
            and (hasattr(block, "norm_topk_prob") or hasattr(block, "jitter_noise"))
            and shared in ([], ["shared_expert", "shared_expert_gate"])
            and set(block._modules) <= {"gate", "experts", "shared_expert", "shared_expert_gate"})


def check_parallel(module, fsdp):
    """Refuses what tensor or expert parallelism splits: a swap would stand outside of its collectives, or multiply by a
    part of the weights. FSDP2 has gathered them whole when the module runs."""
    style = parallel_style(module)
    if style:
        raise Refused("tensor or expert parallelism wraps its forward (transformers' %s)" % style)
    for one in module.modules():
        if getattr(one, "_hf_tp_plan", None) and any(hasattr(p, "_local_tensor") for p in one.parameters()):
            raise Refused("tensor parallelism splits its weights (transformers' plan '%s')" % one._hf_tp_plan)
    for name, p in module.named_parameters():
        split = sum(not placement.is_replicate() for placement in getattr(p, "placements", ()))
        if split > (id(p) in fsdp):
            raise Refused("%s is split by tensor or expert parallelism (a DTensor that %s does not gather)"
                          % (name, "FSDP2 alone" if id(p) in fsdp else "FSDP2"))


def parallel_style(module):
    """The class of transformers that made the forward of this instance, if one did (5.1x)."""
    for cell in getattr(module.__dict__.get("forward"), "__closure__", None) or ():
        kind = type(cell.cell_contents)
        if any(base.__name__ == "TensorParallelLayer" for base in kind.__mro__):
            return kind.__name__
    return None


def gathered_by_fsdp(root):
    """ids of the parameters under a module that FSDP2 (fully_shard) manages."""
    return {id(p) for module in root.modules() if hasattr(module, "_get_fsdp_state") for p in module.parameters()}


def compiled_modules(root):
    """ids of everything inside a compiled region, and of what is compiled; torch.compiler.disable is no such region."""
    inside = set()
    for module in root.modules():
        if is_compiled(module) and not getattr(module.forward, "_torchdynamo_disable", False):
            inside.update(map(id, module.modules()))
    return inside


def survey(root):
    """A unit for each MoE layer of a model, in order."""
    structure, units = Structure(root), []
    compiled, fsdp = compiled_modules(root), gathered_by_fsdp(root)
    copied = any(isinstance(m, torch.nn.DataParallel) and len(m.device_ids) > 1 for m in root.modules())
    with same_dice():
        for moe in structure.moes:
            try:
                units.append(unit_of(moe, compiled, fsdp, copied))
            except Exception as error:
                why = str(error) if isinstance(error, Refused) else "%s: %s" % (type(error).__name__, error)
                units.append(Unswappable(moe, why[:300]))
    return units


# ---------------------------------------------------------------------------------------------------------
# Arms other than moeprof's: implementations that the model's own interface has

def dispatch_of(experts):
    """(registry, undecorated forward) behind a forward that transformers dispatches; (None, None) otherwise."""
    forward = type(experts).__dict__.get("forward") or next(
        (kind.__dict__["forward"] for kind in type(experts).__mro__ if "forward" in kind.__dict__), None)
    cells = getattr(forward, "__closure__", None)
    found = dict(zip(forward.__code__.co_freevars, cells)) if cells else {}
    if "experts_interface" not in found:
        return None, None
    return found["experts_interface"].cell_contents, getattr(forward, "__wrapped__", None)


def named_arms(units):
    """Names that the registry of the first dispatching layer holds."""
    for unit in units:
        experts = unit.core() if isinstance(unit, Unit) else None
        registry, eager = dispatch_of(experts) if experts is not None else (None, None)
        if registry is not None:
            return (["eager"] if eager is not None else []) + sorted(set(registry))
    return []


def named_experts(unit, name):
    """The experts of one layer by a registered implementation, or Refused."""
    registry, eager = dispatch_of(unit.core())
    if registry is None:
        raise Refused("it does not dispatch between implementations")
    function = eager if name == "eager" else registry[name] if name in registry else None
    if function is None:
        raise Refused("there is no implementation named %s" % name)
    return unit.named(function)


def own_name(units):
    """What the job itself runs, by name."""
    for unit in units:
        experts = unit.core() if isinstance(unit, Unit) else None
        if experts is None:
            continue
        if unit.own_arm:
            return unit.own_arm
        registry, _ = dispatch_of(experts)
        declared = getattr(getattr(experts, "config", None), "_experts_implementation", None)
        return declared if registry is not None and declared else "own"
    return "own"
