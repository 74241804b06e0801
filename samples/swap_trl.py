"""trl's SFTTrainer on random text and a random Qwen3-MoE, offline: the job of a user who never asked for an experts
implementation. From trl 1.10 on it needs a GPU: its own lm_head is Triton. As trl does by default the weights are bfloat16 under autocast, or float32 with --fp32.

    moeprof run --swap -- python samples/swap_trl.py --model qwen3-30b --layers 4
"""
import os

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1",
                  WANDB_DISABLED="true")

import tempfile

import common


def tokenizer(vocab):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{"w%d" % i: i for i in range(3, vocab)}}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def main():
    parser = common.options(__doc__)
    parser.add_argument("--fp32", action="store_true", help="float32 weights under bfloat16 autocast")
    args = parser.parse_args()
    torch = common.prepare(args)
    if args.fp32:
        args.dtype = torch.float32
    import datasets
    import trl
    args.vocab = args.vocab or 8192
    model = common.make_model(args)
    draw = torch.Generator().manual_seed(args.seed)
    rows = [{"input_ids": torch.randint(3, args.vocab, (args.tokens,), generator=draw).tolist()}
            for _ in range(args.steps * args.batch * args.accum)]
    config = trl.SFTConfig(
        output_dir=tempfile.mkdtemp(), max_steps=args.steps, per_device_train_batch_size=args.batch,
        gradient_accumulation_steps=args.accum, max_length=args.tokens, learning_rate=args.lr, logging_steps=1,
        save_strategy="no", report_to="none", bf16=args.dtype is not torch.float16, use_cpu=args.device == "cpu",
        gradient_checkpointing=args.checkpointing != "none",
        gradient_checkpointing_kwargs={"use_reentrant": args.checkpointing == "reentrant"})
    trl.SFTTrainer(model=model, args=config, train_dataset=datasets.Dataset.from_list(rows),
                   processing_class=tokenizer(args.vocab)).train()


if __name__ == "__main__":
    main()
