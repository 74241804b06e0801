"""Arms that no registry holds: each scenario of arm_scenarios.py in a process of its own under the real guest."""
import pytest

import models
from test_swap import HERE, pytestmark, run_in  # noqa: F401

FIVE = ["family qwen3_moe", "family gpt_oss", "family qwen2_moe", "family deepseek_v3", "sentinels", "compiled", "refused",
        "breaks", "meter", "capturing"]
FOUR = ["listed", "meter", "capturing"]


@pytest.mark.parametrize("scenario", FIVE if models.V5 else FOUR)
def test_arm(scenario):
    done = run_in("arm_scenarios.py", scenario)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
