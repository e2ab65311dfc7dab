"""CIFAR-10 from a small archive of the same form."""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from mnist_cnn.data import CIFAR10, DataUnavailable

rng = np.random.default_rng(0)
NAMES = [name for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list]
BATCHES = {
    name: {
        "data": rng.integers(0, 256, (4, 3 * 32 * 32), dtype=np.uint8),
        "labels": rng.integers(0, 10, 4).tolist(),
    }
    for name in NAMES
}
FILES = {name: pickle.dumps(batch) for name, batch in BATCHES.items()}
META = pickle.dumps({"label_names": list("abcdefghij")})


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an archive; there is no mirror."""
    small = datasets.CIFAR10
    archive = tmp_path / small.filename
    with tarfile.open(archive, "w:gz") as opened:
        for name, content in (FILES | {"batches.meta": META}).items():
            member = tarfile.TarInfo(f"{small.base_folder}/{name}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(small, "tgz_md5", md5(archive.read_bytes()))
    monkeypatch.setattr(small, "train_list", [[name, md5(FILES[name])] for name in NAMES[:5]])
    monkeypatch.setattr(small, "test_list", [[name, md5(FILES[name])] for name in NAMES[5:]])
    monkeypatch.setattr(small, "meta", small.meta | {"md5": md5(META)})
    monkeypatch.setattr(small, "url", "http://127.0.0.1:1/none")
    return tmp_path


@pytest.mark.filterwarnings(
    "ignore:Python 3.14 will:DeprecationWarning"
)  # of torchvision's tarfile.extractall
def test_batches_of_an_existing_archive_are_unpacked_and_read(root: Path) -> None:
    folder = root / datasets.CIFAR10.base_folder
    assert CIFAR10().fetch(root) == f"{folder} (checksums verified)"
    (folder / NAMES[0]).write_bytes(b"damaged")
    assert CIFAR10().fetch(root) == f"{folder} (checksums verified)"
    for train, names in ((True, NAMES[:5]), (False, NAMES[5:])):
        images, labels = CIFAR10().read(root, train)
        assert images.shape == (4 * len(names), 3, 32, 32) and images.dtype == torch.uint8
        assert images.flatten(1).tolist() == [row for name in names for row in BATCHES[name]["data"].tolist()]
        assert labels.dtype == torch.int64
        assert labels.tolist() == [label for name in names for label in BATCHES[name]["labels"]]


def test_bad_archive_is_refused(root: Path) -> None:
    archive = root / datasets.CIFAR10.filename
    archive.write_bytes(b"<html></html>")
    with pytest.raises(DataUnavailable, match=r"could not be downloaded: .*refused") as caught:
        CIFAR10().fetch(root)
    assert f"put {archive.name} into {root}." in str(caught.value)
    assert not (root / datasets.CIFAR10.base_folder).exists()
