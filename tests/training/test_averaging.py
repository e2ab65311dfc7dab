import lightning as L
import pytest
import torch
from torch import nn

from mnist_cnn.errors import UserError
from mnist_cnn.training.averaging import EMA


class Counting(L.LightningModule):
    """Has one weight, which is 1 after the first step, 2 after the second, …"""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("steps", torch.tensor(0))
        self.validated: list[float] = []

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return -self.weight

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.weight.item())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1)


def trained(ema: EMA, epochs: int, precision: str = "32-true") -> Counting:
    module, loader = Counting(), torch.utils.data.DataLoader(torch.zeros(10, 1))
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[ema],
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, loader, torch.utils.data.DataLoader(torch.zeros(1, 1)))
    return module


def average(decay: float, every: int, steps: int) -> float:
    value = 0.0
    for updates, step in enumerate(range(0, steps, every)):
        rate = min(decay**every, (1 + updates) / (10 + updates)) if updates else 0
        value = rate * value + (1 - rate) * (step + 1)
    return value


@pytest.mark.parametrize(("decay", "every"), [(0.9, 1), (0.9, 3), (0.2, 1)])
def test_weights_are_averaged_with_a_decay_that_grows(decay, every):
    module = trained(EMA(decay, every), epochs=2)
    assert module.weight.item() == pytest.approx(average(decay, every, 20))
    assert module.validated == pytest.approx([average(decay, every, 10), average(decay, every, 20)])
    assert module.steps.dtype == torch.int64


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_weights_of_another_precision_are_refused(precision):
    with pytest.raises(UserError, match=f"averages in float32, but trainer.precision={precision}"):
        trained(EMA(), 1, precision)


def test_values_out_of_bounds_are_refused():
    with pytest.raises(UserError, match=r"decay=1\.0"):
        EMA(decay=1.0)
    with pytest.raises(UserError, match="every_n_steps=0"):
        EMA(every_n_steps=0)
