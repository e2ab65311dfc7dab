"""The figures that are logged during training."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch import nn

from mnist_cnn.data import ImageData
from mnist_cnn.errors import UserError
from mnist_cnn.models import CnnNet, SimpleCNN
from mnist_cnn.reporting import figures
from mnist_cnn.reporting.network_figures import Figures, layer_outputs
from tests.reporting.short_run import fit


class ImageRecorder(Logger):
    """A logger of the kind that has `log_image`."""

    name = version = "recorder"

    def __init__(self) -> None:
        super().__init__()
        self.images: list[tuple[int, str]] = []

    def log_hyperparams(self, params: Any) -> None: ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None: ...

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        assert all(image.ndim == 3 for image in images)
        self.images.append((step, key))


TAGS = ["predictions/validation", "kernels/first_convolution", "feature_maps/layer_by_layer"]


def test_figures_are_logged_at_start_every_n_epochs_and_at_end(small_data: ImageData) -> None:
    logger = ImageRecorder()
    fit(small_data, [Figures(every_n_epochs=2)], [logger], max_epochs=3)
    assert logger.images == [(epoch, tag) for epoch in (0, 2, 3) for tag in TAGS]


class WithNormAndDropout(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(2 * 26 * 26, 10)
        )


def test_figures_do_not_change_training(small_data: ImageData) -> None:
    plain, _ = fit(small_data, [], network=WithNormAndDropout)
    drawn, _ = fit(small_data, [Figures(1)], [ImageRecorder()], network=WithNormAndDropout)
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
        classifier, _ = fit(small_data, [Figures(1)], [ImageRecorder()], max_epochs=1)
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
        Figures(0)


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
    assert not any(module._forward_hooks for module in network.modules())
