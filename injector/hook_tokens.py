"""Tokens of a micro-batch, by metadata and by what the host knows.

Executed after hook_model.py, among the same globals.
"""
def causal_pairs(length, window):
    if not window or window >= length:
        return length * (length + 1) // 2
    return window * length - window * (window - 1) // 2


def tokens_of(given):
    """The tensor of the tokens or their embeddings among what the model was called with; None: not recognised."""
    named = (given.get(name) for name in ("input_ids", "inputs_embeds", "tokens", "idx", "x"))
    return next((value for value in (*named, *given.values()) if isinstance(value, torch.Tensor)), None)


def token_shape(tensor):
    """(batch, length) by metadata alone."""
    sizes = tuple(tensor.shape)
    if tensor.is_floating_point():
        sizes = sizes[:-1]  # embeddings: the last dimension is the hidden size
    return sizes if len(sizes) == 2 else (1,) + sizes if len(sizes) == 1 else None


def beside(tokens, shape, value):
    """A mask, labels or positions that can be counted with the tokens: of their shape, on their device."""
    fits = isinstance(value, torch.Tensor) and tuple(value.shape) == shape and value.device == tokens.device
    return value if fits else None


def head_rows(given, batch, length):
    """Rows of the lm_head product: logits_to_keep counts from the end (0: all), or lists positions."""
    keep = given.get("logits_to_keep", given.get("num_logits_to_keep", 0))
    if isinstance(keep, torch.Tensor):
        return batch * keep.numel()
    return batch * min(keep, length) if isinstance(keep, int) and keep > 0 else None


def segment_lengths(given):
    """Lengths of packed sequences when the job keeps them on the host."""
    bounds = given.get("cu_seq_lens_q")
    if isinstance(bounds, torch.Tensor):
        if bounds.device.type != "cpu":
            return None
        bounds = bounds.tolist()
    return [b - a for a, b in zip(bounds, bounds[1:])] if bounds else None


def count_tokens(given, windows):
    tokens = tokens_of(given)
    shape = token_shape(tokens) if tokens is not None else None
    if shape is None:
        guest.micro(None, None, None, None, None, None, 0)
        return
    batch, length = shape
    mask = beside(tokens, shape, given.get("attention_mask"))
    labels = beside(tokens, shape, given.get("labels", given.get("targets")))
    positions = beside(tokens, shape, given.get("position_ids"))
    lengths = segment_lengths(given) if mask is None and positions is None else None
    on_device = mask is not None or positions is not None
    processed = batch * length
    guest.micro(processed, processed if mask is None else None, None, head_rows(given, batch, length),
                None if on_device else len(lengths) if lengths else batch, batch, MEASURED)
    if on_device or labels is not None:
        guest.micro_mask(mask, labels, positions, windows if on_device else [])
    if not on_device:
        for window in windows:
            full = batch * causal_pairs(length, window)
            useful = sum(causal_pairs(one, window) for one in lengths) if lengths else full
            guest.pairs(window, useful, full, max(lengths) if lengths else length, MEASURED)
