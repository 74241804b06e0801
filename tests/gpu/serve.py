"""Runs a list of trainings one after the other, each in a fork of a process that has imported torch once.

    moeprof run -o DIR/p.moeprof -- python3 tests/gpu/serve.py DIR JOBS.json

JOBS.json: [{"name", "argv", "guest": bool, "env": {}, "env_add": {}, "script": path of a script (default: the plain sample)}].
A job without the guest runs in the same way, only that CUDA finds no injection library. Output: DIR/NAME.log
and DIR/jobs.jsonl with {"name", "pid", "seconds", "status"}.
"""
import json
import os
import runpy
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SAMPLE = os.path.join(ROOT, "samples", "train_plain.py")


def child(job, folder):
    log = os.open(os.path.join(folder, job["name"] + ".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if not job.get("guest"):
        os.environ.pop("CUDA_INJECTION64_PATH", None)
        os.environ.pop("LD_PRELOAD", None)
    os.environ.update(job.get("env", {}))
    for name, text in job.get("env_add", {}).items():
        os.environ[name] = os.environ.get(name, "") + text
    script = job.get("script", SAMPLE)
    sys.argv = [script, *job["argv"]]
    sys.path.insert(0, os.path.dirname(SAMPLE))
    runpy.run_path(script, run_name="__main__")


def run(job, folder):
    started = time.time()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child(job, folder)
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush()
        sys.exit(status)  # through the interpreter's own end, as a job of its own would
    _, status = os.waitpid(pid, 0)
    return {"name": job["name"], "pid": pid, "seconds": time.time() - started, "status": os.waitstatus_to_exitcode(status)}


def main():
    folder, jobs = sys.argv[1], json.load(open(sys.argv[2]))
    import torch  # noqa: F401  once, without touching CUDA
    import transformers.models.qwen3_moe.modeling_qwen3_moe  # noqa: F401
    import peft  # noqa: F401
    with open(os.path.join(folder, "jobs.jsonl"), "a") as out:
        for job in jobs:
            out.write(json.dumps(run(job, folder)) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
