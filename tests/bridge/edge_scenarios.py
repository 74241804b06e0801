"""Scenarios of test_swap.py: what jobs do to a model beside training it. python edge_scenarios.py NAME [ARGUMENT]; see
swap_scenarios.py.
"""
import copy
import sys

import torch
from torch import nn

import models
import swap_client as wire
from swap_client import ask
from swap_scenarios import attached


class DroppingExpert(models.Expert):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.1, self.training)


class DroppingMoe(models.ListMoe):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(DroppingExpert(32, 16) for _ in range(4))


class HandJob:
    """A plain loop on a model written by hand."""

    def __init__(self, moe):
        torch.manual_seed(0)
        self.model = models.HandWritten(moe).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.losses = []

    def step(self):
        ids = torch.randint(3, 96, (2, 12), generator=torch.Generator().manual_seed(len(self.losses)))
        loss = self.model(ids, ids)
        loss.backward()
        self.losses.append(loss.item())
        self.optimizer.step()
        self.optimizer.zero_grad()

    def steps(self, n):
        for _ in range(n):
            self.step()
        return self.losses


def dice():
    """Looking at the layers, or at one whose experts drop, takes no random number from the job."""
    reference = HandJob(DroppingMoe).steps(9)
    job = HandJob(DroppingMoe)
    client = attached(job)
    ask(client, job.step, wire.STATUS, steps=2)
    ask(client, job.step, wire.CHECK, steps=2, name="moeprof")
    job.steps(9 - len(job.losses))
    assert job.losses == reference, (job.losses, reference)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
