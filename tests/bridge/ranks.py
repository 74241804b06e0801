"""Two CPU ranks of one job, each a process of its own: what scenarios with torch.distributed run on."""
import os
import sys
import tempfile

import torch.distributed as dist
import torch.multiprocessing

RANKS = 2


def spawn(work, *arguments):
    """work(rank, *arguments) in every rank of a gloo group; what one raises is raised here."""
    torch.multiprocessing.spawn(enter, (tempfile.mkdtemp(), work, arguments), nprocs=RANKS)


def enter(rank, folder, work, arguments):
    dist.init_process_group("gloo", init_method="file://%s/meet" % folder, rank=rank, world_size=RANKS)
    work(rank, *arguments)
    dist.destroy_process_group()
    leave()


def leave():
    """Ends a rank whose work is done without the end of the interpreter.

    gloo's threads outlive destroy_process_group() wherever something still holds the group (DTensor's caches of sharding
    rules do, by their mesh). One that has yet to let go of the last collective's tensors wants the GIL for it; when the
    interpreter is ending by then, Python before 3.14 ends the thread by pthread_exit, which unwinds into a destructor:
    std::terminate. torch alone does so, without a guest. test_exit.py goes the way that is left out here.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
