"""An exported network against PyTorch: the same logits, and the time that each takes."""

import logging
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_cnn.data import ImageData, Source
from mnist_cnn.errors import UserError
from mnist_cnn.export.description import Description
from mnist_cnn.export.loaded import Run
from mnist_cnn.training import loading

IMAGES = 1000
TOLERANCE = 1e-3  # of logits, relative to the largest one where that is above 1
BATCH_SIZES = (1, 256)
SECONDS = 0.3  # for which each time is measured

Images = NDArray[np.uint8]  # (B, C, S, S)
Logits = NDArray[np.float32]  # (B, K)

log = logging.getLogger(__name__)


class DifferentLogits(Exception):
    """An exported network does not compute what the network of the checkpoint computes."""


def check_images(path: Path, description: Description, data_dir: str | None) -> tuple[Images, str]:
    """Return up to 1,000 images of the network's size, and a phrase that says which.

    They are test images of the checkpoint's data set; noise where these cannot be had.
    """
    settings = loading.load(path)["config"]["data"]
    try:
        settings |= {
            "image_size": description.image_size,
            "dir": loading.data_dir(settings, data_dir),
        }
        source = loading.build(settings["source"], Source)  # type: ignore[type-abstract]
        data = loading.build(settings, ImageData, source=source)
        data.prepare_data()
        data.setup()
    except UserError as error:
        log.info(f"no test images of {description.data}: {str(error).splitlines()[0]}")
        size = description.image_size
        shape = (IMAGES, description.in_channels, size, size)
        return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8), "images of noise"
    assert data.test is not None
    images = data.test.images[:IMAGES].contiguous().numpy()
    return images, f"test images of {description.data}"


def compare(expected: Logits, actual: Logits) -> str:
    """Return the agreement of two arrays of logits in words; raises `DifferentLogits` above the tolerance."""
    difference = float(np.abs(expected - actual).max())
    same = int((expected.argmax(1) == actual.argmax(1)).sum())
    words = f"largest difference {difference:.1e}, the same prediction for {same:,} of {len(expected):,}"
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise DifferentLogits(f"The exported network differs from that of the checkpoint: {words}.")
    return words


def log_times(runs: Mapping[str, Run], images: Images) -> None:
    """Print the latency and throughput of each of `runs` at each batch size."""
    for batch_size in BATCH_SIZES:
        batch = np.resize(images, (batch_size, *images.shape[1:]))  # repeats images where there are fewer
        for name, run in runs.items():
            seconds = median_seconds(run, batch)
            log.info(
                f"{name:<12} batch {batch_size:>3}: {seconds * 1000:8.3f} ms, "
                f"{batch_size / seconds:>9,.0f} images/s"
            )


def median_seconds(run: Run, batch: Images) -> float:
    """Return the median time of a call, over the calls that fit in `SECONDS`, and at least 3."""
    run(batch)  # the first call allocates
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS:
        start = time.perf_counter()
        run(batch)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
