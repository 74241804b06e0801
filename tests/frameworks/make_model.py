"""Writes the model, tokenizer and text that all jobs train on:  mk.py FOLDER"""
import json, os, random, sys
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

V = int(os.environ.get("FW_VOCAB", 8192))
small = bool(os.environ.get("FW_TINY"))
out = sys.argv[1]
os.makedirs(out, exist_ok=True)
words = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{"w%d" % i: i for i in range(3, V)}}
t = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
t.pre_tokenizer = pre_tokenizers.Whitespace()
tk = PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
                             model_max_length=4096, padding_side="right")
tk.save_pretrained(out + "/m")
torch.manual_seed(0)
cfg = Qwen3MoeConfig(vocab_size=V, hidden_size=1024, num_hidden_layers=4, num_attention_heads=16, num_key_value_heads=4,
                     head_dim=64, intermediate_size=2048, moe_intermediate_size=512, num_experts=32,
                     num_experts_per_tok=8, norm_topk_prob=True, max_position_embeddings=4096, use_cache=False,
                     pad_token_id=0, eos_token_id=1, bos_token_id=1)
if small:
    cfg.hidden_size, cfg.moe_intermediate_size, cfg.num_experts, cfg.num_experts_per_tok = 64, 32, 8, 2
    cfg.num_hidden_layers, cfg.head_dim = 2, 16
    if hasattr(cfg, "layer_types") and cfg.layer_types:
        cfg.layer_types = cfg.layer_types[:2]
Qwen3MoeForCausalLM(cfg).to(torch.bfloat16).save_pretrained(out + "/m")
rng = random.Random(0)
with open(out + "/d.jsonl", "w") as f:
    for _ in range(int(os.environ.get("FW_ROWS", 512))):
        f.write(json.dumps({"text": " ".join("w%d" % rng.randrange(3, V) for _ in range(2040))}) + "\n")
