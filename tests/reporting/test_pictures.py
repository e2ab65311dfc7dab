"""The figures that are logged during training: when, and that they change and break nothing."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mnist_cnn.data import ImageData
from mnist_cnn.errors import UserError
from mnist_cnn.models import CnnNet, SimpleCNN
from mnist_cnn.reporting import figures
from mnist_cnn.reporting.pictures import Pictures, layer_outputs
from tests.reporting.short_run import Recorder, fit

TAGS = ["visuals/predictions_validation", "visuals/kernels", "visuals/feature_maps"]


def test_figures_are_logged_at_start_every_n_epochs_and_at_end(small_data: ImageData) -> None:
    logger = Recorder()
    fit(small_data, [Pictures(every_n_epochs=2)], [logger], max_epochs=3)
    steps = [0, 6, 9]  # three steps per epoch
    assert logger.images == [(step, tag) for step in steps for tag in TAGS]


class WithNormAndDropout(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(2 * 26 * 26, 10)
        )


def test_figures_do_not_change_training(small_data: ImageData) -> None:
    plain, _ = fit(small_data, [], network=WithNormAndDropout)
    drawn, _ = fit(small_data, [Pictures(1)], [Recorder()], network=WithNormAndDropout)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, drawn.state_dict()[name]), name


def test_failing_figure_is_a_warning(
    small_data: ImageData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def fail(*arguments: Any) -> None:
        raise ValueError("no such colour")

    monkeypatch.setattr(figures, "kernels", fail)
    file = logging.FileHandler(tmp_path / "train.log")
    logging.getLogger().addHandler(file)
    try:
        classifier, _ = fit(small_data, [Pictures(1)], [Recorder()], max_epochs=1)
    finally:
        logging.getLogger().removeHandler(file)
        file.close()
    assert len(classifier.history) == 1
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("the figures of the network could not be made: ValueError: no such colour") == 2
    assert not any("Traceback" in message for message in messages)
    assert "Traceback" in (tmp_path / "train.log").read_text()


def test_every_n_epochs_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="every_n_epochs=0: give 1 or more"):
        Pictures(0)


@pytest.mark.parametrize(
    ("network", "size", "expected"),
    [
        (SimpleCNN(), 28, {"conv1": (32, 28, 28), "conv2": (64, 14, 14), "fc1": (128,), "fc2": (10,)}),
        (
            CnnNet(),
            32,
            {"conv1": (6, 28, 28), "conv2": (16, 10, 10), "fc1": (120,), "fc2": (84,), "fc3": (10,)},
        ),
    ],
)
def test_layer_outputs_are_those_of_one_image_in_order(
    network: nn.Module, size: int, expected: dict[str, tuple[int, ...]]
) -> None:
    outputs = layer_outputs(network, torch.rand(1, 1, size, size))
    assert {name: tuple(values.shape) for name, values in outputs.items()} == expected
    assert list(outputs) == list(expected)
    network(torch.rand(1, 1, size, size))  # no hook is left, which would change the values
    assert all(values.isfinite().all() for values in outputs.values())
