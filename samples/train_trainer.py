"""The same training through transformers' Trainer.

    python samples/train_trainer.py                                          a few seconds on a CPU
    python samples/train_trainer.py --model qwen3-30b --lora --checkpointing non-reentrant
"""
import tempfile

import common


def collate(rows):
    import torch
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def rows_of(args, vocab):
    """Every row the steps need, one by one, from the generator that the plain loop uses."""
    tokens = common.Tokens(args, vocab)
    for _ in range(args.steps * args.accum):
        batch = tokens()
        yield from ({name: tensor[i] for name, tensor in batch.items()} for i in range(args.batch))


def main():
    args = common.options(__doc__.splitlines()[0]).parse_args()
    torch = common.prepare(args)
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model = common.make_model(args)
    common.need_input_grads(model, args)
    routing = common.Routing(model) if args.routing else None
    profiler = common.profiler_of(args, model)
    journal = common.Journal(args)

    class Steps(TrainerCallback):
        """on_log comes with the loss of the step; everything else hangs on it."""

        def on_step_begin(self, _, state, control, **kwargs):
            if profiler:
                profiler.before(state.global_step)

        def on_log(self, _, state, control, logs=None, **kwargs):
            if "loss" in logs:
                journal.step(float(logs["loss"]))
                if routing:
                    routing.end_step()
                if profiler:
                    profiler.after(state.global_step - 1)

    with tempfile.TemporaryDirectory() as out:
        settings = TrainingArguments(
            out, max_steps=args.steps, per_device_train_batch_size=args.batch, gradient_accumulation_steps=args.accum,
            learning_rate=args.lr, lr_scheduler_type="constant", max_grad_norm=1.0, seed=args.seed,
            bf16=args.dtype == torch.bfloat16, use_cpu=args.device == "cpu", logging_steps=1, save_strategy="no",
            report_to="none", disable_tqdm=True, dataloader_num_workers=0,
            optim="adamw_torch_fused" if args.device != "cpu" else "adamw_torch",
            gradient_checkpointing=args.checkpointing != "none",
            gradient_checkpointing_kwargs={"use_reentrant": args.checkpointing == "reentrant"})
        trainer = Trainer(model=model, args=settings, train_dataset=list(rows_of(args, model.config.vocab_size)),
                          data_collator=collate, callbacks=[Steps()])
        trainer.train()

    journal.write()
    if routing:
        routing.write(args.routing)


if __name__ == "__main__":
    main()
