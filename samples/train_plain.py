"""A MoE training as people write it by hand: model, AdamW, a loop. Random weights, random tokens.

    python samples/train_plain.py                                         a few seconds on a CPU
    python samples/train_plain.py --model qwen3-30b --experts eager       one 80 GB GPU
"""
import common


def main():
    args = common.options(__doc__.splitlines()[0]).parse_args()
    torch = common.prepare(args)
    model = common.make_model(args)
    common.enable_checkpointing(model, args)
    tokens = common.Tokens(args, model.config.vocab_size)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.lr, fused=args.device.startswith("cuda"))
    routing = common.Routing(model) if args.routing else None
    profiler = common.profiler_of(args, model)
    journal = common.Journal(args)

    for step in range(args.steps):
        if profiler:
            profiler.before(step)
        total = 0.0
        for _ in range(args.accum):
            batch = {name: tensor.to(args.device) for name, tensor in tokens().items()}
            loss = model(**batch).loss / args.accum
            loss.backward()
            total = total + loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        journal.step(float(total))
        if routing:
            routing.end_step()
        if profiler:
            profiler.after(step)

    journal.write()
    if routing:
        routing.write(args.routing)


if __name__ == "__main__":
    main()
