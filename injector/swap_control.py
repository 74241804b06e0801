"""Swapping, part 8: requests from tools, taken between steps (CONTROL.md).

hook.py calls boundary() after the end of each step, before the next training forward; watch() with what the model
returned. Whatever goes wrong here puts the job's own arm back and is said; nothing reaches the job.
"""
import time

HELLO, STATUS, SWAP, CHECK, MEMORY = 1, 2, 3, 4, 5  # enum mp_wire_kind
STATE, ARM, LAYER, PARITY, DONE, SWAPPED, REVERTED, LOSS, COSINE = 32, 33, 34, 35, 36, 37, 38, 39, 40
FRESH, PARTIAL, RESET, YES, ACTIVE, TWICE = 1, 2, 1, 1, 2, 4
EINVAL, ENOMEM, ENOTSUP, EGONE, EBUSY, EPARITY = -1, -2, -6, -7, -9, -100
UNKNOWN = float("nan")

ORIGINAL, OURS = "original", "moeprof"
SPOT_ROWS = 256
SPOT_STEPS = 64  # between two spot checks at least
SPOT_SHARE = 0.001  # of the job's time at most


class Task:
    """A request that waits for its step of captured activations."""

    def __init__(self, ticket, kind, flags, arm):
        self.ticket, self.kind, self.flags, self.arm = ticket, kind, flags, arm
        self.captures, self.experts, self.tries = [], {}, 0


class Swapper:
    def __init__(self):
        self.arm, self.units, self.root = ORIGINAL, None, None
        self.passed, self.swaps, self.last_code = set(), 0, 0
        self.task = self.loss = self.spot_task = self.meter = None
        self.spot_at = self.spot_next = 0
        self.made_of = self.kept = None  # kept: a request put off until a capture is over
        self.step_seconds = self.last_boundary = None

    # --- entry points, all of them guarded ---------------------------------------------------------------

    def boundary(self, root):
        """Between two steps."""
        try:
            self.follow_model(root)
            if graph_capture():
                self.put_off()
                return
            if self.arm != ORIGINAL or self.task is not None or self.spot_task is not None:
                self.look_after(root)
            while self.task is None and (self.kept or guest.pending()):
                request, self.kept = self.kept or guest.take(), None
                if request is None:
                    break
                self.serve(root, *request)
            if self.arm == OURS and self.task is None:
                self.start_spot_check()
        except Exception as error:
            self.give_up("%s: %s" % (type(error).__name__, error))

    def put_off(self):
        """A CUDA graph is being captured: what ran on the GPU now would run in every replay, and a wait would end it."""
        while self.task is None and guest.pending():
            request = guest.take()
            if request is None:
                break
            if request[0]:
                self.done(request[0], EBUSY, "a CUDA graph is being captured")
            else:  # of moeprof run --swap: nobody would ask again
                self.kept = request

    def enter(self):
        """Before a training forward."""
        if self.meter is not None and not graph_capture():
            self.meter.enter()

    def watch(self, output):
        """What the model returned: its loss, or a little of its logits, on its way to the host."""
        if graph_capture():
            return
        if self.meter is not None:
            self.meter.leave(output)
        if self.arm == ORIGINAL or self.loss is not None:
            return
        try:
            value = loss_like(output)
            if value is not None:
                self.loss = Loss(value, guest.step())
        except Exception:
            self.loss = None

    def stop(self):
        """The guest leaves, or another model comes: as if it had never been."""
        if self.task is not None:
            self.end_task(EGONE, "the model is gone")
        self.drop_spot_check()
        if self.arm != ORIGINAL:
            guest.post(0, (REVERTED, EGONE, -1, 0, (0.0,) * 4, ORIGINAL, "the model that was swapped trains no more"))
        self.restore()
        self.units, self.root, self.passed, self.loss, self.meter = None, None, set(), None, None

    # --- the model ----------------------------------------------------------------------------------------

    def follow_model(self, root):
        if root is None or (self.root is not None and self.root() is not root):
            self.stop()
        now = time.monotonic()
        if self.last_boundary is not None:
            self.step_seconds = now - self.last_boundary
        self.last_boundary = now

    def layers(self, root):
        if self.units is None:
            self.root, self.units, self.made_of = weakref.ref(root), survey(root), made_of(root)
        return self.units

    def layers_now(self, root):
        """The same for a swap: modules may have been replaced or compiled since."""
        if self.units is not None and self.made_of != made_of(root):
            if self.arm != ORIGINAL:
                self.revert(-1, "modules of the model were replaced or compiled")
            self.units, self.passed = None, set()
        return self.layers(root)

    def able(self):
        return [unit for unit in self.units or () if isinstance(unit, Unit)]

    def restore(self):
        for unit in self.units or ():
            if getattr(unit, "site", None) is not None and unit.site() is not None:
                unit.restore()
        self.arm = ORIGINAL

    # --- while another arm runs ---------------------------------------------------------------------------

    def look_after(self, root):
        if self.task is not None:
            self.go_on_with_task()
        if self.spot_task is not None:
            self.end_spot_check()
        if self.arm != ORIGINAL:
            why = self.trouble()
            if why:
                self.revert(*why)
                if not all(unit.weights.same_as_now() for unit in self.able() if unit.site() is not None):
                    self.units, self.passed = None, set()  # looked at anew for the next request

    def trouble(self):
        """(layer, sentence) when the running arm must not stay."""
        for unit in self.able():
            site = unit.site()
            if site is None:
                return unit.layer, "the layer is gone"
            if unit.installed() is None:
                unit.restore()
                return unit.layer, "somebody else replaced its forward"
            if not unit.weights.same_as_now():
                return unit.layer, "its weights are other ones now"
            failed = getattr(unit.installed().experts, "failed", None)
            if failed:
                return unit.layer, failed
        if self.loss is not None and self.loss.arrived():
            loss, self.loss = self.loss, None
            if not loss.finite():
                return -1, "the model's output was not finite in step %d" % loss.step
        return None

    def revert(self, layer, why):
        arm = self.arm
        self.restore()
        self.passed.discard(arm)
        self.last_code = ENOTSUP
        sentence = "%s%s" % ("layer %d: " % layer if layer >= 0 else "", why)
        guest.log(2, "swap: back to the job's own experts from step %d on: %s" % (guest.step(), sentence))
        guest.post(0, (REVERTED, 0, layer, 0, (0.0,) * 4, ORIGINAL, sentence))
        self.publish()

    def give_up(self, why):
        """An error of this code itself."""
        try:
            if self.task is not None:
                self.end_task(ENOTSUP, why)
            self.drop_spot_check()
            if self.arm != ORIGINAL:
                self.revert(-1, why)
            else:
                self.restore()
                guest.log(2, "swap: %s" % why)
        except Exception as error:
            guest.log(2, "swap: %s; then %s: %s" % (why, type(error).__name__, error))

    # --- requests -------------------------------------------------------------------------------------------

    def serve(self, root, ticket, kind, flags, name):
        if root is None:
            self.done(ticket, EGONE, "the model is gone")
        elif kind == MEMORY:
            self.memory(ticket, flags)
        elif kind == STATUS:
            self.layers(root)
            self.publish()
            guest.status(ticket)
        else:
            self.serve_swap(root, ticket, kind, flags, name)

    def serve_swap(self, root, ticket, kind, flags, name):
        units = self.layers_now(root)
        arm = ORIGINAL if name in (ORIGINAL, own_name(self.able())) else name
        if arm == ORIGINAL:
            if kind == SWAP:
                self.switch(arm, {})
            self.done(ticket)
            return
        code, why = self.refusal(units, arm, flags)
        if code:
            self.done(ticket, code, why)
        elif kind == SWAP and arm in self.passed and not flags & FRESH:
            self.switch(arm, self.experts_of(arm))
            self.done(ticket)
        else:
            self.task = Task(ticket, kind, flags, arm)
            self.start_task()

    def refusal(self, units, arm, flags):
        if not units:
            return EINVAL, "the model has no layers with experts"
        whys = {name: why for name, why, _ in arm_rows(units)}
        if arm != OURS and arm not in whys:
            return EINVAL, "there is no arm named '%s', but %s" % (arm, ", ".join([ORIGINAL, OURS, *whys]))
        if whys.get(arm):
            return ENOTSUP, whys[arm]
        if arm == OURS and guest.kernels():
            return ENOTSUP, guest.kernels()
        reasons = [(unit.layer, unit.reason) for unit in units if unit.reason]
        if reasons and (not flags & PARTIAL or len(reasons) == len(units)):
            more = " (and %d more layers)" % (len(reasons) - 1) if len(reasons) > 1 else ""
            return ENOTSUP, "layer %d cannot be swapped: %s%s" % (reasons[0] + (more,))
        return 0, ""

    def experts_of(self, arm):
        """{unit: its experts by that arm}; what a unit once made is kept while it may be used again."""
        return {unit: unit.kernel_call() if arm == OURS else arm_experts(unit, arm) for unit in self.able()}

    def switch(self, arm, experts):
        """From the next forward on. The one place where arms change."""
        if arm == self.arm:
            return
        self.drop_spot_check()
        self.restore()
        for unit, function in experts.items():
            unit.install(function, arm)
        self.arm, self.loss, self.last_code = arm, None, 0
        self.swaps += 1
        self.spot_next = guest.step() + SPOT_STEPS
        guest.log(0, "swap: %s from step %d on" % (arm if arm != ORIGINAL else "the job's own experts", guest.step()))
        guest.post(0, (SWAPPED, 0, -1, 0, (float(len(experts)), 0.0, 0.0, 0.0), arm, ""))
        self.publish()

    def weights_device(self):
        on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
        return next((unit.weights.tensors()[0].device for unit in self.able()), torch.device("cuda" if on_gpu else "cpu"))

    def memory(self, ticket, flags):
        values, device = (UNKNOWN,) * 4, self.weights_device()
        if device.type == "cuda":
            values = tuple(float(f(device)) for f in (torch.cuda.memory_allocated, torch.cuda.max_memory_allocated,
                                                      torch.cuda.memory_reserved, torch.cuda.max_memory_reserved))
            if flags & RESET:
                torch.cuda.reset_peak_memory_stats(device)
        if self.meter is not None:
            guest.post(ticket, (LOSS, 0, -1, 0, self.meter.values(), self.arm, ""))
        self.meter = Meter(device) if flags & RESET else None
        guest.post(ticket, (DONE, 0, -1, 0, values, self.arm, ""))

    def done(self, ticket, code=0, why=""):
        guest.post(ticket, (DONE, code, -1, 0, (0.0,) * 4, self.arm, why))
        if code and not ticket:
            guest.log(1, "swap: %s" % why)

    # --- parity -----------------------------------------------------------------------------------------------

    def start_task(self):
        units = self.able()
        rows = rows_for(units)
        self.task.experts = self.experts_of(self.task.arm)
        self.task.captures = [Capture(unit, rows, self.task.experts[unit], twice=unit is units[0]) for unit in units]

    def go_on_with_task(self):
        task = self.task
        if guest.cancelled():
            self.end_task(EGONE, "cancelled")
            return
        task.tries += 1
        if task.tries < STEPS_TO_WAIT and any(c.dout is None for c in task.captures):
            return
        for capture in task.captures:
            capture.remove()
        experts, results = task.experts, []
        for capture in task.captures:
            results.append(capture.result or check(capture.unit, experts[capture.unit], capture))
            capture.x = capture.dout = None
            post_parity(task.ticket, results[-1])
        failed = [result for result in results if result.why]
        if failed:
            self.passed.discard(task.arm)
            self.end_task(EPARITY, "layer %d: %s" % (failed[0].layer, failed[0].why))
            return
        self.passed.add(task.arm)
        if task.kind == SWAP:
            self.switch(task.arm, experts)
        self.end_task(0, next((each.note() for each in experts.values() if hasattr(each, "note")), ""))

    def end_task(self, code, why):
        task, self.task = self.task, None
        for capture in task.captures:
            capture.remove()
        self.done(task.ticket, code, why)

    # --- spot checks -------------------------------------------------------------------------------------------

    def start_spot_check(self):
        units = self.able()
        if guest.step() < self.spot_next or self.spot_task is not None or not units:
            return
        self.spot_at = (self.spot_at + 1) % len(units)
        unit = units[self.spot_at]
        self.spot_task = Capture(unit, SPOT_ROWS, unit.installed().experts)

    def drop_spot_check(self):
        if self.spot_task is not None:
            self.spot_task.remove()
            self.spot_task = None

    def end_spot_check(self):
        capture = self.spot_task
        self.drop_spot_check()
        begin = time.monotonic()
        installed = capture.unit.installed()
        if installed is None or capture.dout is None:
            self.spot_next = guest.step() + SPOT_STEPS
            return
        result = capture.result or check(capture.unit, installed.experts, capture)
        cost = time.monotonic() - begin
        self.spot_next = guest.step() + max(SPOT_STEPS, int(cost / SPOT_SHARE / max(self.step_seconds or 1.0, 1e-6)))
        if result.why:
            self.revert(result.layer, "spot check: %s" % result.why)

    # --- what STATUS shows ---------------------------------------------------------------------------------------

    def publish(self):
        units = self.units
        if units is None:
            return
        own_arm, able = own_name(self.able()), self.able()
        active = sum(unit.installed() is not None for unit in able)
        rows = [(STATE, self.last_code, -1, 0, (float(len(units)), float(len(able)), float(active), float(self.swaps)),
                 self.arm, own_arm)]
        kernels = guest.kernels()
        arms = [(ORIGINAL, "", "what the job itself runs: %s" % own_arm), (OURS, kernels, "the kernels of moeprof")]
        arms += arm_rows(units)
        rows += [(ARM, 0, -1, (0 if why or not able else YES) | (ACTIVE if name == self.arm else 0), (0.0,) * 4, name, why or text)
                 for name, why, text in arms]
        for unit in units:
            flags = (0 if unit.reason else YES) | (ACTIVE if unit.installed() is not None else 0)
            rows.append((LAYER, 0, unit.layer, flags, (0.0,) * 4, unit.title, unit.reason or unit.describe()))
        guest.publish(rows)


def made_of(root):
    """Another value when modules of the model are others, or one was compiled in place."""
    return hash(tuple((id(module), module.__dict__.get("_compiled_call_impl") is None) for module in root.modules()))


def graph_capture():
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def check(unit, experts, capture):
    """Parity of one layer, whatever happens."""
    try:
        if capture.failed is not None:
            raise capture.failed
        with same_dice(capture.x.device if capture.x is not None else None):
            return unit.inside(lambda: compare(unit, experts, capture))
    except Exception as error:
        why = str(error) if isinstance(error, Refused) else "%s: %s" % (type(error).__name__, error)
        return Result(unit.layer, why=why[:300])


def post_parity(ticket, result):
    values = known_or_nan(result.error, result.own_error, result.ratio, result.tokens)
    guest.post(ticket, (PARITY, 0, result.layer, 0 if result.why else YES, values, result.name, result.why or result.note))
    if result.out_cosine is not None:
        values = known_or_nan(result.out_cosine, result.own_out_cosine, result.cosine, result.own_cosine)
        flags = TWICE | result.repeats[0] * YES | result.repeats[1] * ACTIVE if result.repeats else 0
        guest.post(ticket, (COSINE, 0, result.layer, flags, values, result.gradient, ""))


def known_or_nan(*values):
    return tuple(UNKNOWN if value is None else float(value) for value in values)


def loss_like(output):
    """One number that a NaN anywhere reaches: the loss, or a sum over the last position's logits."""
    value = getattr(output, "loss", None)
    if value is None:
        value = output[0] if isinstance(output, (tuple, list)) else output
        value = getattr(output, "logits", value)
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return None
    value = value.detach()
    return value.reshape(()) if value.numel() == 1 else value[..., -1, :].sum() if value.dim() > 1 else value.sum()


class Loss:
    """A number on its way to the host; nobody waits for it."""

    def __init__(self, value, step):
        self.step, self.event = step, None
        if not value.is_cuda:
            self.value = value.clone()
            return
        self.value = torch.empty((), dtype=value.dtype, pin_memory=True)
        self.value.copy_(value, non_blocking=True)
        self.event = torch.cuda.Event()
        self.event.record()

    def arrived(self):
        return self.event is None or self.event.query()

    def finite(self):
        return bool(torch.isfinite(self.value))


swapper = Swapper()
