"""CIFAR-10: six pickles of colour images in one archive, in torchvision's folder layout."""

import io
import tarfile
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mnist_cnn.data.download import MAX_DOWNLOAD_BYTES, Unusable, download, load_arrays, md5_of, read_bytes
from mnist_cnn.data.source import DataUnavailable, Offer, PublishedSource

MAX_MEMBER_BYTES = 40_000_000  # the largest file of the archive has 31 MB


class CIFAR10(PublishedSource):
    """Photographs of ten kinds of animals and vehicles, 50,000 to train on and 10,000 to test."""

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

    def offers(self, directory: Path) -> Iterator[Offer]:
        """Yield an archive that is already there, and torchvision's address of it."""
        archive = directory / self.archive
        if archive.is_file():
            get = partial(read_bytes, archive, MAX_DOWNLOAD_BYTES)
            yield Offer(str(archive), f"unpacked from {archive}", partial(self._unpack, get))

        import torchvision.datasets  # here, because it takes seconds and is seldom needed

        url = torchvision.datasets.CIFAR10.url
        host = urllib.parse.urlsplit(url).netloc
        yield Offer(url, f"downloaded from {host}", partial(self._unpack, partial(download, url)))

    def _unpack(self, get: Callable[[], bytes], files: list[str]) -> Iterator[tuple[str, bytes]]:
        content = get()
        if content.lstrip()[:1] == b"<":
            raise Unusable("an HTML page instead of an archive")
        if md5_of(content) != self.archive_md5:
            raise Unusable(f"wrong checksum: MD5 {md5_of(content)} instead of {self.archive_md5}")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            for member in archive:
                folder, _, file = member.name.partition("/")
                if folder == self.folder and file in files and member.isreg():
                    if member.size > MAX_MEMBER_BYTES:
                        raise Unusable(f"{member.name} is too large: {member.size:,} bytes")
                    extracted = archive.extractfile(member)
                    assert extracted is not None  # it is a regular file
                    yield file, extracted.read()

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, 3, 32, 32) and int64 labels (N,); raises `DataUnavailable`."""
        images, labels = [], []
        for file in self.md5:
            if file.startswith("data_batch") == train:
                path = directory / self.folder / file
                try:
                    with path.open("rb") as opened:
                        batch = load_arrays(opened)
                    images.append(batch["data"].reshape(-1, 3, 32, 32))
                    labels += batch["labels"]
                except (
                    UnpicklingError,
                    EOFError,
                    LookupError,
                    TypeError,
                    ValueError,
                    AttributeError,
                ) as error:
                    raise DataUnavailable(f"{path}: not a CIFAR-10 batch ({error})") from None
        return torch.from_numpy(np.concatenate(images)), torch.tensor(labels)
