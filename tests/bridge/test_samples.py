"""The samples run on a CPU, agree with each other, and their truths with themselves."""
import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

import models

SAMPLES = pathlib.Path(__file__).resolve().parents[2] / "samples"


def run(script, *options):
    done = subprocess.run([sys.executable, SAMPLES / script, "--device", "cpu", *map(str, options)], check=True,
                          capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if line.startswith("step")]


def test_plain_loop_with_routing_and_truth(tmp_path):
    """Every expert that got tokens in a step ran its matmuls once forward and twice backward."""
    routing, truth, losses = (tmp_path / name for name in ("routing", "truth", "losses"))
    lines = run("train_plain.py", "--experts", "eager", "--steps", 4, "--profile-from", 2, "--profile-steps", 2,
                "--routing", routing, "--truth", truth, "--print-losses", losses)
    assert len(lines) == 4 and len(json.loads(losses.read_text())["losses"]) == 4
    counts, cells = json.loads(routing.read_text()), json.loads(truth.read_text())["cells"]
    matmuls = 2 if models.V5 else 3  # gate and up are one weight in 5.x
    for cell in cells:
        hit = sum(counts[step][str(cell["layer"])][cell["expert"]] > 0 for step in (2, 3))
        assert cell["kernels"] == hit * matmuls * (1 if cell["pass"] == "forward" else 2)
    assert len(cells) == 2 * 2 * 8


@pytest.mark.parametrize("options", [["--lora", "--checkpointing", "reentrant", "--data", "packed"],
                                     ["--checkpointing", "non-reentrant", "--accum", 2, "--data", "padded", "--batch", 2]])
def test_trainer(tmp_path, options):
    if "--lora" in options and not models.V5:
        options = [*options, "--lora", "attention"]  # its stacked experts are of 5.x
    assert len(run("train_trainer.py", "--steps", 2, *options)) == 2


def test_same_seed_same_losses(tmp_path):
    def losses(name):
        run("train_plain.py", "--steps", 3, "--deterministic", "--print-losses", tmp_path / name)
        return json.loads((tmp_path / name).read_text())["losses"]
    assert losses("a") == losses("b")


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is not None, reason="liger-kernel is here")
def test_a_missing_package_is_named():
    done = subprocess.run([sys.executable, SAMPLES / "train_plain.py", "--device", "cpu", "--liger"], capture_output=True, text=True)
    assert done.returncode == 1 and "pip install liger-kernel" in done.stderr and "Traceback" not in done.stderr
