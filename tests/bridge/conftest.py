"""Fixtures of the bridge tests: real torch and transformers, CPU tensors, tiny models, a stand-in for the guest.

The real guest library stays in its process for good: the tests of it (test_guest.py) start processes of their own.
"""
import pytest
import torch

import fake_guest

torch.set_num_threads(1)


@pytest.fixture
def guest():
    """The stand-in, with hook.py installed in this process; everything is taken out again afterwards."""
    fake = fake_guest.FakeGuest()
    scope = fake_guest.load(fake)
    yield fake
    if scope["detach"] is not None:
        scope["detach"]()
    assert not torch.nn.modules.module._global_forward_pre_hooks
