"""The machine that a benchmark ran on, and what it can do at best."""

import datetime
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

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


def flops_per_image(network: nn.Module, image_size: int) -> int:
    """Return the floating point operations of one training step, divided by its images.

    Counts those of convolutions and linear layers, forward and backward; a multiplication and an addition
    are two.
    """
    images = torch.zeros(8, 1, image_size, image_size)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return int(counter.get_total_flops() / len(images))


def matmul_rate(dtype: torch.dtype) -> float:
    """Return the floating point operations per second of a 1024 x 1024 matrix product, the best of ten."""
    size = 1024
    left, right = (torch.randn(size, size, device=device()).to(dtype) for _ in range(2))
    return 2 * size**3 / _best_time(lambda: left @ right)


def memory_bandwidth() -> float:
    """Return the bytes per second that are read and written in copying 256 MB, the best of ten."""
    source = torch.zeros(256 * 2**20, dtype=torch.uint8, device=device())
    target = torch.empty_like(source)
    return 2 * len(source) / _best_time(lambda: target.copy_(source))


def _best_time(operation: Callable[[], object]) -> float:
    times = []
    for _ in range(11):
        start = time.perf_counter()
        operation()
        if device().type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])
