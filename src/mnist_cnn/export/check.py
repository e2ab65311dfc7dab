"""Compare an exported network with PyTorch: the same logits, and the time that each takes."""

import functools
import logging
import statistics
import timeit
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mnist_cnn.data import ImageData, Source
from mnist_cnn.errors import UserError
from mnist_cnn.export.exported import Description, Function, Images, Logits
from mnist_cnn.training import building, loading

IMAGES = 1000
TOLERANCE = 1e-3  # of a logit; relative to the largest logit if that is above 1
BATCH_SIZES = (1, 256)
REPEATS = 20  # of each measurement of time

log = logging.getLogger(__name__)


class DifferentLogits(Exception):
    """An exported network does not compute what the network of the checkpoint computes."""


def sample_images(
    path: Path, description: Description, data_dir: str | None, trusted: Sequence[str] = ()
) -> tuple[Images, str]:
    """Return up to 1,000 images for the network of the checkpoint at `path`, and a phrase that names them.

    They are test images of its data set, or noise if these are not available.
    """
    settings = loading.load(path)["config"]["data"]
    size = description.image_size
    try:
        settings |= {"image_size": size, "dir": loading.data_dir(settings, data_dir)}
        source = building.build(settings["source"], Source, trusted)  # type: ignore[type-abstract]
        data = building.build(settings, ImageData, trusted, source=source, extra=None)
        data.prepare_data()
        data.setup()
    except UserError as error:
        log.info(f"no test images of {description.data}: {str(error).splitlines()[0]}")
        shape = (IMAGES, description.in_channels, size, size)
        return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8), "images of noise"
    images = data.test.images[:IMAGES].contiguous().numpy()
    return images, f"test images of {description.data}"


def compare(expected: Logits, actual: Logits) -> str:
    """Return in words how well the logits agree; raises `DifferentLogits` above the tolerance."""
    difference = float(np.abs(expected - actual).max())
    same = int((expected.argmax(1) == actual.argmax(1)).sum())
    words = f"largest difference {difference:.1e}, the same prediction for {same:,} of {len(expected):,}"
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise DifferentLogits(f"The exported network differs from that of the checkpoint: {words}.")
    return words


def log_times(functions: Mapping[str, Function], images: Images) -> None:
    """Log the median latency and the throughput of each function at each batch size."""
    for batch_size in BATCH_SIZES:
        batch = np.resize(images, (batch_size, *images.shape[1:]))  # repeats images if there are fewer
        for name, function in functions.items():
            times = timeit.repeat(functools.partial(function, batch), number=1, repeat=REPEATS)
            seconds = statistics.median(times)
            log.info(
                f"{name:<12} batch {batch_size:>3}: {seconds * 1000:8.3f} ms, "
                f"{batch_size / seconds:>9,.0f} images/s"
            )
