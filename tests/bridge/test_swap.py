"""Swapping experts in a job, each scenario in a process of its own under the real guest (MOEPROF_GUEST)."""
import os
import pathlib
import subprocess
import sys

import pytest

import models

HERE = pathlib.Path(__file__).resolve().parent
GUEST = os.environ.get("MOEPROF_GUEST", "")

pytestmark = pytest.mark.skipif(not GUEST or not (pathlib.Path(GUEST).parent / "libmoeprof_kernels.so").exists(),
                                reason="MOEPROF_GUEST and its kernels are not there")

FIVE = ["qwen3_moe", "qwen2_moe", "mixtral", "deepseek_v3", "glm4_moe", "gpt_oss", "olmoe", "ernie4_5_moe", "granitemoe", "phimoe",
        "dots1"]
FOUR = ["qwen3_moe", "qwen2_moe", "mixtral", "deepseek_v3", "glm4_moe", "gpt_oss", "olmoe", "dots1"]


def run(*words):
    done = subprocess.run([sys.executable, str(HERE / "swap_scenarios.py"), *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.parametrize("family", FIVE if models.V5 else FOUR)
def test_family(family):
    run("family", family)


@pytest.mark.parametrize("family", ["llama4"] if models.V5 else ["llama4", "granitemoe", "phimoe", "ernie4_5_moe"])
def test_layers_that_stay_are_named(family):
    run("unswappable", family)


@pytest.mark.skipif(not models.V5, reason="stacked experts")
@pytest.mark.parametrize("words", ["qwen3_moe", "gpt_oss", "qwen3_moe gate_up_proj", "gpt_oss down_proj"])
def test_lora(words):
    run("lora", *words.split())


@pytest.mark.parametrize("kind", ["reentrant", "non-reentrant"])
def test_checkpointing(kind):
    run("checkpointing", kind)


@pytest.mark.parametrize("what", ["experts", "router", "down", "all but the head"])
def test_frozen(what):
    run("frozen", what)


ANY = ["fp64", "many_times", "accumulation", "wrong_use", "at_launch", "lease", "reverts", "other_model"]
ONLY_FIVE = ["routing_flips", "bfloat16", "lora_states", "sentinels", "odd_calls", "taken_over", "refused", "spot_check", "partial",
             "compiled", "fsdp2"]
ONLY_FOUR = ["unhit", "lora_listed"]


@pytest.mark.parametrize("name", ANY + (ONLY_FIVE if models.V5 else ONLY_FOUR))
def test_scenario(name):
    run(name)


def test_autocast_with_master_weights():
    run("autocast", "bfloat16")
