"""Loss, accuracy and further metrics of an epoch, at the cost of one list append a step."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from mnist_cnn.errors import UserError

# Updating two metrics costs 7 % of a training step of SimpleCNN at batch 64 on two CPU cores, and reading
# a value from a GPU stalls it. The outputs of this many steps are collected and processed at once.
STEPS_PER_UPDATE = 50


class EpochMetrics(nn.Module):
    """Mean loss, accuracy and `extra` metrics over the images of an epoch, over all ranks.

    `extra` are metrics of torchmetrics by name; each is updated with logits (N, K) and targets (N,), and
    computes a scalar. They are cloned, so that each split has its own.
    A loss that is not finite raises `NonFiniteLoss` at most `STEPS_PER_UPDATE` steps later.
    """

    def __init__(self, num_classes: int, extra: Mapping[str, Metric] | None = None) -> None:
        super().__init__()
        accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.loss = MeanMetric()
        self.scores = MetricCollection(
            {"acc": accuracy, **{name: metric.clone() for name, metric in (extra or {}).items()}}
        )
        self.pending: list[tuple[int, Tensor, Tensor, Tensor]] = []

    def add(self, step: int, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a step: its number, loss (), logits (B, K) and targets (B,)."""
        self.pending.append((step, loss.detach(), logits.detach(), targets))
        if len(self.pending) >= STEPS_PER_UPDATE:
            self._update()

    def compute(self) -> dict[str, Tensor]:
        """Return the values of the epoch over all ranks, {"loss": (), "acc": (), …}, and reset.

        The accuracy is a fraction. Raises `UserError` for a metric that is not one number.
        """
        self._update()
        values: dict[str, Tensor] = {"loss": self.loss.compute(), **self.scores.compute()}
        self.loss.reset()
        self.scores.reset()
        for name, value in values.items():
            if value.ndim:
                raise UserError(
                    f"metrics.{name} gives {value.numel()} numbers and not one; set its average, "
                    f"as in metrics.{name}.average=macro."
                )
        return values

    def so_far(self) -> tuple[float, float]:
        """Return the loss and the accuracy of the epoch so far, on this rank; NaN before the first update."""
        loss, accuracy = self.loss.metric_state, self.scores["acc"].metric_state
        mean = torch.as_tensor(loss["mean_value"]) / torch.as_tensor(loss["weight"])
        correct, wrong = torch.as_tensor(accuracy["tp"]), torch.as_tensor(accuracy["fn"])
        return float(mean), float(correct / (correct + wrong))

    def state(self) -> dict[str, Any]:
        """Return what this rank has added in this epoch, as tensors on the CPU and plain values."""
        metrics = {name: dict(metric.metric_state) for name, metric in self._metrics().items()}
        state: dict[str, Any] = move_data_to_device({"pending": self.pending, "metrics": metrics}, "cpu")
        return state

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue with what `state` returned."""
        state = move_data_to_device(state, device)
        self.pending = state["pending"]
        for name, metric in self._metrics().items():
            for key, value in state["metrics"][name].items():
                setattr(metric, key, value)

    def _metrics(self) -> dict[str, Metric]:
        return {"loss": self.loss, **dict(self.scores.items())}

    def _update(self) -> None:
        if not self.pending:
            return
        steps, losses, logits, targets = zip(*self.pending, strict=True)
        self.pending.clear()
        stacked = torch.stack(losses)
        finite = torch.isfinite(stacked)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise NonFiniteLoss(steps[first], float(stacked[first]))
        if self.loss.mean_value.dtype in (torch.bfloat16, torch.float16):  # trainer.precision=bf16-true
            self.loss.set_dtype(torch.float32)
        self.loss.update(stacked, weight=stacked.new_tensor([len(t) for t in targets]))
        self.scores.update(torch.cat(logits), torch.cat(targets))


class NonFiniteLoss(UserError):
    """The loss is NaN or infinite: training has diverged and cannot recover."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(
            f"The loss is {value} at step {step}: training has diverged. Try a smaller learning rate "
            "(optim.lr), clip the gradients (trainer.gradient_clip_val=1), or use full precision "
            "(trainer.precision=32-true)."
        )
