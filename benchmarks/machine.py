"""The machine that a benchmark ran on."""

import datetime
import os
import platform
from typing import Any

import torch

from mnist_cnn.training.precision import cpu_name, native_precision


def device() -> torch.device:
    """Return the device that train.py chooses."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe() -> dict[str, Any]:
    """Return the date and what figures depend on: processor, threads, precision and versions."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **({"gpus": gpus} if gpus else {}),
        "precision": native_precision(device()),
        "python": platform.python_version(),
        "torch": torch.__version__.partition("+")[0],
    }
