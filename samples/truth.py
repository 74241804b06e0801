"""Which expert's matmuls did which kernels run? An answer that owes nothing to moeprof, for the eager loop.

In the forward, a mode on torch's functions sees every linear() whose weight lies inside the weights of an expert and
puts a profiler range with (layer, expert) around it. In the backward, torch.profiler links each autograd node to
the forward operation that made it by its sequence number. Kernels belong to the operation that launched them.
Activation checkpointing replays the forward on another thread, which the mode does not see: do not use both.
"""
import bisect
import collections

import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import record_function

LABEL = "expert matmul "
CPU_MATMULS = ("aten::mm", "aten::addmm")  # without a GPU the operations themselves stand for kernels


def layer_of(name):
    return int(next(word for word in name.split(".") if word.isdigit()))


def expert_ranges(model):
    """Sorted (first address, end, layer, expert), from stacked weights and from ModuleLists."""
    ranges = []
    for name, p in model.named_parameters():
        if ".experts." not in name or "lora_" in name:
            continue
        if p.dim() == 3:
            size = p.stride(0) * p.element_size()
            ranges += [(p.data_ptr() + e * size, p.data_ptr() + (e + 1) * size, layer_of(name), e) for e in range(p.shape[0])]
        elif p.dim() == 2:
            expert = int(name.split(".experts.")[1].split(".")[0])
            ranges.append((p.data_ptr(), p.data_ptr() + p.numel() * p.element_size(), layer_of(name), expert))
    return sorted(ranges)


class Labels(TorchFunctionMode):
    def __init__(self, model):
        super().__init__()
        self.ranges = expert_ranges(model)
        self.starts = [entry[0] for entry in self.ranges]

    def label(self, weight):
        i = bisect.bisect_right(self.starts, weight.data_ptr()) - 1
        if i >= 0 and weight.data_ptr() < self.ranges[i][1]:
            return LABEL + "%d %d" % self.ranges[i][2:]
        return None

    def __torch_function__(self, function, types, args=(), kwargs=None):
        label = self.label(args[1]) if function is torch.nn.functional.linear else None
        if label is None:
            return function(*args, **(kwargs or {}))
        with record_function(label):
            return function(*args, **(kwargs or {}))


def label_above(event):
    while event is not None and not event.name.startswith(LABEL):
        event = event.cpu_parent
    return event.name[len(LABEL):] if event is not None else None


def node_above(event):
    """The sequence number of the autograd node under which an operation of the backward ran."""
    while event is not None and not event.name.startswith("autograd::engine::evaluate_function"):
        event = event.cpu_parent
    return event.sequence_nr if event is not None else None


def work_of(event, on_gpu):
    if on_gpu:
        return [(kernel.name, kernel.duration) for kernel in event.kernels]
    return [(event.name, event.self_cpu_time_total)] if event.name in CPU_MATMULS else []


def cells(profile):
    """[{layer, expert, pass, kernels, microseconds, names}] of the matmuls of experts."""
    events = [event for event in profile.events() if "CPU" in str(event.device_type)]
    on_gpu = any(event.kernels for event in events)
    made_by = {event.sequence_nr: label_above(event) for event in events if event.sequence_nr >= 0 and label_above(event)}
    table = collections.defaultdict(lambda: [0, 0.0, collections.Counter()])
    for event in events:
        work = work_of(event, on_gpu)
        label, way = label_above(event) if work else None, "forward"
        if work and label is None:
            label, way = made_by.get(node_above(event)), "backward"
        if label is not None:
            row = table[label, way]
            row[0] += len(work)
            row[1] += sum(microseconds for _, microseconds in work)
            row[2].update(name for name, _ in work)
    return [{"layer": int(label.split()[0]), "expert": int(label.split()[1]), "pass": way, "kernels": count,
             "microseconds": microseconds, "names": dict(names)}
            for (label, way), (count, microseconds, names) in sorted(table.items())]
