"""Loss and accuracy of an epoch, at the cost of one list append a step."""

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from mnist_cnn.errors import UserError

# An update of two metrics costs 7 % of a training step of SimpleCNN at batch 64 on two CPU cores, and
# looking at a value on a GPU stalls it. So what a step returns waits, and is taken in this many at once.
STEPS_AT_ONCE = 50


class EpochMetrics(nn.Module):
    """Mean loss and accuracy over the images of an epoch, over all ranks.

    `compute` gives {"loss": …, "acc": …} as float32 scalars, the accuracy as a fraction. A loss that is
    not finite raises `UserError` with the step it first appeared at, at most `STEPS_AT_ONCE` steps later.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.loss = MeanMetric()
        self.acc = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.waiting: list[tuple[int, Tensor, Tensor, Tensor]] = []

    def add(self, step: int, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Take in a step: its loss (), logits (B, K) and targets (B,)."""
        self.waiting.append((step, loss.detach(), logits.detach(), targets))
        if len(self.waiting) >= STEPS_AT_ONCE:
            self._take_in()

    def compute(self) -> dict[str, Tensor]:
        """Return the epoch's means, summed over the ranks, and start anew."""
        self._take_in()
        means = {"loss": self.loss.compute(), "acc": self.acc.compute()}
        self.loss.reset()
        self.acc.reset()
        return means

    def _take_in(self) -> None:
        if not self.waiting:
            return
        steps, losses, logits, targets = zip(*self.waiting, strict=True)
        self.waiting.clear()
        stacked = torch.stack(losses)
        finite = torch.isfinite(stacked)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise NonFiniteLoss(steps[first], float(stacked[first]))
        self.loss.update(stacked, weight=stacked.new_tensor([len(t) for t in targets]))
        self.acc.update(torch.cat(logits), torch.cat(targets))


class NonFiniteLoss(UserError):
    """The loss became NaN or infinite: training has diverged and cannot recover."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(
            f"The loss became {value} at step {step}: training has diverged. Try a smaller learning rate "
            "(optim.lr), clip the gradients (trainer.gradient_clip_val=1), or use full precision "
            "(trainer.precision=32-true)."
        )
