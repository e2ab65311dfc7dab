"""CIFAR-10, as torchvision gets, verifies and reads it."""

import logging
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor
from torchvision import datasets

from mnist_cnn.data import download
from mnist_cnn.data.source import DataUnavailable, Source

log = logging.getLogger(__name__)


class CIFAR10(Source):
    """Photographs of ten kinds of animals and vehicles, 50,000 to train on and 10,000 to test.

    Every start verifies the checksums. Missing files are unpacked from the archive in `data.dir`, which is
    downloaded if it is not there.
    """

    def fetch(self, directory: Path) -> str:
        """Make sure that all files are there and verified; raises `DataUnavailable` if not."""
        folder, archive = directory / datasets.CIFAR10.base_folder, datasets.CIFAR10.filename
        try:
            datasets.CIFAR10(directory)
        except RuntimeError:  # files are missing or damaged
            directory.mkdir(parents=True, exist_ok=True)
            log.info("Getting CIFAR10: %s, or torchvision's mirror", directory / archive)
            try:
                with FileLock(directory / ".CIFAR10.lock"):
                    download.with_torchvision("CIFAR10", directory)
            except download.DownloadFailed as reason:
                raise DataUnavailable(
                    f"CIFAR10 could not be downloaded: {reason}\n"
                    f"Remove {folder} if it is there, and put {archive} into {directory.resolve()}."
                ) from None
        return f"{folder} (checksums verified)"

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, 3, 32, 32) and int64 labels (N,)."""
        dataset = datasets.CIFAR10(directory, train)
        return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)
