"""What both sample trainings share: options, a model with random weights, random tokens, what is written down.

Nothing is downloaded: the model is made from a configuration, the tokens from a seeded generator.
"""
import argparse
import json
import os
import time

SHAPES = {
    # Qwen3-30B-A3B: every figure but the number of layers is the real one.
    "qwen3-30b": dict(kind="qwen3_moe", hidden_size=2048, num_attention_heads=32, num_key_value_heads=4, head_dim=128,
                      intermediate_size=6144, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8,
                      norm_topk_prob=True, decoder_sparse_step=1, num_hidden_layers=8, vocab_size=151936),
    # DeepSeek-V3: real widths, MLA, shared expert and sigmoid router; 32 of 256 experts to fit one GPU.
    "deepseek-v3": dict(kind="deepseek_v3", hidden_size=7168, num_attention_heads=128, num_key_value_heads=128,
                        intermediate_size=18432, moe_intermediate_size=2048, n_routed_experts=32, n_shared_experts=1,
                        num_experts_per_tok=8, n_group=8, topk_group=4, q_lora_rank=1536, kv_lora_rank=512,
                        qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128, first_k_dense_replace=1,
                        num_hidden_layers=3, vocab_size=32768),
    # Mixtral-8x7B: few wide experts, where a loop over them keeps the GPU busy.
    "mixtral": dict(kind="mixtral", hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
                    intermediate_size=14336, num_local_experts=8, num_experts_per_tok=2, num_hidden_layers=2,
                    vocab_size=32000),
    # Seconds on a CPU.
    "tiny": dict(kind="qwen3_moe", hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                 intermediate_size=128, moe_intermediate_size=32, num_experts=8, num_experts_per_tok=2,
                 norm_topk_prob=True, decoder_sparse_step=1, num_hidden_layers=2, vocab_size=512),
}
LORA_LINEARS = {"qwen3_moe": ["q_proj", "k_proj", "v_proj", "o_proj"],
                "mixtral": ["q_proj", "k_proj", "v_proj", "o_proj"],
                "deepseek_v3": ["q_a_proj", "q_b_proj", "kv_b_proj", "o_proj"]}
LORA_LISTED = ["gate_proj", "up_proj", "down_proj"]
LORA_EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def options(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--model", choices=sorted(SHAPES), default="tiny", help="layer shape")
    add("--layers", type=int, help="decoder layers (default: what fits one 80 GB GPU)")
    add("--vocab", type=int, help="vocabulary size (default: the shape's)")
    add("--experts", help="experts implementation: eager, grouped_mm, batched_mm, .. (default: transformers' own)")
    add("--lora", nargs="?", const="all", choices=["attention", "experts", "all"], help="train LoRA adapters only")
    add("--rank", type=int, default=16, help="LoRA rank")
    add("--liger", action="store_true", help="norms, rotary embedding and a loss without whole logits, by the package liger-kernel")
    add("--checkpointing", choices=["none", "reentrant", "non-reentrant"], default="none")
    add("--tokens", type=int, help="tokens in a sequence (default: 4096 on a GPU, 64 on a CPU)")
    add("--batch", type=int, default=1, help="sequences in a micro-batch")
    add("--accum", type=int, default=1, help="micro-batches in a step")
    add("--data", choices=["full", "padded", "packed"], default="full",
        help="full sequences, padded ones with an attention mask, or several packed into one row")
    add("--steps", type=int, default=10)
    add("--seed", type=int, default=0)
    add("--lr", type=float, default=1e-4)
    add("--device", help="cuda, cuda:1, cpu (default: cuda if there is one)")
    add("--dtype", default="bfloat16", choices=["bfloat16", "float32", "float16"])
    add("--deterministic", action="store_true", help="deterministic algorithms, for bit-identical losses")
    add("--print-losses", metavar="FILE", help="write the losses of all steps as JSON")
    add("--routing", metavar="FILE", help="write the tokens per expert, layer and step, as the model chose them")
    add("--torch-profiler", metavar="FILE", help="record steps with torch.profiler, summarise its kernels as JSON")
    add("--torch-trace", metavar="FILE", help="and export its trace")
    add("--truth", metavar="FILE", help="write which kernels ran the matmuls of which expert, by torch.profiler (eager)")
    add("--profile-from", type=int, default=3, help="first step that torch.profiler records")
    add("--profile-steps", type=int, default=3, help="how many")
    return parser


def prepare(args):
    """Import torch only now: determinism has to be asked for before CUDA starts."""
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    args.tokens = args.tokens or (64 if args.device == "cpu" else 4096)
    args.dtype = getattr(torch, args.dtype)
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(args.deterministic)
    return torch


def make_config(args):
    from transformers import AutoConfig
    shape = dict(SHAPES[args.model])
    kind = shape.pop("kind")
    if args.layers:
        shape["num_hidden_layers"] = args.layers
    if args.vocab:
        shape["vocab_size"] = args.vocab
    return AutoConfig.for_model(kind, max_position_embeddings=max(args.tokens, 4096), use_cache=False, **shape)


def make_model(args):
    import torch
    from transformers import AutoModelForCausalLM
    config = make_config(args)
    if args.liger:
        use_liger(config.model_type)
    with torch.device(args.device):
        model = AutoModelForCausalLM.from_config(config, dtype=args.dtype)
    if args.experts and hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation(args.experts)
    elif args.experts and args.experts != "eager":
        raise SystemExit("this transformers has only the eager experts loop")
    if args.lora:
        model = add_lora(model, config.model_type, args)
    return model.train()


def use_liger(kind):
    """All of Liger's kernels for a kind of model but its experts, which --experts says."""
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as known
    except ImportError as error:
        raise SystemExit("--liger needs the package liger-kernel (%s); pip install liger-kernel" % error)
    if kind not in known:
        raise SystemExit("this liger-kernel knows no '%s'; leave out --liger" % kind)
    known[kind](swiglu=False)


def enable_checkpointing(model, args):
    if args.checkpointing == "none":
        return
    model.gradient_checkpointing_enable({"use_reentrant": args.checkpointing == "reentrant"})
    need_input_grads(model, args)


def need_input_grads(model, args):
    """A reentrant checkpoint computes gradients only if its input asks for them; under adapters it does not."""
    if args.lora and args.checkpointing == "reentrant":
        model.enable_input_require_grads()


def add_lora(model, kind, args):
    from peft import LoraConfig, get_peft_model
    linears = list(LORA_LINEARS[kind]) if args.lora in ("attention", "all") else []
    stacked = LORA_EXPERTS if args.lora in ("experts", "all") else []
    if stacked and not any(name.endswith("experts.gate_up_proj") for name, _ in model.named_parameters()):
        linears, stacked = linears + LORA_LISTED, []  # transformers 4: one Linear an expert
    return get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=args.rank, lora_dropout=0.0, target_modules=linears,
                                            target_parameters=stacked, task_type="CAUSAL_LM"))


class Tokens:
    """Micro-batches of random tokens, the same for the same seed."""

    def __init__(self, args, vocab):
        import torch
        self.torch, self.args, self.vocab = torch, args, vocab
        self.generator = torch.Generator().manual_seed(args.seed + 1)

    def draw(self, low, high, shape):
        return self.torch.randint(low, high, shape, generator=self.generator)

    def __call__(self):
        args, torch = self.args, self.torch
        ids = self.draw(0, self.vocab, (args.batch, args.tokens))
        batch = {"input_ids": ids, "labels": ids.clone()}
        if args.data == "padded":
            lengths = self.draw(args.tokens // 2, args.tokens + 1, (args.batch, 1))
            mask = (torch.arange(args.tokens)[None, :] < lengths).long()
            batch["attention_mask"] = mask
            batch["labels"] = ids.masked_fill(mask == 0, -100)
        elif args.data == "packed":
            batch["position_ids"] = torch.stack([self.positions() for _ in range(args.batch)])
        return batch

    def positions(self):
        """Three segments a row."""
        cuts = sorted(self.draw(1, self.args.tokens, (2,)).tolist())
        bounds = [0, *cuts, self.args.tokens]
        return self.torch.cat([self.torch.arange(b - a) for a, b in zip(bounds, bounds[1:])])


class Routing:
    """Tokens per expert as the model itself chose them, through hooks of our own; recomputed forwards do not count."""

    def __init__(self, model):
        import torch
        self.torch, self.steps, self.now = torch, [], {}
        for name, module in model.named_modules():
            if not name.endswith(".experts"):
                continue
            base = module.get_base_layer() if hasattr(module, "get_base_layer") else module
            if isinstance(base, torch.nn.ModuleList):
                for e, expert in enumerate(base):
                    expert.register_forward_pre_hook(self.count_rows(name, e, len(base)))
            elif hasattr(base, "num_experts"):
                module.register_forward_pre_hook(self.count_indices(name, base.num_experts), with_kwargs=True)

    def replaying(self):
        return self.torch._C._current_graph_task_id() != -1

    def add(self, name, counts):
        self.now[name] = self.now[name] + counts if name in self.now else counts

    def count_indices(self, name, experts):
        torch = self.torch

        def hook(module, args, kwargs):
            if not self.replaying():
                given = [*args, *kwargs.values()]
                index = next(tensor for tensor in given if tensor.dtype in (torch.int64, torch.int32)).flatten().long()
                counts = torch.zeros(experts, dtype=torch.int64, device=index.device)
                self.add(name, counts.scatter_add_(0, index, torch.ones_like(index)))
        return hook

    def count_rows(self, name, expert, experts):
        def hook(module, args):
            if not self.replaying():
                counts = self.torch.zeros(experts, dtype=self.torch.int64)
                counts[expert] = args[0].shape[0]
                self.add(name, counts)
        return hook

    def end_step(self):
        self.steps.append(self.now)
        self.now = {}

    def write(self, path):
        def layer(name):
            return int(next(word for word in name.split(".") if word.isdigit()))
        rows = [{layer(name): counts.tolist() for name, counts in step.items()} for step in self.steps]
        write_json(path, rows)


class KernelSummary:
    """torch.profiler over some steps, as a job would use it itself."""

    def __init__(self, args, model):
        from torch.profiler import ProfilerActivity, profile
        self.args = args
        if args.profile_from + args.profile_steps > args.steps:
            raise SystemExit("torch.profiler is to record steps that are never run: raise --steps")
        self.profile = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
        self.labels = None
        if args.truth:
            import truth
            self.labels = truth.Labels(model)

    def before(self, step):
        if step == self.args.profile_from:
            self.profile.start()
            if self.labels:
                self.labels.__enter__()

    def after(self, step):
        if step == self.args.profile_from + self.args.profile_steps - 1:
            if self.labels:
                self.labels.__exit__(None, None, None)
            synchronize(self.args.device)
            self.profile.stop()
            self.write()

    def write(self):
        kernels = {}
        for event in self.profile.events():
            if "CUDA" in str(event.device_type):
                row = kernels.setdefault(event.name, [0, 0.0])
                row[0] += 1
                row[1] += event.time_range.elapsed_us()
        rows = [{"name": name, "count": count, "microseconds": us}
                for name, (count, us) in sorted(kernels.items(), key=lambda item: -item[1][1])]
        work = [row for row in rows if not row["name"].startswith(("Memcpy", "Memset"))]
        if self.args.torch_profiler:
            write_json(self.args.torch_profiler, {
                "from_step": self.args.profile_from, "steps": self.args.profile_steps,
                "kernels": sum(row["count"] for row in work), "microseconds": sum(row["microseconds"] for row in work),
                "by_name": rows})
        if self.args.truth:
            import truth
            write_json(self.args.truth, {"from_step": self.args.profile_from, "steps": self.args.profile_steps,
                                         "cells": truth.cells(self.profile)})
        if self.args.torch_trace:
            self.profile.export_chrome_trace(self.args.torch_trace)


def profiler_of(args, model):
    return KernelSummary(args, model) if args.torch_profiler or args.torch_trace or args.truth else None


def synchronize(device):
    import torch
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file)
        file.write("\n")


class Journal:
    """One line a step."""

    def __init__(self, args):
        self.args, self.losses, self.seconds = args, [], []
        self.started = time.perf_counter()

    def step(self, loss):
        now = time.perf_counter()
        self.losses.append(loss)
        self.seconds.append(now - self.started)
        print("step %3d  loss %.6f  %.4f s" % (len(self.losses) - 1, loss, now - self.started), flush=True)
        self.started = now

    def write(self):
        if self.args.print_losses:
            write_json(self.args.print_losses, {"losses": self.losses, "seconds": self.seconds})
