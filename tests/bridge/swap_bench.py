"""Host time of a swapped experts call, kernels aside: MOEPROF_GUEST=.../libmoeprof.so python swap_bench.py

Beside the guest lies a kernels' library that does nothing (tests/mock/noop_kernels.c), so what is timed is Python,
autograd, allocations and the guest's C. Calls are chained as layers are, each with its own router's weights; a backward is
one pass over the chain, divided by its calls, so that torch's cost of starting a pass is spread as in a training. The clock
is this thread's own, which other load on the machine slows less.
"""
import gc
import statistics
import sys
import tempfile
import time

import torch

import models
import swap_client as wire

CALLS, ROUNDS, WARM = 32, 60, 10


def swapped_experts(adapted):
    model = models.make("qwen3_moe", num_hidden_layers=CALLS).bfloat16()
    if adapted:
        import peft
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=4, target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])).train()
    folder = tempfile.mkdtemp()
    wire.attach(folder)
    for _ in range(3):
        models.train(model, steps=1)
    client = wire.Client(folder)
    wire.ask(client, lambda: models.train(model, steps=1), wire.STATUS)
    swapper = next(o for o in gc.get_objects() if type(o).__name__ == "Swapper")
    swapper.switch("moeprof", swapper.experts_of("moeprof"))  # parity would find that nothing is computed
    return model, [m.__dict__["forward"].experts for m in model.modules() if hasattr(m.__dict__.get("forward"), "moeprof_arm")]


def timed(function):
    begin = time.thread_time()
    function()
    return (time.thread_time() - begin) / CALLS * 1e6


def measure(experts, tokens=64, grad=True):
    index = torch.stack([torch.randperm(8)[:2] for _ in range(tokens)])
    scores = [torch.rand(tokens, 2, dtype=torch.bfloat16, requires_grad=grad) for _ in experts]
    start = torch.randn(tokens, 32, dtype=torch.bfloat16, requires_grad=grad)
    wanted = [start] + scores + [p for call in experts for p in call.weights.tensors()]
    seconds = {"forward": [], "backward": []}
    dout = torch.ones_like(start)
    for _ in range(WARM + ROUNDS):
        x = [start]

        def forward():
            for i in range(CALLS):
                x[0] = experts[i](x[0], index, scores[i])
        with torch.set_grad_enabled(grad):
            seconds["forward"].append(timed(forward))
        if grad:
            seconds["backward"].append(timed(lambda: torch.autograd.grad(x[0], wanted, dout)))
    return seconds


def show(name, values):
    values = sorted(values[WARM:])
    print("%-28s median %5.1f us a call, %.1f least, %.1f to %.1f (10th to 90th of %d rounds of %d calls)" % (
        name, statistics.median(values), values[0], values[len(values) // 10], values[-len(values) // 10 - 1], len(values), CALLS))


def main():
    torch.set_num_threads(1)
    model, experts = swapped_experts("lora" in sys.argv)  # weights are held by the model alone
    for name, values in measure(experts).items():
        show(name, values)
    show("forward under no_grad", measure(experts, grad=False)["forward"])


main()
