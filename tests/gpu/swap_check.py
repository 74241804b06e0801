"""Swapping on a GPU, through the control socket as a tool does it: parity, step time and peak memory by arm, host time
of one swapped call, on and off 100 times. One line a fact, `ok` or `FAIL` where there is a bar; exit code 1 on a FAIL.

MOEPROF_GUEST=build/libmoeprof.so python tests/gpu/swap_check.py [--layers 4] [--tokens 4096] [--arms grouped_mm,moeprof,eager]
    [--lora] [--checkpoint] [--steps 8]
Needs torch, transformers 5.x, and libmoeprof_kernels.so beside the guest. About a minute on an H100.
"""
import argparse
import ctypes
import os
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bridge"))

import torch
import transformers

import swap_client as wire

failures = []


def fact(name, text, ok=None):
    print("%-34s %s%s" % (name, text, "" if ok is None else "  ok" if ok else "  FAIL"), flush=True)
    if ok is False:
        failures.append(name)


def model_of(args):
    config = transformers.Qwen3MoeConfig(
        vocab_size=32768, hidden_size=2048, num_hidden_layers=args.layers, num_attention_heads=32, num_key_value_heads=4,
        head_dim=128, intermediate_size=6144, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8,
        norm_topk_prob=True, use_cache=False)
    torch.manual_seed(0)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = transformers.Qwen3MoeForCausalLM(config).train()
        torch.set_default_dtype(torch.float32)
    if args.lora:
        import peft
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=16, target_modules=["q_proj", "v_proj"],
            target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]))
    if args.checkpoint:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model


class Job:
    def __init__(self, args):
        self.model, self.tokens = model_of(args), args.tokens
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-5, fused=True)
        self.generator = torch.Generator().manual_seed(7)

    def step(self):
        ids = torch.randint(3, 32768, (max(1, self.tokens // 2048), min(self.tokens, 2048)), generator=self.generator).cuda()
        loss = self.model(input_ids=ids, labels=ids).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def timed(self, n):
        self.step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        for _ in range(n):
            loss = self.step()
        torch.cuda.synchronize()
        return (time.perf_counter() - begin) / n * 1e3, torch.cuda.max_memory_allocated() / 2 ** 30, loss.item()


def experts_of(model, layer=0):
    return [m for m in model.modules() if type(m).__name__ == "Qwen3MoeExperts"][layer]


def swap(job, client, arm):
    begin = time.perf_counter()
    rows = wire.ask(client, job.step, wire.SWAP, name=arm, steps=3)
    seconds = time.perf_counter() - begin
    parity = [m for m in rows if m.kind == wire.PARITY]
    done = rows[-1]
    worst = max(parity, key=lambda m: m.value[2] if m.value[2] == m.value[2] else 1e9, default=None)
    if worst is not None:
        fact("parity of %s" % arm, "%d layers, worst layer %d %s: %.2e, own arm %.2e, ratio %.2f, %d tokens, %.1f s with its steps"
             % (len(parity), worst.layer, worst.name, *worst.value, seconds), done.code == 0)
    if done.code:
        fact("swap to %s" % arm, "refused: %s" % done.text, False)
    return done.code == 0


def host_time(job):
    experts = experts_of(job.model)
    x = torch.randn(64, 2048, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    index = torch.stack([torch.randperm(128, device="cuda")[:8] for _ in range(64)])
    score = torch.full((64, 8), 0.125, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    wanted = [x, score] + [p for p in experts.parameters() if p.requires_grad]

    def per_call(function, n=100, rounds=5):
        best = 1e9
        for _ in range(rounds):  # short rounds: the host must not run into a full launch queue
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for _ in range(n):
                function()
            best = min(best, (time.perf_counter() - begin) / n * 1e6)
        torch.cuda.synchronize()
        return best

    forward = per_call(lambda: experts.forward(x, index, score), n=50)
    out = experts.forward(x, index, score)
    dout = torch.ones_like(out)
    backward = per_call(lambda: torch.autograd.grad(out, wanted[:2], dout, retain_graph=True), n=50)
    full = per_call(lambda: torch.autograd.grad(out, wanted, dout, retain_graph=True), n=5)
    with torch.no_grad():
        inference = per_call(lambda: experts.forward(x, index, score), n=50)
    fact("host time of one call", "forward %.0f us (bar 60), no_grad %.0f us" % (forward, inference), forward <= 60)
    fact("host time of one backward", "%.0f us without weight gradients, %.0f us with (GPU-bound: not host time) (bar 120)"
         % (backward, full), backward <= 120)


def there_and_back(job, client):
    """100 times on and off: the same memory, and the same bits after off."""
    experts, before = experts_of(job.model), None
    x = torch.randn(512, 2048, device="cuda", dtype=torch.bfloat16)
    index = torch.randint(0, 128, (512, 8), device="cuda")
    score = torch.full((512, 8), 0.125, device="cuda", dtype=torch.bfloat16)
    job.optimizer.param_groups[0]["lr"] = 0.0
    tokens, job.tokens = job.tokens, 256
    with torch.no_grad():
        before = experts.forward(x, index, score).clone()
    for i in range(200):
        wire.ask(client, job.step, wire.SWAP, name=("moeprof", "original")[i % 2], steps=1)
        if i == 19:
            torch.cuda.synchronize()
            first = torch.cuda.memory_allocated(), rss()
    torch.cuda.synchronize()
    last = torch.cuda.memory_allocated(), rss()
    with torch.no_grad():
        same = torch.equal(before, experts.forward(x, index, score))
    job.tokens = tokens
    fact("on and off 100 times", "GPU memory %+d bytes, RSS %+.1f MB" % (last[0] - first[0], (last[1] - first[1]) / 1e6),
         last[0] <= first[0] + (1 << 20) and last[1] <= first[1] + (32 << 20))
    fact("after off", "bit-identical" if same else "differs", same and "forward" not in experts.__dict__)


def rss():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--arms", default="grouped_mm,moeprof,eager")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--no-cupti", action="store_true")
    args = parser.parse_args()
    folder = tempfile.mkdtemp()
    torch.cuda.init()
    ctypes.PyDLL(os.environ["MOEPROF_GUEST"]).moeprof_attach(
        ("dir=%s,session=gpu%s" % (folder, ",cuda=none" if args.no_cupti else "")).encode())
    time.sleep(0.5)
    job = Job(args)
    fact("GPU", "%s, torch %s, transformers %s" % (torch.cuda.get_device_name(), torch.__version__, transformers.__version__))
    fact("job", "%d layers, %d tokens%s%s, own experts: %s" % (args.layers, args.tokens, ", LoRA" if args.lora else "",
                                                               ", checkpointing" if args.checkpoint else "",
                                                               job.model.config._experts_implementation))
    for _ in range(3):
        job.step()
    client = wire.Client(folder)
    rows = wire.ask(client, job.step, wire.STATUS)
    for m in rows:
        if m.kind == wire.LAYER and not m.flags & wire.YES:
            fact("layer %d" % m.layer, m.text, False)
    times = {}
    for arm in args.arms.split(","):
        n = args.steps if arm != "eager" else 3
        if swap(job, client, arm):
            times[arm], peak, loss = job.timed(n)
            fact("step with %s" % arm, "%.1f ms, %.0f tokens/s, peak %.2f GiB, loss %.3f"
                 % (times[arm], args.tokens / times[arm] * 1e3, peak, loss))
    for arm in times:
        if arm != "moeprof" and "moeprof" in times:
            fact("%s over moeprof" % arm, "%.2f x" % (times[arm] / times["moeprof"]))
    if swap(job, client, "moeprof") and not args.lora:
        host_time(job)
    swap(job, client, "original")
    if not args.lora:
        there_and_back(job, client)
    for m in client.notices:
        if m.kind == wire.REVERTED:
            fact("reverted", m.text, False)
    print("%d failures" % len(failures))
    return 1 if failures else 0


sys.exit(main())
