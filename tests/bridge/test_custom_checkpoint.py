"""Layer, phase and pass of kernels that run where no module hook looks (checkpoint_scenarios.py), by the real guest."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

import checkpoint_scenarios

PROBE = pathlib.Path(os.environ.get("MOEPROF_GUEST", "")).parent / "mock" / "libprobe.so"
HERE = pathlib.Path(__file__).resolve().parent

pytestmark = pytest.mark.skipif("MOEPROF_GUEST" not in os.environ, reason="MOEPROF_GUEST is not set")


@pytest.mark.parametrize("name", sorted(checkpoint_scenarios.SCENARIOS))
def test_scenario(tmp_path, name):
    tmp_path.chmod(0o700)
    job = subprocess.run([sys.executable, str(HERE / "checkpoint_scenarios.py"), str(PROBE), str(tmp_path), name],
                         capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS="1"))
    assert job.returncode == 0, job.stderr
    found = json.loads(job.stdout.splitlines()[-1])
    assert found["wrong"] == [] and found["other"] == []
    replayed = "no checkpoint" not in name
    assert found["kernels"]["forward"] > 50 and found["kernels"]["backward"] > 50
    assert (found["kernels"]["recompute"] > 50) == replayed
