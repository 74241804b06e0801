"""What the guest costs an untraced step, inside one process: overhead.py [eager|grouped|tiny] [BLOCKS]

    MOEPROF=leave=1,steps=2/2/1000000 CUDA_INJECTION64_PATH=build/libmoeprof.so python3 tests/gpu/overhead.py eager 24

Blocks of steps in the order ABBA, with the guest's hooks on the model (A) and without any (B): one process, one model,
the same memory, so that what processes differ by (5 % and more on a shared machine) does not hide half a percent.
CUPTI is as the guest leaves it after its first burst, in both; launch_cost.py says what that costs.
"""
import gc
import math
import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "samples"))
QWEN = ["--model", "qwen3-30b", "--vocab", "32768"]
TRAININGS = {"eager": (QWEN + ["--experts", "eager", "--layers", "1"], 3),
             "grouped": (QWEN + ["--experts", "grouped_mm", "--layers", "4"], 10),
             "tiny": (["--model", "tiny", "--device", "cpu", "--experts", "eager"], 20)}


class Guest:
    """Its Python part, which nobody outside holds: hooks off, hooks on."""

    def __init__(self):
        self.session = next(o for o in gc.get_objects() if type(o).__name__ == "Session" and hasattr(o, "updaters"))
        self.awake = True

    def be(self, awake):
        if self.awake and not awake:
            self.session.stop()
        elif awake and not self.awake:
            self.session = type(self.session)()
        self.awake = awake


def main():
    import common
    name, blocks = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 24
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

    def block():
        for _ in range(2):  # the guest finds the model again, and what it left behind settles
            step()
        times = []
        for _ in range(steps):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    first = time.perf_counter()
    while time.perf_counter() < first + 3:  # the first burst is over, CUPTI as it stays
        step()
    guest, seen = Guest(), {True: [], False: []}
    for i in range(blocks):
        for awake in ((True, False), (False, True))[i % 2]:
            guest.be(awake)
            seen[awake].append(block())
    ratios = [a / b - 1 for a, b in zip(seen[True], seen[False])]
    print("%s: %.2f ms with hooks, %.2f without; median %+.2f %%, mean %+.2f %% +- %.2f (standard error), %d pairs of blocks of %d steps" %
          (name, 1e3 * statistics.median(seen[True]), 1e3 * statistics.median(seen[False]), 100 * statistics.median(ratios),
           100 * statistics.mean(ratios), 100 * statistics.stdev(ratios) / math.sqrt(len(ratios)), len(ratios), steps))


main()
