"""Swapping: what a stretch of training shows besides its time: the mean loss, and what forward leaves for backward.

Runs from a MEMORY request with RESET to the next without. A loss is added up on its own device, and waited for only
when the request that reads it comes, between steps.
"""


def allocated(device):
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None


def training_loss(output):
    """The loss that the model itself returned, or None: a trainer may compute its own."""
    value = getattr(output, "loss", None)
    if value is None and isinstance(output, (tuple, list)) and output:
        value = output[0]
    return value if isinstance(value, torch.Tensor) and value.numel() == 1 and value.is_floating_point() else None


class Meter:
    def __init__(self, device):
        self.device, self.total, self.n = device, None, 0
        self.before = self.saved = None

    def enter(self):
        """Before a micro-batch's forward. Memory is read in the first one only: asking the allocator takes time."""
        if self.saved is None:
            self.before = allocated(self.device)

    def leave(self, output):
        if self.saved is None and self.before is not None:
            self.saved = allocated(self.device) - self.before
        loss = training_loss(output)
        if loss is None:
            return
        loss = loss.detach().reshape(()).double()
        self.total = loss.clone() if self.total is None else self.total.add_(loss)
        self.n += 1

    def values(self):
        """(mean loss, micro-batches, bytes, nothing): the row LOSS of CONTROL.md."""
        mean = float(self.total) / self.n if self.n else UNKNOWN
        return mean, float(self.n), UNKNOWN if self.saved is None else float(self.saved), UNKNOWN
