"""Tiny models of the families that the bridge has to recognise, with what is to be expected of each."""
import torch
import transformers
from torch import nn

V5 = int(transformers.__version__.split(".")[0]) >= 5
COMMON = dict(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
              intermediate_size=48, max_position_embeddings=128, use_cache=False)

# name -> (model_type, configuration beyond COMMON, layers with experts, number of experts, top_k)
FAMILIES = {
    "qwen3_moe": ("qwen3_moe", dict(head_dim=8, moe_intermediate_size=16, num_experts=8, num_experts_per_tok=2,
                                    decoder_sparse_step=1, norm_topk_prob=True), (0, 1), 8, 2),
    "qwen2_moe": ("qwen2_moe", dict(moe_intermediate_size=16, shared_expert_intermediate_size=24, num_experts=8,
                                    num_experts_per_tok=2, decoder_sparse_step=1), (0, 1), 8, 2),
    "mixtral": ("mixtral", dict(num_local_experts=4, num_experts_per_tok=2, head_dim=8, sliding_window=None), (0, 1), 4, 2),
    "deepseek_v3": ("deepseek_v3", dict(moe_intermediate_size=16, n_routed_experts=8, n_shared_experts=1, n_group=2,
                                        topk_group=1, num_experts_per_tok=2, q_lora_rank=12, kv_lora_rank=8,
                                        qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=6, num_key_value_heads=4,
                                        first_k_dense_replace=1), (1,), 8, 2),
    "glm4_moe": ("glm4_moe", dict(head_dim=8, moe_intermediate_size=16, n_routed_experts=8, n_shared_experts=1, n_group=1,
                                  topk_group=1, num_experts_per_tok=2, first_k_dense_replace=1), (1,), 8, 2),
    "gpt_oss": ("gpt_oss", dict(head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=8,
                                layer_types=["sliding_attention", "full_attention"]), (0, 1), 4, 2),
    "olmoe": ("olmoe", dict(num_experts=8, num_experts_per_tok=2), (0, 1), 8, 2),
    "ernie4_5_moe": ("ernie4_5_moe", dict(head_dim=8, moe_intermediate_size=16, moe_num_experts=8, moe_k=2,
                                          moe_num_shared_experts=1, moe_layer_start_index=1, moe_layer_end_index=1,
                                          moe_layer_interval=1), (1,), 8, 2),
    "granitemoe": ("granitemoe", dict(num_local_experts=4, num_experts_per_tok=2), (0, 1), 4, 2),
    "phimoe": ("phimoe", dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=None), (0, 1), 4, 2),
    "dots1": ("dots1", dict(head_dim=8, moe_intermediate_size=16, n_routed_experts=8, n_shared_experts=1, n_group=1,
                            topk_group=1, num_experts_per_tok=2, first_k_dense_replace=1), (1,), 8, 2),
    "qwen3_next": ("qwen3_next", dict(head_dim=8, moe_intermediate_size=16, shared_expert_intermediate_size=24, num_experts=8,
                                      num_experts_per_tok=2, decoder_sparse_step=1, linear_num_value_heads=4,
                                      linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
                                      layer_types=["linear_attention", "full_attention"]), (0, 1), 8, 2),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", dict(head_dim=8, num_experts=8, moe_topk=2, pad_token_id=0), (0, 1), 8, 2),
    "llama4": ("llama4_text", dict(head_dim=8, num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=48,
                                   interleave_moe_layer_step=2, attention_chunk_size=64), (1,), 4, 1),
    "llama": ("llama", dict(head_dim=8), (), 0, 0),
}


NEWER = {  # not in 4.57, or of another kind there
    "gemma4": ("gemma4_text", dict(head_dim=8, global_head_dim=8, moe_intermediate_size=16, num_experts=8, top_k_experts=2,
                                   enable_moe_block=True, hidden_size_per_layer_input=0, sliding_window=8,
                                   layer_types=["sliding_attention", "full_attention"]), (0, 1), 8, 2),
    "granitemoeshared": ("granitemoeshared", dict(num_local_experts=4, num_experts_per_tok=2,
                                                  shared_intermediate_size=24), (0, 1), 4, 2),
}
if V5:
    FAMILIES.update(NEWER)


def make(family, **more):
    kind, extra, *_ = FAMILIES[family]
    config = transformers.AutoConfig.for_model(kind, **dict(COMMON, **dict(extra, **more)))
    torch.manual_seed(0)
    attention = "eager" if family == "gpt_oss" else "sdpa"  # its sinks have no sdpa
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).train()


def expectation(family):
    """(layers with experts, experts, top_k)"""
    return FAMILIES[family][2:]


class Expert(nn.Module):
    def __init__(self, hidden, inner):
        super().__init__()
        self.w1 = nn.Linear(hidden, inner, bias=False)
        self.w2 = nn.Linear(inner, hidden, bias=False)
        self.w3 = nn.Linear(hidden, inner, bias=False)

    def forward(self, x):
        return self.w2(nn.functional.silu(self.w1(x)) * self.w3(x))


class ListMoe(nn.Module):
    """The textbook loop over a ModuleList."""

    def __init__(self, hidden=32, inner=16, experts=4, top_k=2):
        super().__init__()
        self.top_k = top_k
        self.gate = nn.Linear(hidden, experts, bias=False)
        self.experts = nn.ModuleList(Expert(hidden, inner) for _ in range(experts))
        self.chosen = []

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        weights, index = torch.topk(self.gate(flat).softmax(-1), self.top_k, dim=-1)
        self.chosen.append(index)
        out = torch.zeros_like(flat)
        for e, expert in enumerate(self.experts):
            rows, slot = torch.where(index == e)
            if len(rows):
                out.index_add_(0, rows, expert(flat[rows]) * weights[rows, slot, None])
        return out.view_as(x)


class Gate(nn.Module):
    def __init__(self, hidden, experts, top_k):
        super().__init__()
        self.top_k = top_k
        self.weight = nn.Parameter(torch.randn(experts, hidden) * 0.02)

    def forward(self, x):
        weights, index = torch.topk((x @ self.weight.t()).softmax(-1), self.top_k, dim=-1)
        return weights, index


class StackedMoe(nn.Module):
    """3-D weights and routing in one module; only the gate knows what was chosen."""

    def __init__(self, hidden=32, inner=16, experts=4, top_k=2):
        super().__init__()
        self.gate = Gate(hidden, experts, top_k)
        self.up = nn.Parameter(torch.randn(experts, hidden, inner) * 0.02)
        self.down = nn.Parameter(torch.randn(experts, inner, hidden) * 0.02)
        self.chosen = []

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        weights, index = self.gate(flat)
        self.chosen.append(index)
        every = torch.einsum("teh,ehd->ted", torch.einsum("th,ehi->tei", flat, self.up).relu(), self.down)
        out = (every.gather(1, index[..., None].expand(-1, -1, flat.shape[-1])) * weights[..., None]).sum(1)
        return out.view_as(x)


class Block(nn.Module):
    def __init__(self, moe, hidden=32):
        super().__init__()
        self.ln_1 = nn.LayerNorm(hidden)
        self.attn = nn.MultiheadAttention(hidden, 4, batch_first=True)
        self.ln_2 = nn.LayerNorm(hidden)
        self.ffn = moe

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.ffn(self.ln_2(x))


class HandWritten(nn.Module):
    def __init__(self, moe, layers=2, hidden=32, vocab=96):
        super().__init__()
        self.tok_emb = nn.Embedding(vocab, hidden)
        self.blocks = nn.ModuleList(Block(moe()) for _ in range(layers))
        self.norm_f = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, vocab, bias=False)

    def forward(self, idx, targets=None):
        x = self.tok_emb(idx)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm_f(x))
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def loss_of(output):
    return output if isinstance(output, torch.Tensor) else output.loss


def train(model, steps=2, accum=1, batch=2, length=12, seed=1, optimizer=None, **inputs):
    """A plain loop; returns the losses as exact floats."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = optimizer or torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        for _ in range(accum):
            ids = torch.randint(3, 96, (batch, length), generator=generator)
            if any(isinstance(module, HandWritten) for module in model.modules()):
                loss = model(ids, ids)
            else:
                loss = loss_of(model(**{"input_ids": ids, "labels": ids, **inputs}))
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses
