"""A stand-in for the builtin module `_moeprof`: the same functions, in Python, that write down what they were told.

It is strict about the contract (injector/BRIDGE.md), so that a wrong call fails here and not in C, and it
computes what the C side computes (pairs, useful tokens, tokens per expert), so that both can be compared.
"""
import json
import pathlib

import torch

HOOK = pathlib.Path(__file__).resolve().parents[2] / "injector" / "hook.py"
PARTS = ("hook", "hook_model", "hook_spec", "hook_tokens", "hook_session")  # in the order of injector/pybridge.c
UNKNOWN, MEASURED, APPORTIONED, MODELLED = range(4)
PHASES = ("other", "embed", "attention", "norm", "router", "dispatch", "expert", "combine", "shared_expert", "dense_mlp",
          "lm_head", "loss", "optimizer", "gradient", "comm", "copy")


def pairs_of(length, window):
    """Causal pairs of one segment; a window of w tokens includes the token itself."""
    return sum(min(i + 1, window or length) for i in range(length))


def segments_of(mask, positions):
    """Lengths of the segments of one row: a new one wherever the position does not go on from the last useful token."""
    lengths, last = [], None
    for i in range(len(mask)):
        if not mask[i]:
            continue
        here = positions[i] if positions is not None else None
        if not lengths or (here is not None and here != last + 1):
            lengths.append(0)
        lengths[-1] += 1
        last = here
    return lengths


class FakeGuest:
    def __init__(self):
        self.events = []       # everything that happened, in order
        self.step = 0
        self.step_ends = 0
        self.micros = []       # dicts
        self.pairs_seen = []   # (step, window, useful, processed, max_len, basis)
        self.routing = {}      # step -> layer -> list of counts
        self.expert_rows = {}  # step -> layer -> list of counts, from ModuleList experts
        self.ranges = []
        self.specs = []
        self.logs = []
        self.off = []
        self.awake = 0
        self.stack = []
        self.in_micro = False
        self.in_update = False
        self.traced = True     # the running step, and from step_end on the next one

    def tracing(self):
        return self.traced

    def pending(self):
        return False  # tools that ask for a swap: test_swap.py, under the real guest

    # --- scopes ---

    def scope_hooks(self, layer, phase, depth):
        assert isinstance(layer, int) and phase in PHASES and depth in (1, 2, 3)

        def enter(*args):
            del self.stack[depth:]
            self.stack += [None] * (depth - len(self.stack)) + [(layer, phase)]
            self.note("enter", layer, phase, depth)

        def leave(*args):
            del self.stack[depth:]
            self.note("leave", layer, phase, depth)
        return enter, leave

    def replaying(self):
        return torch._C._current_graph_task_id() != -1

    def note(self, *what):
        self.events.append(what + (self.kind_of_pass(),))

    def kind_of_pass(self):
        return "recompute" if self.replaying() else "forward" if self.in_micro else "eval"

    def counts(self, table, layer, n):
        return table.setdefault(self.step, {}).setdefault(layer, [0] * n)

    def expert_hook(self, layer, expert):
        def hook(module, args, *_):
            if self.in_micro and not self.replaying():
                row = self.expert_rows.setdefault(self.step, {}).setdefault(layer, {})
                row[expert] = row.get(expert, 0) + args[0].numel() // args[0].shape[-1]
            self.note("expert", layer, expert)
        return hook

    def count(self, layer, n, indices):
        assert not indices.is_floating_point()
        if self.in_micro and not self.replaying():
            row = self.counts(self.routing, layer, n)
            for e in indices.flatten().tolist():
                if 0 <= e < n:
                    row[e] += 1

    def routing_hook(self, layer, n_experts, index_arg, kw_name):
        def hook(module, args, kwargs):
            self.count(layer, n_experts, args[index_arg] if index_arg < len(args) else kwargs[kw_name])
        return hook

    def routing_out_hook(self, layer, n_experts, out_index):
        def hook(module, args, output):
            self.count(layer, n_experts, output[out_index])
        return hook

    def routing_list_hook(self, layer, n_experts, index_arg, kw_name):
        def hook(module, args, kwargs):
            sizes = args[index_arg] if index_arg < len(args) else kwargs[kw_name]
            if self.in_micro and not self.replaying():
                row = self.counts(self.routing, layer, n_experts)
                for e, rows in enumerate(sizes):
                    row[e] += rows
        return hook

    # --- weights ---

    def set_ranges(self, ranges):
        for item in ranges:
            pointer, size, layer, phase, slices, name = item[:6]
            assert pointer > 0 and size > 0 and phase in PHASES and slices >= 1 and isinstance(name, int), item
            assert size % slices == 0 and len(item) in (6, 7)
        starts = sorted((item[0], item[0] + item[1]) for item in ranges)
        assert all(end <= start for (_, end), (start, _) in zip(starts, starts[1:])), "ranges overlap"
        self.ranges = list(ranges)

    # --- micro-batches and steps ---

    def micro_begin(self):
        self.stack[:] = [(-1, "embed")]
        self.in_micro = True
        self.note("micro_begin")

    def micro(self, processed, useful, trainable, head_rows, n_segment, batch, useful_basis):
        for value in (processed, useful, trainable, head_rows, n_segment, batch):
            assert value is None or (isinstance(value, int) and value >= 0)
        self.micros.append(dict(step=self.step, processed=processed, useful=useful, trainable=trainable,
                                head_rows=head_rows, n_segment=n_segment, batch=batch, basis=useful_basis))

    def micro_mask(self, mask, labels, position_ids, windows):
        given = next(t for t in (mask, labels, position_ids) if t is not None)
        batch, length = given.shape
        rows = [[1] * length] * batch if mask is None else mask.tolist()
        places = [None] * batch if position_ids is None else position_ids.tolist()
        micro = self.micros[-1]
        if mask is not None:
            micro.update(useful=int((mask != 0).sum()), basis=MEASURED)
        if labels is not None:
            micro["trainable"] = int((labels != -100).sum())
        lengths = [one for row, place in zip(rows, places) for one in segments_of(row, place)]
        if windows:
            micro["n_segment"] = len(lengths)
        for window in windows:
            self.pairs(window, sum(pairs_of(one, window) for one in lengths), batch * pairs_of(length, window),
                       max(lengths), MEASURED)

    def pairs(self, window, useful, processed, max_len, basis):
        assert 0 <= useful <= processed
        self.pairs_seen.append((self.step, window, useful, processed, max_len, basis))

    def micro_end(self):
        self.in_micro = False
        self.note("micro_end")

    def optimizer_begin(self):
        self.in_update = True
        self.note("optimizer_begin")

    def optimizer_end(self):
        self.in_update = False
        self.note("optimizer_end")

    def step_end(self, late=False):
        self.note("step_end")
        self.step += 1

    # --- the rest ---

    def set_spec(self, text):
        assert isinstance(text, str)
        self.specs.append(json.loads(text))

    def log(self, level, text):
        assert level in (0, 1, 2)
        self.logs.append((level, text))

    def feature_off(self, name, why):
        assert name in ("python", "autograd", "routing", "tokens", "ranges", "swap")
        self.off.append((name, why))

    def wake(self):
        self.awake += 1

    # --- for tests ---

    @property
    def spec(self):
        return self.specs[-1]

    def scopes(self, kind="forward"):
        """(layer, phase, depth) in the order in which they were entered, in one kind of pass."""
        return [event[1:4] for event in self.events if event[0] == "enter" and event[-1] == kind]


def load(guest=None):
    """The globals of hook.py, executed as the guest does; without a guest only its pure functions are of use."""
    scope = {"__name__": "moeprof_hook"}
    if guest is not None:
        scope["_moeprof"] = guest
    for part in PARTS:
        exec(compile(HOOK.with_name(part + ".py").read_text(), "<moeprof %s>" % part, "exec"), scope)
    return scope
