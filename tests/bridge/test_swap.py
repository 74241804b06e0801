"""Swapping experts in a job: each scenario of PROGRAMS in a process of its own under the real guest (MOEPROF_GUEST), as
many at once as there are processors."""
import concurrent.futures
import os
import pathlib
import subprocess
import sys

import pytest

import models

HERE = pathlib.Path(__file__).resolve().parent
GUEST = os.environ.get("MOEPROF_GUEST", "")

pytestmark = pytest.mark.skipif(not GUEST, reason="MOEPROF_GUEST is not set")

PROGRAMS = {  # all others are in swap_scenarios.py
    "lora_scenarios.py": ["lora", "lora_states", "lora_listed", "lora_listed_refused"],
    "stored_scenarios.py": ["fsdp2", "tensor_parallel", "sharded_otherwise", "refused_weights"],
    "mishap_scenarios.py": ["wrong_use", "two_arms", "at_launch", "lease", "reverts", "taken_over", "other_model", "gone", "changed",
                            "dense", "refused", "spot_check", "unswappable", "partial", "compiled"],
    "edge_scenarios.py": ["dice", "freed", "unfrozen", "other_adapter", "adapters_later", "backward_autocast",
                          "backward_hooks", "backward_replays", "backward_sum", "moved_saved", "inference", "no_text", "forked",
                          "data_parallel", "hooks_of_experts", "written_to"],
}
PROGRAM = {scenario: program for program, scenarios in PROGRAMS.items() for scenario in scenarios}
FAMILIES = ["qwen3_moe", "qwen2_moe", "mixtral", "deepseek_v3", "glm4_moe", "gpt_oss", "olmoe", "dots1", "llama4", "granitemoe"]
ANY = ["fp64", "many_times", "by_python", "optimizer_state", "accumulation", "wrong_use", "at_launch", "lease", "reverts",
       "other_model", "gone", "changed", "dense", "autocast bfloat16", "checkpointing reentrant", "checkpointing non-reentrant", "frozen experts", "frozen router", "frozen down",
       "frozen all_but_the_head", "dice", "freed", "backward_replays", "moved_saved", "no_text", "forked", "data_parallel", "written_to"]
FIVE = (["routing_flips", "two_arms", "bfloat16", "sentinels", "odd_calls", "taken_over", "refused", "spot_check", "partial", "compiled",
         "by_hand softmax", "by_hand softmax_renormalised", "by_hand softmax_of_the_chosen", "by_hand sigmoid_renormalised",
         "by_hand exotic", "liger class", "liger instance", "trl", "trl adapters", "fsdp2", "tensor_parallel", "sharded_otherwise flat", "sharded_otherwise orig",
         "sharded_otherwise tensor",
         "refused_weights bitsandbytes quantised by bitsandbytes", "refused_weights fp8 stored as float8_e4m3fn",
         "refused_weights mxfp4 quantised (mxfp4", "refused_weights zero3 sharded by DeepSpeed ZeRO-3",
         "lora qwen3_moe", "lora gpt_oss", "lora qwen3_moe gate_up_proj", "lora gpt_oss down_proj", "lora_states", "unfrozen stacked", "backward_hooks", "backward_sum",
         "inference", "hooks_of_experts stacked"]
        + ["family " + name for name in ("ernie4_5_moe", "phimoe")])
FOUR = ["unhit", "tensor_parallel", "lora_listed qwen3_moe gate_proj,up_proj,down_proj", "lora_listed deepseek_v3 up_proj,down_proj",
        "lora_listed mixtral w1", "lora_listed_refused", "unfrozen listed", "other_adapter", "adapters_later", "backward_autocast",
        "hooks_of_experts listed"] + ["unswappable " + name for name in ("phimoe",)] + ["family ernie4_5_moe"]


def run_in(program, scenario):
    return subprocess.run([sys.executable, str(HERE / program), *scenario.split()], capture_output=True, text=True, timeout=600)


def run(scenario):
    return run_in(PROGRAM.get(scenario.split()[0], "swap_scenarios.py"), scenario)


@pytest.fixture(scope="module")
def results(request):
    wanted = [item.callspec.params["scenario"] for item in request.session.items if item.module is request.module]
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    yield {scenario: pool.submit(run, scenario) for scenario in wanted}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("scenario", ["family " + name for name in FAMILIES] + ANY + (FIVE if models.V5 else FOUR))
def test_swap(scenario, results):
    done = results[scenario].result()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
