"""Writes the list of trainings that make up the GPU check: plan.py FOLDER [PAIRS]"""
import json
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QWEN = ["--model", "qwen3-30b"]
GROUPED = QWEN + ["--experts", "grouped_mm", "--layers", "8"]
EAGER = QWEN + ["--experts", "eager", "--layers", "2"]
SMALL = ["--vocab", "32768"]
# Where steps are compared, and the bursts of traced steps that lie in them: one each.
PAIRS = {"grouped": (QWEN + SMALL + ["--experts", "grouped_mm", "--layers", "4", "--steps", "22"], "1/2/8"),
         "eager": (QWEN + SMALL + ["--experts", "eager", "--layers", "1", "--steps", "12"], "1/2/5")}


def pairs(name, n):
    """Interleaved, the order turned round every time, so that drift hits both sides alike. One burst of traced steps in the
    steps that are compared: what it costs, evaluate.py spreads over the time that lies between two by default."""
    argv, bursts = PAIRS[name]
    jobs = []
    for i in range(n):
        two = [{"name": "%s-%s-%d" % (name, side, i), "argv": argv, "guest": side == "with",
                "env_add": {"MOEPROF": ",steps=" + bursts}} for side in ("without", "with")]
        jobs += two if i % 2 == 0 else two[::-1]
    return jobs


def coverage(folder):
    jobs = []
    for experts, layers in (("eager", "2"), ("grouped_mm", "4")):
        for checkpointing in ("none", "reentrant", "non-reentrant"):
            for lora in (False, True):
                name = "cover-%s-%s-%s" % (experts, checkpointing, "lora" if lora else "full")
                argv = QWEN + SMALL + ["--experts", experts, "--layers", layers, "--checkpointing", checkpointing, "--steps", "6",
                                       "--routing", os.path.join(folder, name + ".routing.json")]
                jobs.append({"name": name, "argv": argv + (["--lora"] if lora else []), "guest": True})
    jobs.append({"name": "cover-deepseek", "guest": True,
                 "argv": ["--model", "deepseek-v3", "--layers", "2", "--steps", "6", "--tokens", "2048",
                          "--routing", os.path.join(folder, "cover-deepseek.routing.json")]})
    jobs.append({"name": "cover-packed", "guest": True,
                 "argv": QWEN + SMALL + ["--layers", "4", "--steps", "6", "--data", "packed", "--accum", "2"]})
    jobs.append({"name": "cover-padded", "guest": True,
                 "argv": QWEN + SMALL + ["--layers", "4", "--steps", "6", "--data", "padded", "--batch", "4", "--tokens", "1024"]})
    return jobs


def against_torch_profiler(folder):
    """Deterministic, so that routing and with it the number of an eager loop's kernels is the same in each."""
    jobs = []
    for name, argv in (("grouped", GROUPED + ["--steps", "12"]), ("eager", EAGER + ["--steps", "10"])):
        argv = argv + ["--deterministic"]
        jobs.append({"name": "torch-%s-plain" % name, "argv": argv, "guest": True, "env_add": {"MOEPROF": ",steps=all"}})
        for guest in (False, True):
            job = "torch-%s-%s" % (name, "with" if guest else "alone")
            extra = ["--torch-profiler", os.path.join(folder, job + ".json"), "--profile-from", "4", "--profile-steps", "3"]
            if not guest:
                extra += ["--torch-trace", os.path.join(folder, job + ".trace.json")]
            jobs.append({"name": job, "argv": argv + extra, "guest": guest})
    return jobs


def identical(folder):
    argv = QWEN + SMALL + ["--layers", "2", "--steps", "20", "--deterministic", "--tokens", "1024"]
    return [{"name": "same-%s-%s" % (experts, side), "guest": side == "with",
             "argv": argv + ["--experts", experts, "--print-losses", os.path.join(folder, "same-%s-%s.json" % (experts, side))]}
            for experts in ("eager", "grouped_mm") for side in ("without", "with")]


def overhead(folder):
    """Hooks on and off inside one process: what pairs of processes are too unlike for."""
    return [{"name": "overhead-" + name, "guest": True, "script": os.path.join(ROOT, "tests", "gpu", "overhead.py"),
             "argv": [name, "45", os.path.join(folder, "overhead-%s.json" % name)], "env_add": {"MOEPROF": ",steps=1/2/%d" % rest}}
            for name, rest in (("grouped", 60), ("eager", 24))]  # a few bursts in what 45 s hold


def main():
    folder, n = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10
    truth = {"name": "truth", "guest": True, "script": os.path.join(ROOT, "tests", "gpu", "truth_eager.py"),
             "argv": [os.path.join(folder, "truth.txt"), os.path.join(os.environ.get("B", "build"), "dump_shm"), "2"]}
    parts = {"coverage": coverage(folder), "truth": [truth], "torch": against_torch_profiler(folder),
             "same": identical(folder), "overhead": overhead(folder),
             "pairs": [job for name in PAIRS for job in pairs(name, n)]}
    wanted = os.environ.get("PARTS", "coverage truth torch same overhead").split()
    jobs = [job for part in wanted for job in parts[part]]
    json.dump(jobs, open(os.path.join(folder, "jobs.json"), "w"), indent=1)


if __name__ == "__main__":
    main()
