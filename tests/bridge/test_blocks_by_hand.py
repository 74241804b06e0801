"""Blocks as people write them, for the scenario by_hand of swap_scenarios.py."""
import pytest
import torch
from torch import nn

import models

RULES = ("softmax", "softmax renormalised", "softmax of the chosen", "sigmoid renormalised", "exotic")


class Block(models.ListMoe):
    """models.ListMoe with another way from logits to weights."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def weights(self, logits):
        if self.rule == "softmax of the chosen":
            chosen, index = logits.topk(self.top_k, dim=-1)
            return chosen.softmax(-1), index
        scores = logits.sigmoid() if self.rule.startswith("sigmoid") else logits.softmax(-1)
        chosen, index = scores.topk(self.top_k, dim=-1)
        if self.rule == "exotic":
            return chosen.sqrt(), index
        return (chosen / chosen.sum(-1, keepdim=True) if "renormalised" in self.rule else chosen), index

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        weights, index = self.weights(self.gate(flat))
        out = torch.zeros_like(flat)
        for e, expert in enumerate(self.experts):
            rows, slot = torch.where(index == e)
            if len(rows):
                out.index_add_(0, rows, expert(flat[rows]) * weights[rows, slot, None])
        return out.view_as(x)


@pytest.mark.parametrize("rule", RULES)
def test_the_block_is_what_the_scenario_takes_it_for(rule):
    block = Block(rule)
    logits = torch.randn(5, 4)
    weights, index = block.weights(logits)
    assert torch.equal(index, logits.topk(2).indices) and weights.shape == (5, 2)
    assert ("renormalised" in rule or rule == "softmax of the chosen") == torch.allclose(weights.sum(-1), torch.ones(5))
    assert isinstance(block.experts, nn.ModuleList)
