"""An exponential moving average of the weights during training."""

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mnist_cnn.errors import UserError


class EMA(WeightAveraging):
    """Averages the weights with a decay of `decay` a step; the average is validated, tested and saved.

    The average is updated every `every_n_steps` steps, then with `decay**every_n_steps`. At first the decay
    is smaller, (1 + n) / (10 + n) after n updates, so that the initial weights do not dominate the average
    (the same rule as in TensorFlow's ExponentialMovingAverage). The statistics of batch
    normalization are averaged like weights. A resumed run continues the average exactly.
    Raises `UserError` for values out of bounds.
    """

    def __init__(self, decay: float = 0.999, every_n_steps: int = 5) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"callbacks.ema.decay={decay}: it should be at least 0 and less than 1.")
        if every_n_steps < 1:
            raise UserError(f"callbacks.ema.every_n_steps={every_n_steps}: it should be at least 1.")
        super().__init__(multi_avg_fn=self._update)
        self.decay = decay**every_n_steps
        self.every_n_steps = every_n_steps

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.precision in ("64-true", "bf16-true", "16-true"):  # the copy of the weights is in float32
            raise UserError(
                f"callbacks=ema averages in float32, but trainer.precision={trainer.precision}: choose "
                "32-true, bf16-mixed or 16-mixed."
            )
        super().setup(trainer, pl_module, stage)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether to update after the step `step_idx`, from 0; the first step starts the average."""
        return step_idx is not None and step_idx % self.every_n_steps == 0

    def _update(self, averages: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
        decay = min(self.decay, (1 + int(updates)) / (10 + int(updates)))
        get_ema_multi_avg_fn(decay)(averages, current, updates)
