"""What the notebooks share: the settings of train.py, MNIST, and a comparison of numbers."""

from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from mnist_cnn.app.paths import CONF
from mnist_cnn.data import ImageData
from mnist_cnn.files import ROOT


def compose_settings(*overrides: str) -> DictConfig:
    """Return the settings of `python train.py OVERRIDES`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = compose("train", overrides=list(overrides))
    settings.data.dir = str(ROOT / "data")
    return settings


def load_mnist(*overrides: str) -> ImageData:
    """Return MNIST as configured by `python train.py OVERRIDES`; it is downloaded the first time."""
    data: ImageData = instantiate(compose_settings(*overrides).data)
    data.prepare_data()
    data.setup()
    return data


def compare(what: str, ours: Any, expected: Any, within: float = 1e-6) -> None:
    """Print the largest difference between two arrays or tensors, and fail if it is above `within`."""
    numbers = [torch.as_tensor(values, dtype=torch.float64).detach() for values in (ours, expected)]
    difference = (numbers[0] - numbers[1]).abs().max().item()
    print(f"{what}: largest difference {difference:.1g}")
    assert difference <= within
