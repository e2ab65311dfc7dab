"""CIFAR-10: six pickles of colour images in one archive, in torchvision's folder layout."""

import io
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mnist_cnn.data.published import Download, PublishedSource, check, load_arrays, read_file


class CIFAR10(PublishedSource):
    """Photographs of ten kinds of animals and vehicles, 50,000 to train on and 10,000 to test."""

    name = "CIFAR10"
    folder = "cifar-10-batches-py"
    archive: ClassVar = "cifar-10-python.tar.gz"
    archive_md5: ClassVar = "c58f30108f718f92721af3b95e74349a"
    md5: ClassVar = {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    }
    hints = (f"Put {archive} into the folder data.dir.",)

    def places(self, directory: Path) -> Iterator[tuple[str, Download]]:
        """Yield an archive that is already there, and torchvision's mirror."""
        archive = directory / self.archive
        if archive.is_file():
            yield str(archive), partial(self._unpack, archive)
        yield from super().places(directory)

    def _unpack(self, archive: Path, folder: Path) -> None:
        content = read_file(archive)
        check(content, self.archive_md5)
        (folder / self.folder).mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as opened:
            for file in self.md5:
                member = opened.extractfile(f"{self.folder}/{file}")
                assert member is not None  # a regular file, because the checksum is right
                (folder / self.folder / file).write_bytes(member.read())

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, 3, 32, 32) and int64 labels (N,)."""
        images, labels = [], []
        for file in self.md5:
            if file.startswith("data_batch") == train:
                with (directory / self.folder / file).open("rb") as opened:
                    batch = load_arrays(opened)
                images.append(batch["data"].reshape(-1, 3, 32, 32))
                labels += batch["labels"]
        return torch.from_numpy(np.concatenate(images)), torch.tensor(labels)
