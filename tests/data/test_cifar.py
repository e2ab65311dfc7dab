"""CIFAR-10 from a small archive of the same form."""

import hashlib
import io
import pickle
import pickletools
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from mnist_cnn.data import CIFAR10, DataUnavailable

rng = np.random.default_rng(0)
BATCHES = {
    name: {
        "data": rng.integers(0, 256, (4, 3 * 32 * 32), dtype=np.uint8),
        "labels": rng.integers(0, 10, 4).tolist(),
        "filenames": ["a.png"] * 4,
    }
    for name in CIFAR10.md5
}


def dumps_python2(value: object) -> bytes:
    """Return a pickle in which byte strings are those of Python 2, as in the published files."""
    content = bytearray(pickle.dumps(value, protocol=3))
    for opcode, _, position in pickletools.genops(bytes(content)):
        python2 = {"BINBYTES": pickle.BINSTRING, "SHORT_BINBYTES": pickle.SHORT_BINSTRING}.get(opcode.name)
        if python2 is not None and position is not None:
            content[position : position + 1] = python2
    return bytes(content)


FILES = {name: dumps_python2(batch) for name, batch in BATCHES.items()}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an archive that holds more than the data; there is no mirror."""
    archive = tmp_path / CIFAR10.archive
    with tarfile.open(archive, "w:gz") as opened:
        for name, content in ({"../escaped": b"x", "batches.meta": b"x"} | FILES).items():
            member = tarfile.TarInfo(f"{CIFAR10.folder}/{name}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "archive_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "md5", {name: hashlib.md5(data).hexdigest() for name, data in FILES.items()})
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:1/none")
    return tmp_path


def test_batches_of_an_existing_archive_are_unpacked_and_read(root: Path) -> None:
    assert CIFAR10().fetch(root) == f"downloaded from {root / CIFAR10.archive}"
    folder = root / CIFAR10.folder
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert not list(root.rglob("escaped"))
    assert CIFAR10().fetch(root) == f"{folder} (checksums verified)"
    for train, names in ((True, list(FILES)[:5]), (False, ["test_batch"])):
        images, labels = CIFAR10().read(root, train)
        assert images.shape == (4 * len(names), 3, 32, 32) and images.dtype == torch.uint8
        assert images.flatten(1).tolist() == [row for name in names for row in BATCHES[name]["data"].tolist()]
        assert labels.dtype == torch.int64
        assert labels.tolist() == [label for name in names for label in BATCHES[name]["labels"]]


def test_bad_archive_is_refused(root: Path) -> None:
    (root / CIFAR10.archive).write_bytes(b"<html></html>")
    with pytest.raises(DataUnavailable, match="wrong checksum: MD5") as caught:
        CIFAR10().fetch(root)
    assert f"Put {CIFAR10.archive} into the folder data.dir" in str(caught.value)
    assert list((root / CIFAR10.folder).iterdir()) == []


def test_checksums_are_those_of_torchvision() -> None:
    published = torchvision.datasets.CIFAR10
    assert dict(published.train_list + published.test_list) == CIFAR10.md5
    assert (published.filename, published.tgz_md5) == (CIFAR10.archive, CIFAR10.archive_md5)
