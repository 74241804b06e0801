"""Recognising a model by its structure, never by version, class name or shape alone; its weights as address ranges.

Executed after hook.py, among the same globals.
"""
WRAPPED = ("base_layer", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
WRAPPER_WORDS = frozenset(WRAPPED) | {"weight", "original", "parametrizations", "default"}
STACKED_CHILDREN = ("input_linear", "output_linear")
ROUTER_WORDS = ("gate", "router", "wg", "gating")
ATTENTION_WORDS = ("attn", "attention", "mamba")
INDEX_WORDS = ("index", "indices", "selected_experts", "expert_ids", "topk_ids", "topk_idx")
SIZE_WORDS = ("expert_size", "tokens_per_expert")  # rows of each expert as a list on the host: GraniteMoe in 4.x
TOP_K_NAMES = ("top_k", "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k",
               "top_k_experts", "n_activated_experts", "topk", "k")

Scope = collections.namedtuple("Scope", "module layer phase depth")
Moe = collections.namedtuple("Moe", "layer block router outer base members n top_k")


def unwrap(module):
    """The module inside PEFT, torch.compile, FSDP and checkpoint wrappers."""
    while True:
        inner = next((module._modules[name] for name in WRAPPED if module._modules.get(name) is not None), None)
        if inner is None:
            return module
        module = inner


def is_list(module):
    return isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict))


def own(module):
    """Parameters that are the module's own, seen through torch's parametrizations."""
    found = {name: p for name, p in module._parameters.items() if p is not None}
    for name, chain in getattr(module._modules.get("parametrizations"), "_modules", {}).items():
        if "original" in chain._parameters:
            found[name] = chain._parameters["original"]
    return found


def shape_of(p):
    """The shape of the whole parameter; DeepSpeed ZeRO-3 leaves an empty one and keeps it beside."""
    return tuple(getattr(p, "ds_shape", p.shape))


def size_of(p):
    return getattr(p, "ds_numel", None) or p.numel()


def has_params(module):
    return next(module.parameters(), None) is not None


def router_of(module):
    return next((unwrap(child) for name, child in module.named_children() if is_router(name)), None)


def is_stacked(module):
    """Experts in 3-D parameters of their own. Convolutions have those too, and a kernel_size."""
    return not hasattr(module, "kernel_size") and any(len(shape_of(p)) == 3 for p in own(module).values())


def is_expert_list(name, module):
    return (is_list(module) and "expert" in name and "shared" not in name and len(module) > 0
            and all(map(has_params, module.children())))


def is_experts(name, module):
    base = unwrap(module)
    return (is_expert_list(name, base) or (is_stacked(base) and router_of(base) is None)
            or ("experts" in name and "shared" not in name and has_params(base)))


def expert_children(block):
    return [(name, child) for name, child in block.named_children() if is_experts(name, child)]


def is_norm(name, module):
    if "norm" in name.lower() or "norm" in type(module).__name__.lower() or name.startswith("ln_"):
        return not any(len(shape_of(p)) > 1 for p in module.parameters())
    return False


def is_rotary(name):
    return "rotary" in name or "rope" in name.split("_")


def is_linear_attention(module):
    return hasattr(module, "conv1d") or hasattr(module, "A_log")


def is_attention(name, module):
    return (any(word in name for word in ATTENTION_WORDS) or is_linear_attention(module)
            or any(hasattr(module, other) for other in ("q_proj", "qkv_proj", "q_a_proj", "wq")))


def is_router(name):
    return "proj" not in name and any(word in name.split("_") for word in ROUTER_WORDS)


def phase_of(name, module):
    """The phase of one child of a decoder layer or MoE block that is not the experts; None: not worth a scope."""
    base = unwrap(module)
    if "shared" in name:
        return "shared_expert"
    if is_norm(name, base):
        return "norm"
    if is_router(name):
        return "router"
    if is_rotary(name) or (is_attention(name, base) and has_params(base)):
        return "attention"
    return "dense_mlp" if any(matmul_of(m, None) for m in base.modules()) else None


def children(module):
    """Named children; a plain list of modules is never called itself, so its members stand in for it."""
    for name, child in module.named_children():
        if is_list(unwrap(child)) and not is_expert_list(name, unwrap(child)):
            yield from ((name, member) for member in unwrap(child).children())
        elif name != "parametrizations":
            yield name, child


def outer(module):
    """Where a hook goes: the outermost wrapper, but inside a checkpoint wrapper, to be seen by its replay too."""
    while module._modules.get("_checkpoint_wrapped_module") is not None:
        module = module._modules["_checkpoint_wrapped_module"]
    return module


def is_layer(module):
    """A decoder layer: several parts with parts of their own, or one and a norm; or experts and nothing else."""
    base = unwrap(module)
    parts = [name for name, child in base.named_children() if unwrap(child)._modules and has_params(child)]
    norms = any(is_norm(name, unwrap(child)) for name, child in base.named_children())
    return len(parts) > 1 or bool(parts and norms) or bool(expert_children(base)) or is_stacked(base)


def stack_of(root):
    """(name, container) of the decoder layers: the outermost list of modules with most parameters, or None."""
    best, weight = None, 0
    pending = [("", root)]
    while pending:
        name, module = pending.pop()
        kids = list(module.children())
        if isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Sequential)) and kids and all(
                map(is_layer, kids)):
            size = sum(map(size_of, module.parameters()))
            if size > weight:
                best, weight = (name, module), size
        else:
            pending += [((name + "." if name else "") + key, kid) for key, kid in module.named_children()]
    return best


def first_of(names, *holders):
    for holder in holders:
        for name in names:
            value = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def per_layer(value, index):
    return value[index] if isinstance(value, (list, tuple)) and index < len(value) else value


class Structure:
    """What a model is made of. Holds modules: never kept beyond the call that made it."""

    def __init__(self, root):
        self.root = root
        self.core = next((m for m in root.modules() if hasattr(type(m), "get_output_embeddings")), unwrap(root))
        config = getattr(self.core, "config", None)
        text = getattr(config, "get_text_config", None)
        self.config = text() if callable(text) else config
        self.stack_name, stack = stack_of(root)
        self.layers = list(stack.children())
        self.scopes, self.moes = [], []
        self.linear_attention = set()
        self._outside(stack)
        for index, layer in enumerate(self.layers):
            self._layer(index, layer)
        self.owner = {}
        for scope in sorted(self.scopes, key=lambda scope: scope.depth):
            for module in scope.module.modules():
                self.owner[id(module)] = scope
        self.member = {id(module): (moe, e) for moe in self.moes for e, one in enumerate(moe.members)
                       for module in one.modules()}

    def _add(self, module, layer, phase, depth):
        self.scopes.append(Scope(outer(module), layer, phase, depth))

    def _outside(self, stack):
        inside = set(map(id, stack.modules()))
        self.head = self._head()
        for path, module in self.root.named_modules():
            name = path.rsplit(".", 1)[-1]
            if id(module) in inside or module is self.head:
                continue
            if hasattr(module, "num_embeddings"):
                self._add(module, -1, "embed", 1)
            elif is_rotary(name):
                self._add(module, -1, "attention", 1)
            elif path.rpartition(".")[0] == self.stack_name.rpartition(".")[0] and is_norm(name, module):
                self._add(module, -1, "norm", 1)
        if self.head is not None:
            self._add(self.head, -1, "lm_head", 1)

    def _head(self):
        get = getattr(self.core, "get_output_embeddings", None)
        head = get() if callable(get) else None
        if head is not None:
            return head
        named = [m for path, m in self.root.named_modules()
                 if path.rsplit(".", 1)[-1] in ("lm_head", "output", "head", "embed_out", "unembed")
                 and hasattr(m, "out_features")]
        return named[0] if named else None

    def _layer(self, index, layer):
        self._add(layer, index, "other", 1)
        base = unwrap(layer)
        direct = expert_children(base)
        if direct:  # no block of its own: router and experts hang on the layer
            self._experts(index, base, direct, 2)
        for name, child in children(base):
            if (name, child) in direct:
                continue
            block = unwrap(child)
            inside = expert_children(block)
            if inside:
                self._add(child, index, "router", 2)
                self._experts(index, block, inside, 3)
                for part, module in children(block):
                    phase = phase_of(part, module) if (part, module) not in inside else None
                    if phase:
                        self._add(module, index, phase, 3)
            elif is_stacked(block) and not is_attention(name, block):  # routing and 3-D weights in one module
                self._add(child, index, "expert", 2)
                self._experts(index, block, [(name, child)], None)
                for part, module in children(block):
                    phase = phase_of(part, module)
                    if phase:
                        self._add(module, index, phase, 3)
            else:
                phase = phase_of(name, child)
                if phase:
                    self._add(child, index, phase, 2)
                if phase == "attention" and is_linear_attention(block):
                    self.linear_attention.add(index)

    def _experts(self, index, block, found, depth):
        """One Moe a layer; Granite's two stacked linears are one Moe with two modules."""
        name, first = found[0]
        base = unwrap(first)
        members = list(base.children()) if is_expert_list(name, base) else []
        if depth:
            for _, module in found if not members else [(name, member) for member in members]:
                self._add(module, index, "expert", depth)
        stacked = next((shape_of(p) for p in own(base).values() if len(shape_of(p)) == 3), None)
        router = router_of(block)
        n = len(members) or (stacked[0] if stacked else first_of(("num_experts",), base, router))
        declared = [per_layer(getattr(self.config, key, None), index) for key in TOP_K_NAMES]
        top_k = first_of(TOP_K_NAMES, block, router, base) or next((k for k in declared if isinstance(k, int)), None)
        self.moes.append(Moe(index, block, router, outer(first), base, members, n or 0, top_k))

    def phase_of_param(self, module, p):
        """(layer, phase) of a parameter; 3-D weights in a block that also routes are experts all the same."""
        scope = self.owner.get(id(module))
        if scope is None:
            return None
        return scope.layer, "expert" if len(shape_of(p)) == 3 and scope.phase == "router" else scope.phase


def routing_source(moe):
    """Where the chosen experts are seen: (kind, position, name of the argument)."""
    if moe.members:
        return "members", -1, None  # counted on the host, one expert at a time
    for kind, words in (("index", INDEX_WORDS), ("sizes", SIZE_WORDS)):
        for position, name in enumerate(argument_names(moe.base)):
            if any(word in name for word in words):
                return kind, position, name
    return "router", -1, None  # only the router may return them


def argument_names(module):
    """Names of forward's positional arguments; hidden ones (*args) end the list."""
    names = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            break
        names.append(parameter.name)
    return names


def looks_like_model(module):
    return stack_of(module) is not None and any(p.requires_grad for p in module.parameters())


# Weights as address ranges

def address(p):
    """(pointer, bytes) of what kernels read, or None: meta, sharded away, or not readable as memory."""
    local = getattr(p, "_local_tensor", p)
    if local.shape != p.shape:
        return None  # a shard: kernels read what is gathered from it
    p = local
    try:
        pointer, size = p.data_ptr(), p.numel() * p.element_size()
    except Exception:  # tensor subclasses without storage of their own
        return None
    return (pointer, size) if pointer and size and p.device.type != "meta" else None


def pointer(p):
    """Where a parameter lies; cheap, to see that it moved."""
    try:
        return getattr(p, "_local_tensor", p).data_ptr()
    except Exception:  # gone, or a tensor subclass without storage of its own
        return None


def ranges_of(structure):
    seen, result = set(), []
    tied = structure.head is not None and any(
        p is q for p in structure.head.parameters() for s in structure.scopes if s.phase == "embed"
        for q in s.module.parameters())
    for path, module in structure.root.named_modules():
        for p in own(module).values():
            place, where = structure.phase_of_param(module, p), address(p)
            if place is None or where is None or where[0] in seen:
                continue
            if tied and place[1] in ("embed", "lm_head"):
                continue  # one weight, two uses: only the scope can tell them apart
            seen.add(where[0])
            moe, e = structure.member.get(id(module), (None, -1))
            stacked = moe is None and place[1] == "expert" and ".lora_B" not in path
            item = where + place + (slices_of(structure, place[0], p) if stacked else 1, 0)
            result.append(item + (e,) if moe is not None else item)
    return result


def slices_of(structure, layer, p):
    """Experts in one stacked parameter, expert-major: (E, ..), or r rows for each in PEFT's lora_A."""
    n = next((moe.n for moe in structure.moes if moe.layer == layer), 0)
    return n if n and p.dim() > 1 and p.shape[0] % n == 0 else 1
