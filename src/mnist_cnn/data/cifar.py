"""CIFAR-10, as torchvision gets, verifies and reads it."""

from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor
from torchvision import datasets

from mnist_cnn.data import download
from mnist_cnn.data.source import DataUnavailable, Source


class CIFAR10(Source):
    """Photographs of ten kinds of animals and vehicles, 50,000 to train on and 10,000 to test.

    Every start verifies the checksums. Missing files are unpacked from the archive in `data.dir`, which is
    downloaded if it is not there.
    """

    def fetch(self, directory: Path) -> str:
        """Make sure that all files are there and verified; raises `DataUnavailable` if not."""
        try:
            datasets.CIFAR10(directory)
        except RuntimeError:  # they are not there, or not intact
            directory.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(directory / ".CIFAR10.lock"):
                    download.with_torchvision("CIFAR10", directory)
            except download.DownloadFailed as reason:
                raise DataUnavailable(
                    f"CIFAR10 could not be downloaded: {reason}\n"
                    f"Put {datasets.CIFAR10.filename} into {directory.resolve()}."
                ) from None
        return f"{directory / datasets.CIFAR10.base_folder} (checksums verified)"

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, 3, 32, 32) and int64 labels (N,)."""
        dataset = datasets.CIFAR10(directory, train)
        return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)
