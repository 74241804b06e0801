"""Which expert a product belongs to, told by the GPU itself: an eager loop that puts a marker into the stream
before each expert's work, forward and backward.

The marker is a copy inside the GPU whose size names (layer, expert), so the truth is the order of operations on
the stream, and owes nothing to autograd's sequence numbers or to weight addresses. The job then writes what the
guest published (dump_shm) beside it; tests/gpu/evaluate.py compares.

    truth_eager.py OUT.txt DUMP_SHM LAYERS
"""
import os
import subprocess
import sys
import time

import common

BASE_KIB = 40000  # no copy of the training itself is of such a size


class Marker:
    def __init__(self, torch, count, device):
        self.torch = torch
        self.bytes = torch.zeros(2, (BASE_KIB + count) * 1024, dtype=torch.uint8, device=device)

    def put(self, number):
        n = (BASE_KIB + number) * 1024
        self.bytes[0, :n].copy_(self.bytes[1, :n])


def make_marked_experts(torch, marker, layer_of, n_experts):
    class Mark(torch.autograd.Function):
        """Identity; its backward runs when the expert's output has its gradient: before the expert's own."""

        @staticmethod
        def forward(ctx, tensor, number):
            ctx.number = number
            return tensor.view_as(tensor)

        @staticmethod
        def backward(ctx, grad):
            marker.put(ctx.number)
            return grad, None

    def forward(self, hidden_states, top_k_index, top_k_weights):
        out = torch.zeros_like(hidden_states)
        chosen = torch.nn.functional.one_hot(top_k_index, n_experts).permute(2, 1, 0)
        for expert in range(n_experts):
            slot, token = torch.where(chosen[expert])
            if token.numel() == 0:
                continue
            number = layer_of[id(self)] * n_experts + expert
            marker.put(number)
            both = torch.nn.functional.linear(hidden_states[token], self.gate_up_proj[expert])
            gate, up = both.chunk(2, dim=-1)
            y = torch.nn.functional.linear(torch.nn.functional.silu(gate) * up, self.down_proj[expert])
            y = Mark.apply(y, number)
            out.index_add_(0, token, (y * top_k_weights[token, slot, None]).to(out.dtype))
        return out

    return forward


def main():
    path, dump, layers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    sys.argv = ["truth", "--model", "qwen3-30b", "--layers", str(layers), "--experts", "eager", "--vocab", "8192"]
    args = common.options("").parse_args()
    torch = common.prepare(args)
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    model = common.make_model(args)
    blocks = [layer.mlp.experts for layer in model.model.layers]
    n_experts = blocks[0].num_experts
    marker = Marker(torch, layers * n_experts, args.device)
    layer_of = {id(block): i for i, block in enumerate(blocks)}
    ALL_EXPERTS_FUNCTIONS.register("marked", make_marked_experts(torch, marker, layer_of, n_experts))
    model.set_experts_implementation("marked")
    tokens = common.Tokens(args, model.config.vocab_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for _ in range(4):
        batch = {name: tensor.to(args.device) for name, tensor in tokens().items()}
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.synchronize()
    time.sleep(1.0)  # the guest's next rounds
    folder = next(word[4:] for word in os.environ["MOEPROF"].split(",") if word.startswith("dir="))
    with open(path, "w") as out:
        subprocess.run([dump, folder, str(os.getpid()), "all"], stdout=out, check=True)


if __name__ == "__main__":
    main()
