"""The part of the guest that only Python can do: where the model is, what it is made of, when a step ends.

Embedded in libmoeprof.so and executed once, under the GIL, when torch is in the process. `_moeprof` (C) is
put among the globals before; without it nothing is installed and only build_spec() is of use.

Rules (injector/BRIDGE.md): no print, no import of a module the job has not imported, no sync with the GPU,
no reference that keeps a model alive, and no exception that reaches the job.

When a step ends: at the first call of the root module after an optimizer stepped. What runs between the two
(zero_grad, scheduler, logging, several optimizers, a step fused into backward) thus belongs to the step whose
update it is. Forwards without gradient that follow an update (evaluation, generation) form a step of their own
without micro-batches, closed by the next training forward. A step that GradScaler skips calls no optimizer and
becomes part of the next one. The last step ends when the model is freed or the interpreter ends.
"""
import collections
import collections.abc
import contextlib
import inspect
import json
import os
import sys
import weakref

torch = sys.modules["torch"]
guest = globals().get("_moeprof")

MEASURED = 1  # enum mp_basis: without a mask every token is attended to, by the model's own rule
SEARCH_AFTER_STEPS = 3  # optimizer steps in a row without a call of the root: another model trains
GIVE_UP_AFTER_STEPS = 16  # and nothing that looks like a model was called either
PATIENCE = 100000  # module calls under search before an optimizer has to step: inference is not slowed down for good
GIVE_UP_AFTER_MOVES = 3  # steps in a row in which weights moved: they are not worth following

WRAPPED = ("base_layer", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
WRAPPER_WORDS = frozenset(WRAPPED) | {"weight", "original", "parametrizations", "default"}
STACKED_CHILDREN = ("input_linear", "output_linear")
ROUTER_WORDS = ("gate", "router", "wg", "gating")
ATTENTION_WORDS = ("attn", "attention", "mamba")
INDEX_WORDS = ("index", "indices", "selected_experts", "expert_ids", "topk_ids", "topk_idx")
SIZE_WORDS = ("expert_size", "tokens_per_expert")  # rows of each expert as a list on the host: GraniteMoe in 4.x
TOP_K_NAMES = ("top_k", "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k",
               "top_k_experts", "n_activated_experts", "topk", "k")
LAST_OF_CHAIN = ("o_proj", "out_proj", "wo", "dense", "c_proj", "down_proj", "w2", "fc2", "output_linear", "linear_2")
SECOND_OF_CHAIN = ("q_b_proj", "kv_b_proj")

Scope = collections.namedtuple("Scope", "module layer phase depth")
Moe = collections.namedtuple("Moe", "layer block router outer base members n top_k")


# ---------------------------------------------------------------------------------------------------------
# Never a way out for an exception

broken = set()


def guarded(feature):
    """A function that fails once is switched off, said so, and not called again; the training goes on."""
    def wrap(function):
        def call(*args):
            if feature in broken:
                return None
            try:
                return function(*args)
            except Exception as error:
                broken.add(feature)
                guest.feature_off(feature, "%s: %s: %s" % (function.__name__, type(error).__name__, error))
                return None
        return call
    return wrap


is_compiling = getattr(getattr(torch, "compiler", None), "is_compiling", bool)


class Hook:
    """What hangs on a module: calls into C, and three things a bare C function cannot do.

    Dynamo cannot trace a C function (a graph break, an error under fullgraph=True) but folds is_compiling()
    to True and sees an empty function: no break, no extra guard, no recompile. No global may be read here:
    Dynamo would look for it in sys.modules. Pickling and deepcopy leave an inert stand-in, since a copy of
    the model is another model and may be loaded where there is no guest.
    """
    __slots__ = ("calls",)
    is_compiling = staticmethod(is_compiling)

    def __init__(self, *calls):
        self.calls = calls

    def __call__(self, *args):
        if not self.is_compiling():
            for call in self.calls:
                call(*args)

    def __reduce__(self):
        # nullcontext().__exit__ takes anything, returns None, and exists in every Python.
        return getattr, (contextlib.nullcontext(), "__exit__")


# ---------------------------------------------------------------------------------------------------------
# Recognising a model by its structure

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


# ---------------------------------------------------------------------------------------------------------
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


# ---------------------------------------------------------------------------------------------------------
# The description of the model (profiler/core/SPEC.md)

def build_spec(root, optimizer=None, seen=None):
    """The spec of a model as a dict; `seen` holds what only a running job shows."""
    structure = Structure(root)
    seen = seen or {}
    notes = collections.defaultdict(list)  # sentence -> the layers it is about
    params = {id(p): p for p in root.parameters()}
    total = sum(map(size_of, params.values()))
    first = next(iter(structure.moes), None)
    ops = ops_of(structure, notes)
    layers = [layer_spec(structure, index, ops, notes) for index in range(len(structure.layers))]
    config = structure.config
    head = structure.head
    sizes = collections.Counter()
    for p in params.values():
        sizes[str(p.dtype).replace("torch.", "")] += p.numel() if p.is_floating_point() else 0  # packed: not its dtype
    compiled = any(map(is_compiled, root.modules()))
    if compiled:
        notes["parts of the model are compiled: inside a compiled region modules are not told apart"] = []
    for moe in structure.moes:
        if routing_source(moe)[0] == "router":
            notes["experts are not told which tokens chose them and may compute every token; tokens per expert are "
                  "known only if the router returns its choice"].append(moe.layer)
    if not structure.moes:
        notes["no experts found: a dense model; MFU holds, the views by expert stay empty"] = []
    return {
        "schema": 1,
        "env": environment(),
        "model": {
            "class": type(structure.core).__name__, "family": getattr(config, "model_type", None),
            "n_layers": len(structure.layers), "hidden": first_of(("hidden_size", "d_model", "n_embd", "dim"), config),
            "vocab": getattr(unwrap(head), "out_features", None) if head is not None else None,
            "params_total": total, "params_active": total - idle_params(structure),
            "params_trainable": sum(size_of(p) for p in params.values() if p.requires_grad),
            "tied_embeddings": is_tied(structure),
            "dtype": sizes.most_common(1)[0][0], "autocast": seen.get("autocast"),
            "checkpointing": checkpointing(root), "compiled": compiled,
            "attention": getattr(config, "_attn_implementation", None), "is_moe": first is not None},
        "experts": first and experts_spec(first),
        "lora": lora_spec(root),
        "layers": layers,
        "ops": [op.row() for op in ops],
        "optimizer": optimizer_spec(optimizer) or seen.get("optimizer"),
        "train": {"world_size": env_int("WORLD_SIZE", 1), "rank": env_int("RANK", 0),
                  "grad_accum": seen.get("grad_accum"), "trainer": seen.get("trainer")},
        "notes": [sentence + about(layers) for sentence, layers in notes.items()]}


def about(layers):
    return " (layers %s)" % ", ".join(map(str, sorted(set(layers)))) if layers else ""


def idle_params(structure):
    """Weights that one token does not pass through: those of the experts it is not routed to."""
    sizes = collections.Counter()
    for module in structure.root.modules():
        for p in own(module).values():
            layer, phase = structure.phase_of_param(module, p) or (-1, None)
            if phase == "expert":
                sizes[layer] += size_of(p)
    return sum(int(sizes[moe.layer] * (1 - moe.top_k / moe.n)) for moe in structure.moes if moe.top_k and moe.n)


def environment():
    def version(name):
        return getattr(sys.modules.get(name), "__version__", None)
    env = {name: version(name) for name in ("torch", "transformers", "peft", "trl", "accelerate", "unsloth", "axolotl")}
    env.update(python=sys.version.split()[0], cuda=torch.version.cuda, argv=list(getattr(sys, "argv", [])),
               hostname=os.uname().nodename, visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"))
    return env


def env_int(name, default):
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else default


def optimizer_spec(optimizer):
    if optimizer is None:
        return None
    group = optimizer.param_groups[0] if optimizer.param_groups else {}
    return {"class": type(optimizer).__name__, "fused": group.get("fused"), "foreach": group.get("foreach")}


def is_tied(structure):
    embedded = {id(p) for s in structure.scopes if s.phase == "embed" for p in s.module.parameters()}
    return structure.head is not None and any(id(p) in embedded for p in structure.head.parameters())


def checkpointing(root):
    """What the modules declare; a hand-written loop that calls checkpoint itself declares nothing: None."""
    declared = None
    for module in root.modules():
        if type(module).__name__ == "CheckpointWrapper":
            kind = getattr(getattr(module, "checkpoint_impl", None), "name", "")
            return "reentrant" if kind == "REENTRANT" else "non-reentrant"
        flag = getattr(module, "gradient_checkpointing", None)
        if flag is False:
            declared = declared or "none"
        elif flag is True:
            keywords = getattr(getattr(module, "_gradient_checkpointing_func", None), "keywords", None) or {}
            return "reentrant" if keywords.get("use_reentrant", True) else "non-reentrant"
    return declared


def is_compiled(module):
    """Compiled as a whole: torch.compile(module), module.compile(), or a compiled forward."""
    return ("_orig_mod" in module._modules or module.__dict__.get("_compiled_call_impl") is not None
            or hasattr(module.forward, "_torchdynamo_orig_callable"))


def lora_spec(root):
    for module in root.modules():
        config = getattr(module, "peft_config", None)
        if isinstance(config, dict) and config:
            adapter = next(iter(config))
            one = config[adapter]
            targets = [*(getattr(one, "target_modules", None) or []), *(getattr(one, "target_parameters", None) or [])]
            return {"r": getattr(one, "r", None), "targets": sorted(targets), "adapter": adapter}
    return None


def backend_of(base, block):
    """(name, basis) of the experts implementation that really runs."""
    for module in (base, block):
        patched = module.__dict__.get("forward")
        # accelerate's hooks and torch.compile wrap forward too, and run the same one inside
        wrapped = hasattr(module, "_old_forward") or hasattr(patched, "_torchdynamo_orig_callable")
        if hasattr(patched, "moeprof_arm"):
            return patched.moeprof_arm, "structure"
        if patched is not None and not wrapped:
            function = getattr(patched, "__func__", patched)
            return "patched:%s" % getattr(function, "__module__", "?"), "structure"
    forward = type(base).forward
    home = getattr(forward, "__module__", "") or ""
    if type(base).__name__.startswith("Liger"):
        return "liger", "structure"
    declared = getattr(getattr(base, "config", None), "_experts_implementation", None)
    if "unsloth" in home or "unsloth" in type(base).__module__ or declared == "unsloth":
        return "unsloth", "structure"
    if hasattr(base, "is_transposed") and hasattr(base, "has_gate"):  # set by transformers' dispatching decorator
        return declared or "eager", "declared"
    return "eager", "structure"


def layout_of(moe):
    if moe.members:
        return "modulelist"
    transposed = is_transposed(moe)
    return None if transposed is None else "stacked_transposed" if transposed else "stacked"


def is_transposed(moe):
    """Declared, or said by the declared hidden size; None when neither decides. Never by shape alone."""
    declared = getattr(moe.base, "is_transposed", None)
    if declared is not None:
        return bool(declared)
    down = own(moe.base).get("down_proj")
    hidden = first_of(("hidden_size", "hidden_dim"), moe.base, getattr(moe.base, "config", None))
    shape = shape_of(down) if down is not None else ()
    if hidden is None or len(shape) != 3 or shape[1] == shape[2]:
        return False if any(name in moe.block._modules for name in STACKED_CHILDREN) else None
    return shape[2] == hidden


def experts_spec(moe):
    name, basis = backend_of(moe.base, moe.block)
    kind = moe.members[0] if moe.members else moe.base
    return {"backend": name, "backend_basis": basis, "class": type(unwrap(kind)).__name__,
            "module": type(unwrap(kind)).__module__, "layout": layout_of(moe), "n": moe.n, "top_k": moe.top_k}


def layer_spec(structure, index, ops, notes):
    moe = next((m for m in structure.moes if m.layer == index), None)
    shared = sum(s.phase == "shared_expert" and s.layer == index and bool(unwrap(s.module)._modules)
                 for s in structure.scopes)
    attention = attention_spec(structure, index, notes)
    if attention:  # its core runs backward when what the output projection takes needs a gradient
        last = [op.dgrad for op in ops if op.scope.layer == index and op.scope.phase == "attention"
                and op.rank == 2 and not op.lora]
        attention["dgrad"] = not last or any(last)
    return {"index": index, "kind": "moe" if moe else "dense", "experts": moe.n if moe else 0,
            "top_k": moe.top_k if moe else 0, "shared": shared, "attention": attention}


def attention_spec(structure, index, notes):
    config = structure.config
    module = next((unwrap(s.module) for s in structure.scopes
                   if s.layer == index and s.phase == "attention" and s.depth == 2), None)
    kind = per_layer(getattr(config, "layer_types", None), index)
    if module is None:
        return None  # a layer of another kind in a hybrid stack
    if index in structure.linear_attention or kind == "linear_attention":
        notes["no softmax attention: its core is left out of the FLOPs (approximate)"].append(index)
        return None
    heads = first_of(("num_attention_heads", "num_heads", "n_heads", "n_head", "heads"), module, config)
    d_qk = first_of(("qk_head_dim", "q_head_dim", "head_dim", "d_head"), module, config)
    if heads and not d_qk:
        hidden = first_of(("hidden_size", "d_model", "n_embd", "dim", "embed_dim"), module, config)
        d_qk = hidden // heads if hidden else None
    if not heads or not d_qk:
        notes["attention heads not recognised: its core is left out of the FLOPs"].append(index)
        return None
    if kind == "chunked_attention":
        notes["attention in chunks is counted as full causal attention (approximate)"].append(index)
    return {"heads": heads, "d_qk": d_qk, "d_v": first_of(("v_head_dim",), module, config) or d_qk,
            "window": window_of(config, module, kind), "causal": bool(getattr(module, "is_causal", True))}


def window_of(config, module, kind):
    if kind not in (None, "sliding_attention"):
        return 0
    declared = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    width = getattr(module, "sliding_window", declared)
    if kind == "sliding_attention":
        width = width or declared
    return width if isinstance(width, int) and width > 0 else 0


def matmul_of(module, phase):
    """(weight, (in, out)) of a module that multiplies by one matrix, by what it declares; None: it does not."""
    mine = own(module)
    weight, fused = mine.get("weight"), mine.get("in_proj_weight")
    inside, outside = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(inside, int) and isinstance(outside, int):
        return weight, (inside, outside)
    if phase == "router" and weight is not None and len(shape_of(weight)) == 2:
        return weight, shape_of(weight)[::-1]
    if hasattr(module, "nf") and weight is not None:  # transformers' Conv1D: a Linear laid out (in, out)
        return weight, shape_of(weight)
    if fused is not None:  # torch's MultiheadAttention
        return fused, shape_of(fused)[::-1]
    return None


def leaf_name(path):
    words = [word for word in path.split(".") if word not in WRAPPER_WORDS and not word.isdigit()]
    return words[-1] if words else path


def trains(module):
    return any(p.requires_grad for p in module.parameters())


class Op:
    """One matmul of the definition; `rank` orders those of one chain (q before o, gate before down)."""

    def __init__(self, scope, name, shape, wgrad, lora=False):
        self.scope, self.name, self.shape, self.wgrad, self.lora = scope, name, shape, wgrad, lora
        leaf = name.split(".")[0]
        self.rank = 2 if leaf in LAST_OF_CHAIN else 1 if leaf in SECOND_OF_CHAIN else 0
        self.per = {"expert": "assignment", "lm_head": "head_row"}.get(scope.phase, "token")
        self.dgrad, self.chooses = True, False

    def row(self):
        return {"layer": self.scope.layer, "phase": self.scope.phase, "name": self.name, "in": int(self.shape[0]),
                "out": int(self.shape[1]), "per": self.per, "count": 1, "dgrad": self.dgrad, "wgrad": self.wgrad,
                "lora": self.lora}


def ops_of(structure, notes):
    ops, outside, strange = [], 0, 0
    for path, module in structure.root.named_modules():
        scope = structure.owner.get(id(module))
        moe, expert = structure.member.get(id(module), (None, 0))
        if expert or ".lora_" in path or unwrap(module) is not module:
            if scope is not None and not expert:
                ops += lora_ops(scope, path, module)
            continue  # one member of a ModuleList speaks for all; adapters are told by the layer they adapt
        matmul = matmul_of(module, scope.phase if scope else None)
        strange += hasattr(module, "kernel_size") and not (scope and scope.layer in structure.linear_attention)
        if scope is None:
            outside += matmul is not None
        elif matmul:
            weight, shape = matmul
            op = Op(scope, leaf_name(path), shape, weight is not None and weight.requires_grad)
            if ".indexer." in path:  # sparse attention picks keys by it: nothing flows back through a choice
                op.chooses, op.wgrad = True, False
                notes["sparse attention is counted as full causal attention (approximate)"].append(scope.layer)
            ops.append(op)
        else:
            mine = stacked_ops(structure, scope, module)
            strange += not mine and not hasattr(module, "num_embeddings") and any(map(is_matrix, own(module).values()))
            ops += mine
    if outside:
        notes["%d linear layers outside of the decoder stack are not in the FLOPs" % outside] = []
    if strange:
        notes["%d modules multiply in a way not recognised: they are not in the FLOPs" % strange] = []
    mark_dgrad(structure, ops)
    return ops


def is_matrix(p):
    shape = shape_of(p)
    return len(shape) > 1 and min(shape) > 1 and p.is_floating_point()


def stacked_ops(structure, scope, module):
    moe = next((m for m in structure.moes if m.layer == scope.layer and not m.members), None)
    if moe is None or not is_stacked(module):
        return []
    step = 1 if is_transposed(moe) else -1
    called = next((name for name, child in moe.block.named_children() if unwrap(child) is module), "weight")
    scope = scope._replace(phase="expert")
    return [Op(scope, called if name == "weight" else name, shape_of(p)[1:][::step], p.requires_grad)
            for name, p in own(module).items() if len(shape_of(p)) == 3 and "bias" not in name]


def lora_ops(scope, path, wrapper):
    """The low-rank pair of a PEFT layer: of a Linear, or of a stacked parameter (ParamWrapper)."""
    pairs = wrapper._modules.get("lora_A"), wrapper._modules.get("lora_B")
    if None in pairs or getattr(wrapper, "disable_adapters", False) or getattr(wrapper, "merged", False):
        return []
    stacked = getattr(wrapper, "num_experts", 1) if hasattr(wrapper, "parameter_name") else 1
    name = getattr(wrapper, "parameter_name", None) or leaf_name(path)
    ops = []
    for adapter in getattr(wrapper, "active_adapters", None) or list(pairs[0]):
        if adapter in pairs[0]._modules:
            a, b = pairs[0][adapter], pairs[1][adapter]
            ops.append(Op(scope, name + ".lora_A", (a.in_features, a.out_features // stacked), trains(a), True))
            ops.append(Op(scope, name + ".lora_B", (b.in_features // stacked, b.out_features), trains(b), True))
    return ops


def mark_dgrad(structure, ops):
    """An input gradient is computed where something trainable lies before, and nowhere else."""
    flowing = any(trains(s.module) for s in structure.scopes if s.phase == "embed") or bool(
        getattr(structure.core, "_require_grads_hooks", None) or getattr(structure.core, "_require_grads_hook", None))
    for index in range(len(structure.layers)):
        scopes = [s for s in structure.scopes if s.layer == index and s.depth > 1]
        norms = [s for s in scopes if s.phase == "norm" and s.depth == 2]
        flowing = flowing or any(trains(s.module) for s in norms[:1])
        for attention in (True, False):
            group = [op for op in ops if op.scope.layer == index and (op.scope.phase == "attention") == attention]
            for op in group:
                before = [o for o in group if o.scope.module is op.scope.module and o.rank < op.rank]
                op.dgrad = not op.chooses and (flowing or any(o.wgrad for o in before)
                                               or (op.name.endswith(".lora_B") and op.wgrad))
            flowing = flowing or any(op.wgrad for op in group)
        flowing = flowing or trains(structure.layers[index])
    for op in ops:
        if op.scope.phase == "lm_head":
            op.dgrad = flowing or any(trains(s.module) for s in structure.scopes if s.phase == "norm" and s.layer < 0)


# ---------------------------------------------------------------------------------------------------------
# Tokens of a micro-batch

def causal_pairs(length, window):
    if not window or window >= length:
        return length * (length + 1) // 2
    return window * length - window * (window - 1) // 2


def tokens_of(given):
    """The tensor of the tokens or their embeddings among what the model was called with; None: not recognised."""
    named = (given.get(name) for name in ("input_ids", "inputs_embeds", "tokens", "idx", "x"))
    return next((value for value in (*named, *given.values()) if isinstance(value, torch.Tensor)), None)


def token_shape(tensor):
    """(batch, length) by metadata alone."""
    sizes = tuple(tensor.shape)
    if tensor.is_floating_point():
        sizes = sizes[:-1]  # embeddings: the last dimension is the hidden size
    return sizes if len(sizes) == 2 else (1,) + sizes if len(sizes) == 1 else None


def beside(tokens, shape, value):
    """A mask, labels or positions that can be counted with the tokens: of their shape, on their device."""
    fits = isinstance(value, torch.Tensor) and tuple(value.shape) == shape and value.device == tokens.device
    return value if fits else None


def head_rows(given, batch, length):
    """Rows of the lm_head product: logits_to_keep counts from the end (0: all), or lists positions."""
    keep = given.get("logits_to_keep", given.get("num_logits_to_keep", 0))
    if isinstance(keep, torch.Tensor):
        return batch * keep.numel()
    return batch * min(keep, length) if isinstance(keep, int) and keep > 0 else None


def segment_lengths(given):
    """Lengths of packed sequences when the job keeps them on the host."""
    bounds = given.get("cu_seq_lens_q")
    if isinstance(bounds, torch.Tensor):
        if bounds.device.type != "cpu":
            return None
        bounds = bounds.tolist()
    return [b - a for a, b in zip(bounds, bounds[1:])] if bounds else None


def count_tokens(given, windows):
    tokens = tokens_of(given)
    shape = token_shape(tokens) if tokens is not None else None
    if shape is None:
        guest.micro(None, None, None, None, None, None, 0)
        return
    batch, length = shape
    mask = beside(tokens, shape, given.get("attention_mask"))
    labels = beside(tokens, shape, given.get("labels", given.get("targets")))
    positions = beside(tokens, shape, given.get("position_ids"))
    lengths = segment_lengths(given) if mask is None and positions is None else None
    on_device = mask is not None or positions is not None
    processed = batch * length
    guest.micro(processed, processed if mask is None else None, None, head_rows(given, batch, length),
                None if on_device else len(lengths) if lengths else batch, batch, MEASURED)
    if on_device or labels is not None:
        guest.micro_mask(mask, labels, positions, windows if on_device else [])
    if not on_device:
        for window in windows:
            full = batch * causal_pairs(length, window)
            useful = sum(causal_pairs(one, window) for one in lengths) if lengths else full
            guest.pairs(window, useful, full, max(lengths) if lengths else length, MEASURED)


# ---------------------------------------------------------------------------------------------------------
# One training: from finding the model to the end of each step

class Boundary:
    """Stands in for what module.compile() made: the module's own hooks run inside the compiled region."""
    __slots__ = ("module", "call", "before", "after")
    is_compiling = staticmethod(is_compiling)

    def __init__(self, module, before, after):
        self.module, self.call = weakref.ref(module), module._compiled_call_impl
        self.before, self.after = before, after
        module._compiled_call_impl = self

    def __call__(self, *args, **kwargs):
        if self.is_compiling():
            return self.call(*args, **kwargs)
        self.before(self.module(), args, kwargs)
        try:
            return self.call(*args, **kwargs)
        finally:
            self.after(self.module(), args, None)

    def remove(self):
        module = self.module()
        if module is not None and module._compiled_call_impl is self:
            module._compiled_call_impl = self.call


class Session:
    def __init__(self):
        self.handles, self.finder, self.finalizer, self.swapper = [], None, None, None
        self.forget()
        optim = sys.modules["torch.optim.optimizer"]
        self.updaters = [optim.register_optimizer_step_pre_hook(Hook(self.before_update)),
                         optim.register_optimizer_step_post_hook(Hook(self.after_update))]
        self.search()

    def forget(self):
        """As if no model had been found: every hook is gone from the old one."""
        if self.swapper is not None:
            self.swapper.stop()
        for handle in self.handles:
            handle.remove()
        if self.finalizer is not None:
            self.finalizer.detach()
        self.handles, self.samples, self.names, self.windows = [], [], [], [0]
        self.root = self.watched = self.finalizer = self.published = None
        self.updates = self.micros = self.moves = 0
        self.blind = collections.Counter()
        self.aside = False
        self.seen = {}

    def stop(self):
        """Leave the process as it was."""
        self.stop_search()
        self.forget()
        for handle in self.updaters:
            handle.remove()

    # --- finding the root -------------------------------------------------------------------------------

    def search(self):
        """A hook on every module call, until the first call of a model in training. Off at once when found."""
        self.patience = PATIENCE
        if self.finder is None:
            self.rejected = weakref.WeakSet()
            # OptimizedModule warns about global hooks; this one is gone before its region is compiled.
            warnings = sys.modules["warnings"]
            warnings.filterwarnings("ignore", r"Using `torch.compile\(module\)` when there are global")
            self.silence = warnings.filters[0]
            self.finder = torch.nn.modules.module.register_module_forward_pre_hook(Hook(self.consider))

    def stop_search(self):
        if self.finder is not None:
            self.finder.remove()
            self.finder = None
            filters = sys.modules["warnings"].filters
            if self.silence in filters:
                filters.remove(self.silence)

    @guarded("python")
    def consider(self, module, args):
        self.patience -= 1
        if self.patience < 0:
            self.stop_search()
        if not (module.training and torch.is_grad_enabled()) or module in self.rejected:
            return
        if not looks_like_model(module):
            self.rejected.add(module)
            return
        if any(other is not module and looks_like_model(other) for other in calls_under_way()):
            return  # attached in the middle of a forward: the outermost module will be called again
        self.adopt(module)
        self.enter(module, args, calling_kwargs())  # its own hook comes too late for the call under way

    def find_compiled_root(self, optimizer):
        """A model compiled in place calls no hook outside of its compiled region: look once for what is optimized.
        Dynamo saw the searching hook in the region and compiles it once more without."""
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for module in sys.modules["gc"].get_objects():
            if (issubclass(type(module), torch.nn.Module) and module.__dict__.get("_compiled_call_impl") is not None
                    and any(id(p) in trained for p in module.parameters()) and looks_like_model(module)):
                self.adopt(module)
                return

    def adopt(self, root):
        self.stop_search()
        if self.updates:
            guest.step_end()
        self.forget()
        guest.wake()
        structure = Structure(root)
        self.root = weakref.ref(root)
        self.finalizer = weakref.finalize(root, self.gone)
        self.names = argument_names(structure.core)
        self.windows = windows_of(structure)
        self.seen["trainer"] = calling_trainer()
        self.install(structure)
        self.register_weights(structure)
        if structure.moes:
            self.watched = weakref.ref(structure.moes[0].base), weakref.ref(structure.moes[0].block)
        self.publish()

    # --- hooks on the modules ---------------------------------------------------------------------------

    def install(self, structure):
        root = structure.root  # its scope, depth 0, is what micro_begin opens
        if root.__dict__.get("_compiled_call_impl") is not None:
            self.handles.append(Boundary(root, Hook(self.enter), Hook(self.leave)))
        else:
            self.handles += [root.register_forward_pre_hook(Hook(self.enter), with_kwargs=True),
                             root.register_forward_hook(Hook(self.leave), always_call=True)]
        for scope in structure.scopes:
            self.mark(structure, scope)
        for moe in structure.moes:
            self.count_routing(moe)
        self.probe = structure.layers[0].register_forward_pre_hook(Hook(self.look_inside))
        self.handles.append(self.probe)

    def mark(self, structure, scope):
        module, layer, phase, depth = scope
        begin, end = guest.scope_hooks(layer, phase, depth)
        moe, e = structure.member.get(id(module), (None, -1))
        is_member = moe is not None and moe.members[e] is module
        calls = (begin, guest.expert_hook(layer, e)) if is_member else (begin,)
        if module.__dict__.get("_compiled_call_impl") is not None:
            self.handles.append(Boundary(module, Hook(*calls), Hook(end)))
        else:
            self.handles += [module.register_forward_pre_hook(Hook(*calls)), module.register_forward_hook(Hook(end))]

    def count_routing(self, moe):
        kind, position, name = routing_source(moe)
        if kind == "index":
            hook = Hook(guest.routing_hook(moe.layer, moe.n, position, name))
            self.handles.append(moe.outer.register_forward_pre_hook(hook, with_kwargs=True))
        elif kind == "sizes" and hasattr(guest, "routing_list_hook"):
            hook = Hook(guest.routing_list_hook(moe.layer, moe.n, position, name))
            self.handles.append(moe.outer.register_forward_pre_hook(hook, with_kwargs=True))
        elif kind == "router" and moe.router is not None and moe.top_k:
            watch = Watch(moe, self.handles)
            watch.handle = moe.router.register_forward_hook(Hook(watch.look))
            self.handles.append(watch.handle)
        elif kind != "members":
            unknown_routing(moe.layer)

    @guarded("python")
    def look_inside(self, *_):
        """Once, within the first layer: what is only in force inside the root's forward."""
        self.probe.remove()
        self.seen["autocast"] = autocast_dtype(self.root())

    # --- a micro-batch ----------------------------------------------------------------------------------

    @guarded("python")
    def enter(self, module, args, kwargs):
        training = module.training and torch.is_grad_enabled()
        if self.updates or (training and self.aside):
            self.end_step()
            self.aside = not training
        if training:
            self.blind.clear()
            self.micros += 1
            guest.micro_begin()
            self.tokens(args, kwargs)

    @guarded("tokens")
    def tokens(self, args, kwargs):
        given = dict(zip(self.names or map(str, range(len(args))), args))
        if len(args) == 1 and isinstance(args[0], collections.abc.Mapping):
            given = dict(args[0])
        given.update(kwargs)
        count_tokens(given, self.windows)

    @guarded("python")
    def leave(self, module, args=(), output=None):
        if module.training and torch.is_grad_enabled():
            guest.micro_end()
            if self.swapper is not None:
                self.swapper.watch(output)

    # --- an update --------------------------------------------------------------------------------------

    @guarded("python")
    def before_update(self, optimizer, *_):
        guest.optimizer_begin()
        if "optimizer" not in self.seen:
            self.seen["optimizer"] = optimizer_spec(optimizer)

    @guarded("python")
    def after_update(self, optimizer, *_):
        guest.optimizer_end()
        self.updates += 1
        self.blind[id(optimizer)] += 1  # since the root was last called in training
        blind = self.blind[id(optimizer)]
        if blind == SEARCH_AFTER_STEPS or (blind == 1 and self.root is None):
            self.search()
        if blind == SEARCH_AFTER_STEPS:
            self.find_compiled_root(optimizer)
        elif blind == GIVE_UP_AFTER_STEPS and self.finder is not None:
            self.stop_search()
            guest.log(1, "optimizers step, but no model with decoder layers was called: nothing is told apart")

    def end_step(self):
        guest.step_end()
        micros, self.micros, self.updates = self.micros, 0, 0
        if micros:
            self.seen["grad_accum"] = max(micros, self.seen.get("grad_accum", 0))
            self.follow_weights()
            self.publish()
        self.control()

    @guarded("swap")
    def control(self):
        """Between two steps: what tools asked for. Its code is loaded when the first one asks."""
        if self.swapper is None:
            if not guest.pending():
                return
            part = 0
            while guest.swap_source(part) is not None:
                exec(compile(guest.swap_source(part), "<moeprof swap %d>" % part, "exec"), globals())
                part += 1
            self.swapper = swapper
        self.swapper.boundary(self.root())

    @guarded("ranges")
    def follow_weights(self):
        """Weights that moved (.to, offload, sharding) are registered anew; looked at through a few of them."""
        root = self.root()
        if root is None or self.moves > GIVE_UP_AFTER_MOVES:
            return
        if all(ref() is not None and address(ref()) == where for ref, where in self.samples):
            self.moves = 0
            return
        self.moves += 1
        if self.moves > GIVE_UP_AFTER_MOVES:
            guest.set_ranges([])
            guest.log(1, "weights move at every step (sharded or offloaded): experts are not told apart by address")
        else:
            self.register_weights(Structure(root))

    def register_weights(self, structure):
        guest.set_ranges(ranges_of(structure))
        params = list(structure.root.parameters())
        self.samples = [(weakref.ref(p), address(p)) for p in params[::max(1, len(params) // 8)]]

    def publish(self):
        """The spec, when it is new: a model found, its first step done, another experts backend."""
        root = self.root()
        base, block = (ref() for ref in self.watched) if self.watched else (None, None)
        state = dict(self.seen, backend=base and backend_of(base, block))
        if root is not None and state != self.published:
            self.published = state
            guest.set_spec(json.dumps(build_spec(root, seen=self.seen), separators=(",", ":")))

    @guarded("python")
    def gone(self):
        """The model was freed, or the interpreter ends: close the last step and forget its addresses."""
        if self.updates:
            guest.step_end(True)  # it ended when its optimizer returned, not now
        self.updates = 0
        guest.set_ranges([])


class Watch:
    """Looks once at what a router returns: integers of top_k columns are the chosen experts."""

    def __init__(self, moe, handles):
        self.layer, self.n, self.top_k, self.handles = moe.layer, moe.n, moe.top_k, handles

    @guarded("routing")
    def look(self, router, args, output):
        self.handle.remove()
        parts = output if isinstance(output, (tuple, list)) else ()
        for position, part in enumerate(parts):
            if (isinstance(part, torch.Tensor) and part.dtype in (torch.int64, torch.int32) and part.dim() == 2
                    and part.shape[-1] == self.top_k):
                hook = Hook(guest.routing_out_hook(self.layer, self.n, position))
                self.handles.append(router.register_forward_hook(hook))
                hook(router, args, output)
                return
        unknown_routing(self.layer)


def unknown_routing(layer):
    guest.log(1, "layer %d: the model does not show which experts it chose; tokens per expert stay unknown" % layer)


def windows_of(structure):
    layers = [attention_spec(structure, index, collections.defaultdict(list)) for index in range(len(structure.layers))]
    return sorted({layer["window"] for layer in layers if layer}) or [0]


def calls_under_way():
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "_call_impl" and isinstance(frame.f_locals.get("self"), torch.nn.Module):
            yield frame.f_locals["self"]
        frame = frame.f_back


def calling_kwargs():
    """The keyword arguments of the module call that runs a global hook, which torch does not hand to it."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name not in ("inner", "_call_impl"):
        frame = frame.f_back
    return (frame.f_locals.get("kwargs") if frame is not None else None) or {}


def calling_trainer():
    """The class whose training_step called the model, if one did."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "training_step":
        frame = frame.f_back
    return type(frame.f_locals["self"]).__name__ if frame is not None and "self" in frame.f_locals else None


def autocast_dtype(root):
    kind = next((p.device.type for p in root.parameters()), "cpu")
    if not hasattr(torch, "get_autocast_dtype") or not torch.is_autocast_enabled(kind):
        return None
    return str(torch.get_autocast_dtype(kind)).replace("torch.", "")


detach = None  # what the guest calls to leave the process; replaced below
if guest is not None:
    session = guarded("python")(Session)()
    detach = session.stop if session is not None else None
