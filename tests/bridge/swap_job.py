"""A job for tests of `moeprof swap`: a tiny model on the CPU under the real guest, steps until it is told to stop.

swap_job.py DIR FAMILY [break|stall]: from step 3 on, which it says on stderr, `break` makes the kernels' arm wrong, so
that parity must refuse it, and `stall` makes steps slow.
"""
import os
import signal
import sys
import time

import torch

import models
from swap_client import attach

folder, family, *what = sys.argv[1:]
attach(folder)
torch.set_num_threads(1)
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
model = models.make(family)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
generator = torch.Generator().manual_seed(3)
step = 0
while not ending:
    ids = torch.randint(3, 96, (2, 12), generator=generator)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    step += 1
    if "break" in what and step == 3:  # an own arm that is not what its weights say
        for module in model.modules():
            if hasattr(module, "gate_up_proj"):
                kind = type(module)
                kind.forward = (lambda old: lambda self, x, index, weights: 1.5 * old(self, x, index, weights))(kind.forward)
                break
    if what and step == 3:
        print("as asked", file=sys.stderr, flush=True)
    if "stall" in what and step >= 3:
        time.sleep(1.5)
    time.sleep(0.005)
