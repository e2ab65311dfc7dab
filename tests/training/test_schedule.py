"""Learning rate schedules from their settings."""

from typing import Any, Literal
from unittest.mock import Mock

import pytest
import torch
from lightning import Trainer

from mnist_cnn.errors import UserError
from mnist_cnn.training.resume import StopAfterSteps
from mnist_cnn.training.schedule import Schedule

STEP = "torch.optim.lr_scheduler.StepLR"
PLATEAU = "torch.optim.lr_scheduler.ReduceLROnPlateau"


def test_schedule_builds_the_scheduler_it_names() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = Schedule(STEP, step_size=1, gamma=0.1).build(optimizer, Trainer(logger=False))
    optimizer.step()
    scheduler.step()  # type: ignore[call-arg]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheduler": "torch.optim.lr_scheduler.Missing"}, "cannot be imported"),
        ({"scheduler": "subprocess.Popen"}, "not a learning rate scheduler"),
        ({"scheduler": "torch.optim.SGD"}, "not a learning rate scheduler"),
        ({"scheduler": STEP, "interval": "batch"}, "choose epoch or step"),
        ({"scheduler": STEP, "step_size": 1, "monitor": "val/loss"}, "StepLR does not use a metric"),
        ({"scheduler": PLATEAU}, "ReduceLROnPlateau needs scheduler.monitor"),
        ({"scheduler": PLATEAU, "monitor": "val/loss", "interval": "step"}, "interval=epoch"),
    ],
)
def test_invalid_schedule_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Schedule(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheduler": STEP, "step_size": 1, "gama": 0.5}, "'gama'"),
        ({"scheduler": STEP}, "'step_size'"),
        ({"scheduler": PLATEAU, "monitor": "val/loss", "factor": 2.0}, "Factor should be < 1.0"),
    ],
)
def test_arguments_that_the_scheduler_refuses_are_reported(arguments: Any, message: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    with pytest.raises(UserError, match=f"refuses these settings: .*{message}"):
        Schedule(**arguments).build(optimizer, Trainer(logger=False))


def test_too_few_steps_for_a_cycle_are_reported() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = Schedule("torch.optim.lr_scheduler.OneCycleLR", max_lr=1.0, total_steps=5, pct_start=0.2)
    with pytest.raises(UserError, match="OneCycleLR needs more than 5 steps"):
        schedule.build(optimizer, Trainer(logger=False))


@pytest.mark.parametrize(("interval", "length"), [("epoch", 3), ("step", 12)])
def test_automatic_length_is_that_of_the_run_in_the_unit_of_the_interval(
    interval: Literal["epoch", "step"], length: int
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    trainer = Mock(spec=Trainer, callbacks=[], max_epochs=3, estimated_stepping_batches=12)
    for scheduler, name in (("CosineAnnealingLR", "T_max"), ("PolynomialLR", "total_iters")):
        schedule = Schedule(f"torch.optim.lr_scheduler.{scheduler}", interval, **{name: "auto"})
        assert getattr(schedule.build(optimizer, trainer), name) == length
    trainer.callbacks = [StopAfterSteps(7)]  # in the second epoch
    assert getattr(schedule.build(optimizer, trainer), name) == {"epoch": 2, "step": 7}[interval]
