"""Two ranks that end as jobs do: their group destroyed, experts swapped in, a tool connected, the interpreter ends by itself.

A rank is this file as a program: test_exit.py FOLDER RANK. Gradients are summed by hand: what keeps a group alive beyond
destroy_process_group() may crash without a guest (ranks.py). Even so gloo's threads may still hold the last sum's tensors and want
the GIL to let go of them; the same job without a guest, and without the pause that gives it to them, aborts in a third of its runs.
"""
import os
import pathlib
import subprocess
import sys
import time

import pytest

GUEST = os.environ.get("MOEPROF_GUEST", "")
DUMP = pathlib.Path(GUEST).parent / "dump_shm"
RANKS = 2
LAST_WORD = "the group is destroyed"

pytestmark = pytest.mark.skipif(not GUEST, reason="MOEPROF_GUEST is not set")


def rank(folder, number):
    import torch.distributed as dist

    import models
    from swap_scenarios import Job, attached, on, sites

    dist.init_process_group("gloo", init_method="file://%s/meet" % folder, rank=number, world_size=RANKS)
    job = Job(models.make("qwen3_moe"))
    weights = list(job.model.parameters())
    job.optimizer.register_step_pre_hook(lambda *_: [dist.all_reduce(p.grad) for p in weights if p.grad is not None] and None)
    client = attached(job)
    on(client, job)
    job.steps(1)
    assert sites(job.model)
    dist.destroy_process_group()
    time.sleep(0.5)
    print(job.folder, LAST_WORD, sep="\n", flush=True)


def test_exit(tmp_path):
    ranks = [subprocess.Popen([sys.executable, __file__, str(tmp_path), str(number)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) for number in range(RANKS)]
    try:
        ends = [(*one.communicate(timeout=180), one) for one in ranks]
    finally:
        for one in ranks:
            one.kill()
    for out, err, one in ends:
        folder, word = out.splitlines()[-2:]
        assert word == LAST_WORD and one.returncode == 0, err[-4000:]
        state = subprocess.run([str(DUMP), folder, str(one.pid)], check=True, capture_output=True, text=True).stdout
        assert state.startswith("state 4 "), state  # MP_GUEST_ENDED: the guest saw the end, and got through it


if __name__ == "__main__":
    rank(sys.argv[1], int(sys.argv[2]))
