"""What CUPTI costs a training in each state that the guest could leave it in. launch_cost.py [WORKLOAD..]

One process a workload (tiny, eager, grouped, clock), forked from one that has imported torch. A process goes through the
states several times, so that each is measured beside the others. No guest: CUPTI is called directly.
"""
import ctypes
import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "samples"))

LAUNCHES = [307, 442, 477, 478, 652, 653, 514, 515, 306, 418, 276, 277, 278, 279, 280, 281, 289, 291, 216, 218, 220]
KINDS = [10, 1, 22, 2]  # concurrent kernel, memcpy, peer copy, memset
FORCED = 1
BUFFER_BYTES = 1 << 20
CYCLES = 3
REQUEST = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t))
COMPLETE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
CLOCK = ctypes.CFUNCTYPE(ctypes.c_uint64)


class Cupti:
    def __init__(self):
        import torch
        maps = open("/proc/self/maps").read().split()
        self.lib = ctypes.CDLL(next(word for word in maps if "libcupti.so" in word))
        self.subscriber, self.free, self.held, self.records = ctypes.c_void_p(), [], {}, []
        self.pair = REQUEST(self.request), COMPLETE(self.complete)
        self.nothing = ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p)  # a native function that may be called with anything
        self.torch, self.keep = torch, False

    def request(self, buffer, size, most):
        memory = self.free.pop() if self.free else ctypes.create_string_buffer(BUFFER_BYTES)
        self.held[ctypes.addressof(memory)] = memory
        buffer[0], size[0], most[0] = ctypes.addressof(memory), BUFFER_BYTES, 0

    def complete(self, context, stream, buffer, size, valid):
        memory, record = self.held.pop(buffer), ctypes.c_void_p()
        while self.keep and self.lib.cuptiActivityGetNextRecord(ctypes.c_void_p(buffer), ctypes.c_size_t(valid), ctypes.byref(record)) == 0:
            if ctypes.c_uint32.from_address(record.value).value == 10:
                self.records.append(ctypes.c_uint64.from_address(record.value + 16).value)
        self.free.append(memory)

    def call(self, name, *args):
        rc = getattr(self.lib, name)(*args)
        if rc:
            print("    %s: error %d" % (name, rc))
        return rc

    def subscribe(self):
        self.call("cuptiSubscribe", ctypes.byref(self.subscriber), self.nothing, None)

    def callbacks(self, on):
        for cbid in LAUNCHES:
            self.call("cuptiEnableCallback", on, self.subscriber, 1, cbid)

    def kinds_on(self):
        self.call("cuptiActivityRegisterCallbacks", *self.pair)
        for kind in KINDS:
            self.call("cuptiActivityEnable", kind)

    def kinds_off(self):
        for kind in KINDS:
            self.call("cuptiActivityDisable", kind)
        self.call("cuptiActivityFlushAll", FORCED)

    def off(self):
        self.callbacks(0)
        self.kinds_off()

    def unsubscribe(self):
        self.call("cuptiUnsubscribe", self.subscriber)

    def finalize(self):
        self.call("cuptiFinalize")


def states(cupti):
    """(name, how to get there from the one before)"""
    return [("subscribed", cupti.subscribe), ("launch callbacks on", lambda: cupti.callbacks(1)), ("and kinds on", cupti.kinds_on),
            ("all off, subscribed", cupti.off), ("unsubscribed", cupti.unsubscribe), ("finalized", cupti.finalize)]


def measure(work, repeats):
    import torch
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return times


def walk(name, work, unit, scale, repeats):
    cupti, seen, moves = Cupti(), {}, {}
    measure(work, 3 * repeats)
    seen["no CUPTI"] = measure(work, 2 * repeats)
    for _ in range(CYCLES):
        for state, go in states(cupti):
            started = time.perf_counter()
            go()
            moves.setdefault(state, []).append(1e3 * (time.perf_counter() - started))
            times = measure(work, repeats + 1)
            moves[state].append(1e3 * (times[0] - statistics.median(times)))  # what the first one pays
            seen.setdefault(state, []).extend(times[1:])
    base = statistics.median(seen["no CUPTI"])
    for state, times in seen.items():
        median = statistics.median(times)
        gone = " ".join("%.1f" % ms for ms in moves.get(state, []))
        print("%-8s %-22s %9.3f %s  %+6.2f %%   least %9.3f   to get there, first round after (ms): %s" %
              (name, state, median * scale, unit, 100 * (median / base - 1), min(times) * scale, gone), flush=True)


def tiny():
    import torch
    x, big = torch.zeros(16, device="cuda"), torch.zeros(1 << 24, device="cuda")

    def launches():
        for _ in range(4000):
            x.add_(1)

    def busy():
        for _ in range(400):
            big.add_(1)

    walk("tiny", launches, "us a launch", 1e6 / 4000, 5)
    walk("busy GPU", busy, "us a kernel", 1e6 / 400, 5)


def training(name, argv, repeats):
    import common
    args = common.options("").parse_args(argv)
    torch = common.prepare(args)
    model = common.make_model(args)
    batch = {key: value.to(args.device) for key, value in common.Tokens(args, model.config.vocab_size)().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, fused=True)

    def step():
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    walk(name, step, "ms a step", 1e3, repeats)


def eager():
    training("eager", ["--model", "qwen3-30b", "--experts", "eager", "--layers", "1", "--vocab", "32768"], 3)


def grouped():
    training("grouped", ["--model", "qwen3-30b", "--experts", "grouped_mm", "--layers", "4", "--vocab", "32768"], 6)


def clock():
    """In which clock kernels are stamped when another profiler registers one of its own, and afterwards."""
    import torch
    cupti, x = Cupti(), torch.zeros(16, device="cuda")
    cupti.keep = True
    monotonic, realtime = CLOCK(time.monotonic_ns), CLOCK(time.time_ns)

    def look(what):
        cupti.records.clear()
        before = time.time_ns(), time.monotonic_ns()
        for _ in range(300):
            x.add_(1)
        torch.cuda.synchronize()
        cupti.call("cuptiActivityFlushAll", 0)
        after = time.time_ns(), time.monotonic_ns()
        is_in = [sum(a <= start <= b for start in cupti.records) for a, b in zip(before, after)]
        print("clock    %-60s %4d records: %4d CLOCK_REALTIME, %4d CLOCK_MONOTONIC, %4d neither" %
              (what, len(cupti.records), *is_in, len(cupti.records) - sum(is_in)), flush=True)

    cupti.kinds_on()
    look("CUPTI's own")
    cupti.call("cuptiActivityRegisterTimestampCallback", monotonic)
    look("monotonic registered while kinds are on")
    look("again")
    cupti.kinds_off()
    cupti.call("cuptiActivityRegisterTimestampCallback", realtime)
    cupti.kinds_on()
    look("kinds off, realtime registered, on")
    look("again")
    cupti.kinds_off()
    cupti.call("cuptiActivityRegisterTimestampCallback", monotonic)
    cupti.kinds_on()
    look("kinds off, monotonic registered, on")
    cupti.kinds_off()
    cupti.finalize()
    cupti.kinds_on()
    look("finalized, kinds on")
    cupti.kinds_off()
    cupti.finalize()
    cupti.call("cuptiActivityRegisterTimestampCallback", monotonic)
    cupti.kinds_on()
    look("finalized, monotonic registered, on")
    cupti.kinds_off()
    cupti.call("cuptiActivityRegisterTimestampCallback", None)
    cupti.kinds_on()
    look("none registered")
    cupti.kinds_off()


def main():
    import torch  # noqa: F401  once, without touching CUDA
    import transformers.models.qwen3_moe.modeling_qwen3_moe  # noqa: F401
    for name in sys.argv[1:] or ["clock", "tiny", "eager", "grouped"]:
        pid = os.fork()
        if pid == 0:
            globals()[name]()
            sys.stdout.flush()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            print("%s ended with %d" % (name, status), flush=True)


if __name__ == "__main__":
    main()
