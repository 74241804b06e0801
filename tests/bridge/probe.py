"""Kernels of a job of CPU tensors: "launched" where its code says, through the real guest's launch callback.

The job says with each kernel where its time belongs (`Truth`); the guest says where it would be booked. Only the kernel
is made up: modules, hooks, autograd, checkpoints and compiled regions are torch's own. A backward runs on a thread of
its own, as that of GPU tensors does.
"""
import contextlib
import ctypes
import threading
import time

import torch

PHASES = ("other", "embed", "attention", "norm", "router", "dispatch", "expert", "combine", "shared_expert", "dense_mlp",
          "lm_head", "loss", "optimizer", "gradient", "comm", "copy")
PASSES = ("forward", "recompute", "backward", "update")


class Place(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("layer", "expert", "phase", "passed")]


class Truth:
    """What the job itself knows of what it is doing."""

    def __init__(self):
        self.layer, self.passed = -1, "forward"

    @contextlib.contextmanager
    def at(self, **known):
        before = dict(self.__dict__)
        self.__dict__.update(known)
        try:
            yield
        finally:
            self.__dict__.update(before)


class Gpu:
    def __init__(self, library, folder):
        self.truth, self.rows, self.names, self.on = Truth(), [], {}, False
        self.library = ctypes.PyDLL(library)
        self.library.moeprof_attach(("dir=%s,session=t,cuda=none" % folder).encode())
        time.sleep(0.3)

    def wait(self):
        """Until the guest, which a model woke, takes launches."""
        for _ in range(100):
            if self._launch("nothing", ()) is not None:
                self.on = True
                return
            time.sleep(0.05)
        raise RuntimeError("the guest never woke")

    def _launch(self, name, tensors):
        text = self.names.setdefault(name, ctypes.create_string_buffer(name.encode()))  # the address is its handle
        words = (ctypes.c_uint64 * 16)(*(t.data_ptr() for t in tensors))
        place = Place()
        if self.library.probe_launch(text, words, ctypes.c_size_t(16), ctypes.byref(place)):
            return None
        return place.layer, PHASES[place.phase], PASSES[place.passed]

    def kernel(self, name, phase, *tensors, **known):
        """One kernel that reads `tensors`, of the phase that the job says; None: it cannot say."""
        if not self.on:
            return
        with self.truth.at(**known):
            self.rows.append((name, (self.truth.layer, phase, self.truth.passed), self._launch(name, tensors)))

    def backward(self, loss):
        failed = []

        def run():
            try:
                loss.backward()
            except BaseException as error:
                failed.append(error)
        thread = threading.Thread(target=run)
        with self.truth.at(passed="backward"):
            thread.start()
            thread.join()
        if failed:
            raise failed[0]

    def wrong(self):
        """The kernels that were booked elsewhere, each kind once."""
        return sorted({row for row in self.rows if any(said is not None and said != got for said, got in zip(row[1], row[2]))},
                      key=str)


VIEWS = ("view", "reshape", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "detach", "alias", "slice", "select",
         "split", "getitem", "unbind", "as_strided", "_unsafe_view", "sym_size", "lift_fresh_copy")


def kernel_name(target):
    op = getattr(getattr(target, "_overloadpacket", None), "__name__", getattr(target, "__name__", str(target)))
    if op in VIEWS or "_scalar" in op:
        return None
    if op in ("mm", "addmm", "bmm", "baddbmm"):
        return "nvjet_%s" % op
    return "flash_%s" % op if "attention" in op else "triton_poi_fused_%s" % op


def compiler(gpu, phase_of, layer_of=None):
    """A backend for torch.compile whose compiled code launches one kernel for each operation of the graph. Without
    layer_of the job knows which layer runs."""
    from torch._dynamo.backends.common import aot_autograd

    class Launching(torch.fx.Interpreter):
        def run_node(self, node):
            name = kernel_name(node.target) if node.op == "call_function" else None
            if name:
                tensors = [self.env[n] for n in node.all_input_nodes if isinstance(self.env.get(n), torch.Tensor)]
                gpu.kernel(name, phase_of(node), *tensors, **({"layer": layer_of(node)} if layer_of else {}))
            return super().run_node(node)

    def compiled(graph, _):
        run = Launching(graph)
        run.garbage_collect_values = False
        return torch._dynamo.disable(lambda *inputs: run.run(*inputs))

    def boxed(graph, example):
        from functorch.compile import make_boxed_func
        return make_boxed_func(compiled(graph, example))
    return aot_autograd(fw_compiler=boxed, bw_compiler=boxed)
