"""Fixtures of the bridge tests: a job under a guest, real torch and transformers, CPU tensors, tiny models.

MOEPROF_GUEST=path of libmoeprof.so runs the tests that only look at the job (marked `either`) under the real guest.
"""
import ctypes
import os

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


@pytest.fixture(scope="session")
def real_guest(tmp_path_factory):
    path = os.environ.get("MOEPROF_GUEST")
    if path:
        library = ctypes.PyDLL(path)
        folder = tmp_path_factory.mktemp("moeprof")
        library.moeprof_attach(("dir=%s,session=bridge,cuda=none" % folder).encode())
    return path


@pytest.fixture
def either(request, real_guest):
    """Whichever guest is asked for: for tests of what the job itself sees. None stands for the real one."""
    return None if real_guest else request.getfixturevalue("guest")
