"""One training: from finding the model to the end of each step.

Executed last, among the same globals: it starts.

When a step ends: at the first call of the root module after an optimizer stepped. What runs between the two
(zero_grad, scheduler, logging, several optimizers, a step fused into backward) thus belongs to the step whose
update it is. Forwards without gradient that follow an update (evaluation, generation) form a step of their own
without micro-batches, closed by the next training forward. A step that GradScaler skips calls no optimizer and
becomes part of the next one. The last step ends when the model is freed or the interpreter ends.
"""
SEARCH_AFTER_STEPS = 3  # optimizer steps in a row without a call of the root: another model trains
GIVE_UP_AFTER_STEPS = 16  # and nothing that looks like a model was called either
PATIENCE = 100000  # module calls under search before an optimizer has to step: inference is not slowed down for good
GIVE_UP_AFTER_MOVES = 3  # steps in a row in which weights moved: they are not worth following


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


def dynamo_ran():
    utils = sys.modules.get("torch._dynamo.utils")
    return utils is not None and any(getattr(utils, "counters", {"unknown": True}).values())


def hooks(module, before, after, always=False):
    """The second one with `always` also when the call raises."""
    return module.register_forward_pre_hook(before), module.register_forward_hook(after, always_call=always)


class Session:
    def __init__(self):
        self.handles, self.hung, self.finder, self.finalizer, self.swapper = [], [], None, None, None
        self.calls = 0  # of a root, trained or not
        self.forget()
        optim = sys.modules["torch.optim.optimizer"]
        self.updaters = [optim.register_optimizer_step_pre_hook(Hook(self.before_update)),
                         optim.register_optimizer_step_post_hook(Hook(self.after_update))]
        self.search()

    def forget(self):
        """As if no model had been found: every hook is gone from the old one."""
        if self.swapper is not None:
            self.swapper.stop()
        for handle in self.handles + self.hung:
            handle.remove()
        if self.finalizer is not None:
            self.finalizer.detach()
        self.handles, self.hung, self.scopes, self.samples, self.names, self.windows = [], [], [], [], [], [0]
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
        trainer = calling_trainer()
        self.seen["trainer"] = type(trainer).__name__ if trainer is not None else None
        self.seen["repeat"] = repeat_facts(fields_of(fields_of(trainer).get("args")))
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
        self.hang(True)
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
        elif is_member:  # it counts tokens as well
            self.handles += hooks(module, Hook(*calls), Hook(end))
        else:
            # A checkpoint's replay raises when it has what it wanted. Where Dynamo traces hooks (in the parts of a layer,
            # by code that layers share), `always` would be a guard on each hook's number.
            self.scopes.append((weakref.ref(module), Hook(begin), Hook(end), depth == 1 and layer >= 0))

    def hang(self, on):
        """Scopes are of use in traced steps alone: else no hook hangs there, since one costs each call of its module
        2 us. In a job that compiles they stay: Dynamo would compile again what it compiled with hooks."""
        if on == bool(self.hung) or (not on and dynamo_ran()):
            return
        for handle in self.hung:
            handle.remove()
        self.hung = [handle for ref, *calls in self.scopes if on and ref() is not None for handle in hooks(ref(), *calls)]

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
        self.calls += 1
        if self.updates or (training and self.aside):
            self.end_step()
            self.aside = not training
        if training:
            self.blind.clear()
            self.micros += 1
            guest.micro_begin()
            self.tokens(args, kwargs)
            if self.swapper is not None:
                self.swapper.enter()

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
        traced = guest.tracing()
        self.hang(traced)
        micros, self.micros, self.updates = self.micros, 0, 0
        if micros:
            self.seen["grad_accum"] = max(micros, self.seen.get("grad_accum", 0))
        if micros and (traced or self.swapper is not None):  # an untraced step asks where no weight lies
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
        for ref, where in self.samples:
            if pointer(ref()) != where:
                break
        else:
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
        self.samples = [(weakref.ref(p), pointer(p)) for p in params[::max(1, len(params) // 8)]]

    def publish(self):
        """The spec, when it is new: a model found, its first step done, another experts backend."""
        root = self.root()
        state = what_runs(*(ref() for ref in self.watched)) if self.watched else None, self.seen
        if root is not None and state != self.published:
            self.published = state[0], dict(self.seen)
            guest.set_spec(json.dumps(build_spec(root, seen=self.seen), separators=(",", ":")))

    @guarded("python")
    def gone(self):
        """The model was freed, or the interpreter ends: close the last step and forget its addresses."""
        if self.updates:
            guest.step_end(True)  # it ended when its optimizer returned, not now
        self.updates = 0
        guest.set_ranges([])
        if self.swapper is not None:
            self.swapper.stop()  # it knows the weights of single experts


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
    """The object whose training_step called the model, if one did."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "training_step":
        frame = frame.f_back
    return frame.f_locals.get("self") if frame is not None else None


def fields_of(thing):
    """What an object holds itself: no property of the job's runs."""
    return getattr(thing, "__dict__", {})


def repeat_facts(arguments):
    """What a run is repeated by: its seeds, and how many sequences a micro-batch takes."""
    names = {"seed": "seed", "data_seed": "data_seed", "micro_batch": "per_device_train_batch_size", "packing": "packing"}
    given = {key: arguments.get(name) for key, name in names.items()}
    facts = {key: value if isinstance(value, int) and abs(value) < 1 << 62 else None for key, value in given.items()}
    return dict(facts, torch_seed=str(torch.initial_seed()), deterministic=torch.are_deterministic_algorithms_enabled())


def autocast_dtype(root):
    kind = next((p.device.type for p in root.parameters()), "cpu")
    if not hasattr(torch, "get_autocast_dtype") or not torch.is_autocast_enabled(kind):
        return None
    return str(torch.get_autocast_dtype(kind)).replace("torch.", "")


detach = None  # what the guest calls to leave the process; replaced below
if guest is not None:
    session = guarded("python")(Session)()
    detach = session.stop if session is not None else None
