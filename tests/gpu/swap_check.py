"""Swapping on a GPU, through the control socket as a tool does it. One row a fact: what, figures, bar, `ok` or `FAIL`;
exit code 1 on a FAIL.

MOEPROF_GUEST=build/libmoeprof.so python tests/gpu/swap_check.py PART [options]
    speed    step time, MFU and peak memory by arm, and each layer's experts alone   --layers 8 --tokens 4096 --lora --checkpoint
    host     host time of a swapped call, forward and backward, untraced and traced
    onoff    on and off 100 times: memory, and bits after off
    losses   50 steps by moeprof and by eager, and eager again and again: is the difference one of a rerun?
    mixtral  8 wide experts, 32768 tokens: the loop's best case
    graph    a CUDA graph captured while a check is under way, and while moeprof's kernels run
Needs torch, transformers 5.x (4.57 too for speed), and libmoeprof_kernels.so beside the guest. Each under a minute on an H100.
"""
import argparse
import ctypes
import gc
import os
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bridge"))

import torch
import transformers

import swap_client as wire

TRACE, PEAK_FLOPS = 7, 989.4e12  # enum mp_wire_kind; dense bf16 of an H100 SXM
V5 = int(transformers.__version__.split(".")[0]) >= 5
QWEN = dict(hidden_size=2048, num_attention_heads=32, num_key_value_heads=4, head_dim=128, intermediate_size=6144,
            moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8)
SMALL = dict(QWEN, hidden_size=1024, num_attention_heads=16, num_experts=32)
failures = []


def fact(name, text, bar="", ok=None):
    print("%-36s | %-86s | %-28s | %s" % (name, text, bar, "" if ok is None else "ok" if ok else "FAIL"), flush=True)
    if ok is False:
        failures.append(name)


# ---------------------------------------------------------------------------------------------------------
# A job

def mixtral(args):
    return transformers.MixtralConfig(
        vocab_size=4096, hidden_size=4096, num_hidden_layers=args.layers, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
        intermediate_size=14336, num_local_experts=8, num_experts_per_tok=2, sliding_window=None, use_cache=False)


def qwen(args, shape):
    return transformers.Qwen3MoeConfig(vocab_size=args.vocab, num_hidden_layers=args.layers, norm_topk_prob=True, use_cache=False,
                                       decoder_sparse_step=1, **shape)


def model_of(args, config):
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").train()
    torch.set_default_dtype(torch.float32)
    if args.lora:
        import peft
        experts = dict(target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]) if V5 else {}
        linears = ["q_proj", "v_proj"] + ([] if V5 else ["gate_proj", "up_proj", "down_proj"])
        model = peft.get_peft_model(model, peft.LoraConfig(r=args.rank, target_modules=linears, **experts)).train()
    if args.checkpoint:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model


class Job:
    def __init__(self, args, config, lr=1e-5):
        self.model, self.tokens, self.vocab = model_of(args, config), args.tokens, config.vocab_size
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=lr, fused=True)
        self.generator = torch.Generator().manual_seed(7)

    def batch(self):
        length = min(self.tokens, 2048)
        return torch.randint(3, self.vocab, (max(1, self.tokens // length), length), generator=self.generator).cuda()

    def step(self, ids=None):
        ids = self.batch() if ids is None else ids
        loss = self.model(input_ids=ids, labels=ids).loss
        loss.backward()
        self.with_gradients = torch.cuda.memory_allocated() / 2 ** 30
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def timed(self, n):
        """Seconds of each of n steps by CUDA events, and the peak of memory."""
        self.step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(n + 1)]
        marks[0].record()
        for mark in marks[1:]:
            self.step()
            mark.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1e3 for a, b in zip(marks, marks[1:])], torch.cuda.max_memory_allocated() / 2 ** 30

    def end(self):
        self.model = self.optimizer = None
        gc.collect()
        torch.cuda.empty_cache()


def model_flop(config, args):
    """Of a step: matmuls of what is used, causal attention; frozen weights have no gradient of their own."""
    c, t = config, args.tokens
    head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    heads = 2 * c.hidden_size * head * (2 * c.num_attention_heads + 2 * c.num_key_value_heads)
    attention = 4 * c.num_attention_heads * head * min(t, 2048) / 2
    wide = getattr(c, "moe_intermediate_size", None) or c.intermediate_size
    n_expert = getattr(c, "num_experts", None) or c.num_local_experts
    experts = 2 * 3 * c.hidden_size * wide * c.num_experts_per_tok
    linear = c.num_hidden_layers * (heads + 2 * c.hidden_size * n_expert + experts) + 2 * c.hidden_size * c.vocab_size
    return t * ((2 if args.lora else 3) * linear + 3 * c.num_hidden_layers * attention)


def attached(job, args):
    folder = tempfile.mkdtemp()
    ctypes.PyDLL(os.environ["MOEPROF_GUEST"]).moeprof_attach(
        ("dir=%s,session=gpu%s" % (folder, ",cuda=none" if args.no_cupti else "")).encode())
    time.sleep(0.5)
    for _ in range(3):
        job.step()
    client = wire.Client(folder)
    for m in wire.ask(client, job.step, wire.STATUS):
        if m.kind == wire.LAYER and (m.layer == 0 or not m.flags & wire.YES):
            fact("layer %d" % m.layer, m.text, "can be swapped", bool(m.flags & wire.YES))
    return client


def trace(client, job, how, args):
    """What GPU records the guest takes; "" or what it answers."""
    if args.no_cupti:
        return "no CUPTI"
    done = wire.ask(client, job.step, TRACE, name=how)[-1]
    return done.text


def swap(job, client, arm):
    begin = time.perf_counter()
    rows = wire.ask(client, job.step, wire.SWAP, name=arm, steps=3)
    seconds, done = time.perf_counter() - begin, rows[-1]
    parity = [m for m in rows if m.kind == wire.PARITY]
    worst = max(parity, key=lambda m: m.value[2] if m.value[2] == m.value[2] else 1e9, default=None)
    if worst is not None:
        fact("parity of %s" % arm, "worst layer %d %s: %.2e, own arm %.2e, ratio %.2f, %d tokens; %.1f s with its steps"
             % (worst.layer, worst.name, *worst.value, seconds), "2 x own arm", done.code == 0)
    if done.code:
        fact("swap to %s" % arm, "refused: %s" % done.text, "", False)
    return done.code == 0


def sites(model):
    """Modules that are swapped, and those that would be."""
    return [m for m in model.modules() if hasattr(m.__dict__.get("forward"), "moeprof_arm")]


# ---------------------------------------------------------------------------------------------------------
# Parts

def calls(job, n=1):
    """(module, arguments) of each layer's experts, as the job calls them."""
    found, handles = [], []
    for module in job.model.modules():
        if type(module).__name__ == "Qwen3MoeExperts":
            handles.append(module.register_forward_pre_hook(
                lambda m, args: found.append((m, [a.detach().clone().requires_grad_(a.is_floating_point()) for a in args]))))
    job.step()
    for handle in handles:
        handle.remove()
    return found


def experts_seconds(job, n=5):
    """Median GPU seconds of each layer's experts, forward and backward, on the job's own activations."""
    times = []
    for module, (x, index, score) in calls(job):
        wanted = [x, score] + [p for p in module.parameters() if p.requires_grad]
        dout, each = torch.randn_like(x), []
        for _ in range(n + 1):
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            marks[0].record()
            torch.autograd.grad(module(x, index, score), wanted, dout)
            marks[1].record()
            torch.cuda.synchronize()
            each.append(marks[0].elapsed_time(marks[1]) / 1e3)
        times.append(statistics.median(each[1:]))
    return times


def speed(args, config=None):
    config = config or qwen(args, QWEN)
    job = Job(args, config)
    client = attached(job, args)
    trace(client, job, "off", args)
    seconds, peaks, layers = {}, {}, {}
    for arm in args.arms.split(","):
        if not swap(job, client, arm):
            continue
        each, peaks[arm] = job.timed(args.steps if arm not in ("eager", "loop") else max(3, args.steps // 3))
        seconds[arm] = statistics.median(each)
        flop = model_flop(config, args)
        fact("step with %s" % arm, "median %.1f ms (%.1f to %.1f, n=%d), %.0f tokens/s, MFU %.1f %%, peak %.2f GiB (%.2f after a backward)" % (
            seconds[arm] * 1e3, min(each) * 1e3, max(each) * 1e3, len(each), args.tokens / seconds[arm],
            flop / seconds[arm] / PEAK_FLOPS * 100, peaks[arm], job.with_gradients))
        if V5 and not args.lora and not args.checkpoint and arm in ("grouped_mm", "moeprof") and args.part == "speed":
            layers[arm] = experts_seconds(job)
    bars(args, seconds, peaks, layers)
    job.end()


def bars(args, seconds, peaks, layers):
    ours = seconds.get("moeprof")
    own = {"eager": 8.0 if args.tokens == 4096 else None, "grouped_mm": 1.35 if args.tokens == 16384 else None, "original": None}
    if args.lora or not V5:
        own = {"original": 1.5 if args.lora else 4.0}
    if args.part == "mixtral":
        own = {}
    for arm, value in seconds.items():
        if arm == "moeprof" or not ours:
            continue
        bar = own.get(arm)
        fact("whole step, %s -> moeprof" % arm, "%.2f x%s" % (value / ours, "" if value / ours > 1.02 else ": no gain here"),
             ">= %.2f x" % bar if bar else "", value / ours >= bar if bar else None)
    theirs = "original" if args.lora or not V5 else "grouped_mm"
    if theirs in peaks and "moeprof" in peaks:
        # 4.57's loop makes no gradients for experts without tokens, moeprof's of a layer are one block: the router decides who has more
        judged = args.part == "speed" and (V5 or args.lora)
        fact("peak memory, %s -> moeprof" % theirs, "%.3f -> %.3f GiB" % (peaks[theirs], peaks["moeprof"]), "lower" if judged else "",
             peaks["moeprof"] < peaks[theirs] if judged else None)
    if len(layers) == 2:
        ratios = [a / b for a, b in zip(layers["grouped_mm"], layers["moeprof"])]
        fact("experts of each layer, grouped_mm -> moeprof", "%.2f to %.2f x (moeprof %.2f ms forward and backward)" % (
            min(ratios), max(ratios), statistics.median(layers["moeprof"]) * 1e3),
            ">= 2 x each at 16384" if args.tokens >= 16384 else "", min(ratios) >= 2 if args.tokens >= 16384 else None)


def chain_us(modules, x, index, scores, wait):
    """Host time of a call in a chain of calls, forward, then backward, behind a wait for the GPU or, as in a step, at once; of the
    pass around them; and of freeing a call's gradients, which a step does as it ends. A backward's calls last from when the gradient
    reaches the last of them until it leaves the first."""
    seen = []
    mark = lambda gradient: seen.append(time.perf_counter())
    first = x * 1
    first.register_hook(mark)
    wanted = [x] + scores + [p for m in modules for p in m.parameters() if p.requires_grad]
    out = first
    torch.cuda.synchronize()
    if not wait:
        modules[0].forward(x, index, scores[0])
    begin = time.perf_counter()
    for module, score in zip(modules, scores):
        out = module.forward(out, index, score)
    forward = time.perf_counter() - begin
    dout = torch.ones_like(out)
    out.register_hook(mark)
    if wait:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    found = torch.autograd.grad(out, wanted, dout)
    whole, calls, begin = time.perf_counter() - begin, seen[1] - seen[0], time.perf_counter()
    found = None
    freed = time.perf_counter() - begin
    return [forward / len(modules) * 1e6, calls / len(modules) * 1e6, (whole - calls) * 1e6, freed / len(modules) * 1e6]


def host(args):
    """Layers in a chain, as a step calls them, each with its own router's weights (one tensor for all would add up their
    gradients, a launch a call). In a step the host runs ahead of the GPU; behind a wait, which both ways end with, its caches are
    cold and the backward's thread is asleep: that is told beside it, and so is what torch's pass costs before and after its calls."""
    job = Job(args, qwen(args, QWEN))
    client = attached(job, args)
    if not swap(job, client, "moeprof"):
        return
    for how in ("off",) if args.no_cupti else ("off", "on"):
        trace(client, job, how, args)
        for _ in range(4):  # untraced: CUPTI is left at a step's end, once what it holds was read
            job.step()
            time.sleep(0.3)
        modules = sites(job.model)
        x = torch.randn(args.tokens, 2048, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        index = torch.stack([torch.randperm(128, device="cuda")[:8] for _ in range(args.tokens)])
        scores = [torch.full((args.tokens, 8), 0.125, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in modules]
        took = {False: [], True: []}
        for i in range(90):
            took[i % 2 == 1].append(chain_us(modules, x, index, scores, i % 2 == 1))
        name = "traced" if how == "on" else "untraced"
        for i, what, bar in ((0, "one forward", 60), (1, "one backward", 120), (2, "a pass, its calls aside", None),
                             (3, "freeing a call's gradients", None)):
            ahead, behind = (sorted(one[i] for one in took[wait][5:]) for wait in (False, True))
            value, n = statistics.median(ahead), len(ahead)
            judged = bar if how == "off" else None
            fact("host time of %s, %s" % (what, name),
                 "median %.0f us (quartiles %.0f to %.0f, n=%d chains of %d calls, %d tokens); behind a wait %.0f us (%.0f to %.0f)" % (
                     value, ahead[n // 4], ahead[n * 3 // 4], n, len(modules), args.tokens, statistics.median(behind),
                     behind[n // 4], behind[n * 3 // 4]),
                 "<= %d us" % judged if judged else "", value <= judged if judged else None)
    trace(client, job, "auto", args)
    job.end()


def onoff(args):
    args.layers, args.tokens = 2, 256
    job = Job(args, qwen(args, QWEN), lr=0.0)
    job.optimizer.param_groups[0]["weight_decay"] = 0.0
    client = attached(job, args)
    swap(job, client, "moeprof")
    swap(job, client, "original")
    experts = [m for m in job.model.modules() if type(m).__name__ == "Qwen3MoeExperts"][0]
    x = torch.randn(512, 2048, device="cuda", dtype=torch.bfloat16)
    index = torch.randint(0, 128, (512, 8), device="cuda")
    score = torch.full((512, 8), 0.125, device="cuda", dtype=torch.bfloat16)
    ids = job.batch()  # always the same: torch keeps code and buffers for each new count of an expert's tokens, swap or no swap
    with torch.no_grad():
        before, differs = experts.forward(x, index, score).clone(), 0
    for i in range(200):
        wire.ask(client, lambda: job.step(ids), wire.SWAP, name=("moeprof", "original")[i % 2], steps=1)
        client.rows.clear()
        client.notices.clear()
        if i % 2:
            with torch.no_grad():
                differs += not torch.equal(before, experts.forward(x, index, score))
        if i == 39:
            torch.cuda.synchronize()
            first = torch.cuda.memory_allocated(), rss()
    torch.cuda.synchronize()
    grown = torch.cuda.memory_allocated() - first[0], rss() - first[1]
    fact("on and off 100 times", "GPU memory %+d bytes, RSS after malloc_trim %+.1f MB after the first 20" % (grown[0], grown[1] / 1e6),
         "no leak (1 MB, 32 MB)", grown[0] <= 1 << 20 and grown[1] <= 32 << 20)
    fact("after each off", "%d of 100 differ" % differs, "bit-identical", not differs and "forward" not in experts.__dict__)
    job.end()


def rss():
    """Once the allocator has given back what is free: how much of that it keeps is its own affair."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def losses(args):
    """The same weights and batches in every run. How far a run is from eager's others is the median, over these, of the greatest
    difference of two losses. A run of moeprof's that is no other than a rerun is farther than all eight of eager's one time in nine;
    two of three are one time in eighteen."""
    args.layers, args.tokens, args.vocab = 4, 2048, 4096
    eager, ours = ["eager %d" % i for i in range(8)], ["moeprof %d" % i for i in range(3)]
    curves, client = {}, None
    for run in eager + ours:
        job = Job(args, qwen(args, SMALL), lr=3e-4)
        job.model.config._experts_implementation = "eager"
        batches = [job.batch() for _ in range(5)]
        if client is None:
            state = {k: v.cpu().clone() for k, v in job.model.state_dict().items()}
            client = attached(job, args)
            trace(client, job, "off", args)
        else:
            for _ in range(10):  # until the guest has followed to the new model
                job.step()
        if run in ours and not swap(job, client, "moeprof"):
            return
        job.model.load_state_dict(state)
        job.optimizer.state.clear()
        curves[run] = [job.step(batches[i % 5]) for i in range(50)]
        curves[run] = [loss.item() for loss in curves[run]]
        if run in ours:
            fact("swapped until the end", "%d layers" % len(sites(job.model)), "4 layers", len(sites(job.model)) == 4)
        job.end()
    apart = lambda a, b: max(abs(x - y) for x, y in zip(curves[a], curves[b]))
    from_eager = {run: statistics.median([apart(run, b) for b in eager if b != run]) for run in curves}
    for run in curves:
        each = [apart(run, b) for b in eager if b != run]
        fact("50 steps of %s" % run, "loss %.4f -> %.4f; from eager's %s runs median %.3f (%.3f to %.3f)" % (
            curves[run][0], curves[run][-1], "other" if run in eager else "own", from_eager[run], min(each), max(each)))
    most = max(from_eager[run] for run in eager)
    outside = [run for run in ours if from_eager[run] > most]
    fact("50 steps, moeprof beside eager", "%d of %d runs farther than eager's farthest (%.3f)" % (len(outside), len(ours), most),
         "at most 1", len(outside) <= 1)


def wide_experts(args):
    args.tokens = args.tokens if args.tokens > 4096 else 32768
    args.layers = min(args.layers, 1)
    speed(args, mixtral(args))


class Captured:
    """Forward and backward as one CUDA graph. It takes its time, so that the guest's thread, which asks five times a second
    whether the counts of the step before have come, does so meanwhile: such a question may end a capture."""

    def __init__(self, job, ids):
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            time.sleep(0.5)
            self.loss = job.model(input_ids=ids, labels=ids).loss
            self.loss.backward()

    def replay(self):
        self.graph.replay()
        return self.loss.item()


def captured(name, job, ids, judged):
    """The loss of a replay, or None where the capture failed."""
    job.step(ids)  # an update: the guest's step ends with the capture's own forward
    try:
        loss = Captured(job, ids).replay()
    except Exception as error:
        fact("a graph captured %s" % name, "%s: %s" % (type(error).__name__, str(error).split("\n")[0][:60]), "", False if judged else None)
        return None
    fact("a graph captured %s" % name, "loss of its replay %.5f" % loss, "finite", loss == loss)
    return loss


def graph(args):
    args.layers, args.tokens = 2, 512
    job = Job(args, qwen(args, SMALL), lr=0.0)
    job.optimizer.param_groups[0]["weight_decay"] = 0.0
    job.model.config._experts_implementation = "grouped_mm"
    ids = job.batch()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            job.step(ids)
    torch.cuda.current_stream().wait_stream(side)
    own = captured("before the guest came", job, ids, False)
    client = attached(job, args)
    if own is None:
        return  # this model cannot be captured, whoever is there
    again = [captured("under the guest, %d of 3" % (i + 1), job, ids, True) for i in range(3)]
    wanted = client.send(wire.SWAP, name="moeprof")
    client.settle()
    job.step(ids)  # its activations are kept
    during = captured("while a check is under way", job, ids, True)
    refused = client.send(wire.MEMORY, flags=wire.RESET)
    client.settle()
    for _ in range(3):
        job.step(ids)
    done = client.answer(wanted)[-1]
    fact("the swap asked for before it", "code %d %s" % (done.code, done.text), "done behind it", done.code == 0)
    fact("the request behind it", "code %d" % client.answer(refused)[-1].code, "answered", True)
    fact("losses of the replays", "%s, %s, %s" % (own, again, during), "the same", {own, during, *again} == {own})
    captured("while moeprof's kernels run", job, ids, False)
    job.end()


PARTS = {"speed": speed, "host": host, "onoff": onoff, "losses": losses, "mixtral": wide_experts, "graph": graph}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=32768)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--arms", help="in this order; default: those of the bars")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--no-cupti", action="store_true")
    args = parser.parse_args()
    if not args.arms:
        args.arms = "original,moeprof" if args.lora or not V5 else "eager,grouped_mm,moeprof" if args.tokens < 16384 else "grouped_mm,moeprof"
        if args.part == "mixtral":
            args.arms = "eager,grouped_mm,moeprof"
    torch.cuda.init()
    fact("GPU", "%s, torch %s, transformers %s" % (torch.cuda.get_device_name(), torch.__version__, transformers.__version__))
    begin = time.time()
    PARTS[args.part](args)
    fact("%s took" % args.part, "%.0f s; %d failures" % (time.time() - begin, len(failures)))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
