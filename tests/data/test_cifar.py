"""CIFAR-10 from a small archive of the same form."""

import hashlib
import io
import os
import pickle
import pickletools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from mnist_cnn.data import CIFAR10, DataUnavailable, cifar

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


def make_archive(path: Path, files: dict[str, bytes], folder: str = CIFAR10.folder) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive with more in it than the data, which torchvision's address leads to."""
    path = tmp_path / "mirror" / CIFAR10.archive
    path.parent.mkdir()
    serve(path, {"../escaped": b"x", "batches.meta": b"x", "readme.html": b"x"} | FILES, monkeypatch)
    monkeypatch.setattr(CIFAR10, "md5", {name: hashlib.md5(data).hexdigest() for name, data in FILES.items()})
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", path.as_uri())
    return path


def serve(path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    make_archive(path, files)
    monkeypatch.setattr(CIFAR10, "archive_md5", hashlib.md5(path.read_bytes()).hexdigest())


def test_fetch_extracts_only_the_batches_of_the_archive(mirror: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert CIFAR10().fetch(root).startswith("downloaded from")
    folder = root / CIFAR10.folder
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert not list(tmp_path.rglob("escaped"))
    mirror.unlink()
    assert CIFAR10().fetch(root) == f"{folder} (checksums verified)"


def test_fetch_uses_an_existing_archive(mirror: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    mirror.rename(root / CIFAR10.archive)
    assert CIFAR10().fetch(root) == f"unpacked from {root / CIFAR10.archive}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"<html></html>", "an HTML page"), (b"something else", "wrong checksum: MD5")],
)
def test_fetch_refuses_a_bad_archive(mirror: Path, tmp_path: Path, content: bytes, reason: str) -> None:
    mirror.write_bytes(content)
    with pytest.raises(DataUnavailable, match=reason) as caught:
        CIFAR10().fetch(tmp_path / "data")
    assert f"Put {CIFAR10.archive} into the folder data.dir" in str(caught.value)
    assert list((tmp_path / "data" / CIFAR10.folder).iterdir()) == []


def test_fetch_refuses_a_batch_with_a_wrong_checksum(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(mirror, FILES | {"data_batch_2": FILES["data_batch_1"]}, monkeypatch)
    with pytest.raises(DataUnavailable, match="wrong checksum"):
        CIFAR10().fetch(tmp_path / "data")


def test_fetch_refuses_a_batch_that_is_too_large(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "MAX_MEMBER_BYTES", 1000)
    with pytest.raises(DataUnavailable, match=r"data_batch_1 is too large: .* bytes"):
        CIFAR10().fetch(tmp_path / "data")


def test_read_returns_images_and_labels(mirror: Path, tmp_path: Path) -> None:
    CIFAR10().fetch(tmp_path)
    for train, names in ((True, list(FILES)[:5]), (False, ["test_batch"])):
        images, labels = CIFAR10().read(tmp_path, train)
        assert images.shape == (4 * len(names), 3, 32, 32) and images.dtype == torch.uint8
        assert images.flatten(1).tolist() == [row for name in names for row in BATCHES[name]["data"].tolist()]
        assert labels.dtype == torch.int64
        assert labels.tolist() == [label for name in names for label in BATCHES[name]["labels"]]


class Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo this must not run",)


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(Command()), b"no pickle", pickle.dumps({"labels": [1]}), pickle.dumps([1]), b""],
)
def test_read_refuses_other_pickles(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / CIFAR10.folder / "test_batch"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataUnavailable, match=f"{path}: not a CIFAR-10 batch"):
        CIFAR10().read(tmp_path, train=False)


def test_checksums_are_those_of_torchvision() -> None:
    published = torchvision.datasets.CIFAR10
    assert dict(published.train_list + published.test_list) == CIFAR10.md5
    assert (published.filename, published.tgz_md5) == (CIFAR10.archive, CIFAR10.archive_md5)
