"""What the guest costs a step, inside one process: overhead.py eager|grouped|tiny [SECONDS] [OUT.json]

    MOEPROF=steps=1/2/60 CUDA_INJECTION64_PATH=build/libmoeprof.so python3 tests/gpu/overhead.py eager 60

Blocks of steps in the order ABBA, with the guest's hooks on the model (A) and without any (B): one process, one model,
the same memory, so that what processes differ by (5 % and more on a shared machine) does not hide half a percent.
Between its bursts of traced steps the guest has left CUPTI, in A and B alike; launch_cost.py says that nothing of it stays.
A block with a burst in it is not compared; it says what a burst costs, and is followed by steps that are not timed, until
the guest has left CUPTI again.
"""
import gc
import itertools
import json
import math
import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "samples"))
QWEN = ["--model", "qwen3-30b", "--vocab", "32768"]
TRAININGS = {"eager": (QWEN + ["--experts", "eager", "--layers", "1"], 6),
             "grouped": (QWEN + ["--experts", "grouped_mm", "--layers", "4"], 10),
             "tiny": (["--model", "tiny", "--device", "cpu", "--experts", "eager"], 20)}
BURST = 2    # traced steps in a burst, by steps=1/2/60
AFTER = 8    # steps after a burst in which the guest reads what CUPTI holds, and leaves


class Guest:
    """Its Python part, which nobody outside holds: hooks off, hooks on."""

    def __init__(self, gpu):
        self.gpu = gpu
        self.session = next(o for o in gc.get_objects() if type(o).__name__ == "Session" and hasattr(o, "updaters"))
        self.awake = True
        self.inside = type(self.session).end_step.__globals__["guest"]

    def traced(self):
        """The step that has just run. Without a GPU the guest takes every step for traced."""
        return self.gpu and self.awake and self.inside.tracing()

    def be(self, awake):
        if self.awake and not awake:
            self.session.stop()
        elif awake and not self.awake:
            self.session = type(self.session)()
        self.awake = awake


def summary(seen, bursts):
    ratios = [statistics.median(a) / statistics.median(b) - 1 for a, b in seen]
    q = statistics.quantiles(ratios, n=4)
    return {"pairs": len(ratios), "steps": len(seen[0][0]), "median": statistics.median(ratios), "quartiles": [q[0], q[2]],
            "mean": statistics.mean(ratios), "standard_error": statistics.stdev(ratios) / math.sqrt(len(ratios)),
            "with_seconds": statistics.median(statistics.median(a) for a, _ in seen),
            "without_seconds": statistics.median(statistics.median(b) for _, b in seen),
            "bursts": len(bursts), "burst_seconds": statistics.median(bursts) if bursts else None}


def main():
    import common
    name, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60
    argv, steps = TRAININGS[name]
    args = common.options("").parse_args(argv)
    torch = common.prepare(args)
    model = common.make_model(args)
    batch = {key: value.to(args.device) for key, value in common.Tokens(args, model.config.vocab_size)().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)

    def step():
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    def block(guest):
        traced = 0
        for _ in range(2):  # the guest finds the model again, and what it left behind settles
            step()
            traced += guest.traced()
        times, late = [], traced
        for _ in range(steps):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
            traced += guest.traced()
        for _ in range(AFTER if traced else 0):
            step()
        return times, traced, not late and traced == BURST

    if "--attach" in sys.argv:  # tests without a GPU
        import ctypes
        ctypes.PyDLL(os.environ["MOEPROF_GUEST"]).moeprof_attach(b"cuda=none")
    first = time.perf_counter()
    while time.perf_counter() < first + 3:  # the first burst is over, CUPTI as it stays
        step()
    guest, seen, bursts, started = Guest(args.device != "cpu"), [], [], time.perf_counter()
    for i in itertools.count():
        took = time.perf_counter() - started
        if took > seconds and (len(seen) >= 10 or took > 3 * seconds and len(seen) > 1):
            break
        found = {}
        for awake in ((True, False), (False, True))[i % 2]:
            guest.be(awake)
            found[awake] = block(guest)
        (a, traced, whole), (b, _, _) = found[True], found[False]
        if not traced:
            seen.append((a, b))
        elif whole:
            bursts.append(sum(a) - len(a) * statistics.median(b))
    found = summary(seen, bursts)
    print("%s: %.2f ms with hooks, %.2f without; median %+.2f %% (quartiles %+.2f %+.2f), mean %+.2f %% +- %.2f (standard error), "
          "%d pairs of blocks of %d steps; %s" % (
              name, 1e3 * found["with_seconds"], 1e3 * found["without_seconds"], 100 * found["median"],
              100 * found["quartiles"][0], 100 * found["quartiles"][1], 100 * found["mean"], 100 * found["standard_error"],
              found["pairs"], found["steps"], "no burst" if not bursts else "%d bursts of %.1f ms" % (len(bursts), 1e3 * found["burst_seconds"])),
          flush=True)
    if len(sys.argv) > 3 and sys.argv[3].endswith(".json"):
        json.dump(found, open(sys.argv[3], "w"))


main()
