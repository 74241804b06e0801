"""The description of the model (profiler/core/SPEC.md).

Executed after hook_model.py, among the same globals.
"""
LAST_OF_CHAIN = ("o_proj", "out_proj", "wo", "dense", "c_proj", "down_proj", "w2", "fc2", "output_linear", "linear_2")
SECOND_OF_CHAIN = ("q_b_proj", "kv_b_proj")


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
            **identity(getattr(structure.core, "config", config)),
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
                  "grad_accum": seen.get("grad_accum"), "trainer": seen.get("trainer"), **seen.get("repeat", {})},
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


VOLATILE = ("transformers_version", "dtype", "torch_dtype", "use_cache")  # told apart elsewhere, or not the model's


def identity(config):
    """What the model is called, a hash of its configuration, and how it is quantised."""
    quantised = getattr(config, "quantization_config", None)
    method = quantised.get("quant_method") if isinstance(quantised, dict) else getattr(quantised, "quant_method", None)
    return {"name": getattr(config, "_name_or_path", None) or None, "config_hash": config_hash(config),
            "quantization": None if method is None else str(getattr(method, "value", method))}


def config_hash(config):
    """The first 16 hex digits of SHA-256 over the configuration with sorted keys, without VOLATILE and private ones."""
    try:  # a configuration is the job's own code
        values = config.to_dict() if callable(getattr(config, "to_dict", None)) else vars(config)
        text = json.dumps(settled(values), sort_keys=True, default=lambda value: type(value).__name__)
        return sys.modules["hashlib"].sha256(text.encode()).hexdigest()[:16]
    except Exception:
        return None


def settled(value):
    if isinstance(value, (list, tuple)):
        return list(map(settled, value))
    if not isinstance(value, dict):
        return value
    return {str(key): settled(one) for key, one in value.items() if str(key) not in VOLATILE and str(key)[:1] != "_"}


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
            targets = listed(getattr(one, "target_modules", None)) + listed(getattr(one, "target_parameters", None))
            return {"r": getattr(one, "r", None), "targets": sorted(targets), "adapter": adapter}
    return None


def listed(names):
    """A pattern is one string."""
    return [names] if isinstance(names, str) else list(names or [])


def what_runs(base, block):
    """Changes when backend_of() may; cheap, for every step, and without a reference to what it looks at."""
    if base is None or block is None:
        return None
    config = getattr(base, "config", None)
    declared = object.__getattribute__(config, "__dict__") if hasattr(config, "__dict__") else {}
    return (id(vars(base).get("forward")), id(vars(block).get("forward")), declared.get("_experts_implementation_internal"),
            declared.get("_experts_implementation"))


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
    """The low-rank pair of a PEFT layer: of a Linear, or of a stacked parameter (ParamWrapper). Others have one pair."""
    pairs = wrapper._modules.get("lora_A"), wrapper._modules.get("lora_B")
    if None in pairs or getattr(wrapper, "disable_adapters", False) or getattr(wrapper, "merged", False):
        return []
    stacked = getattr(wrapper, "num_experts", 1) if hasattr(wrapper, "parameter_name") else 1
    name = getattr(wrapper, "parameter_name", None) or leaf_name(path)
    ops = []
    if any(hasattr(pair, "in_features") for pair in pairs):
        pairs = [{"": pair} for pair in pairs]
    for adapter in getattr(wrapper, "active_adapters", None) or list(pairs[0]):
        if adapter in pairs[0]:
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
