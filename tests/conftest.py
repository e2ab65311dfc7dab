"""Fixtures of several tests: the data, small stand-ins for it, and the commands as a user types them."""

import gc
import os

# Tests run two at a time. With as many threads as cores each, they would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Until all tests are imported: the collector would look at a million objects many times.
gc.disable()

import multiprocessing
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import dropwhile
from multiprocessing.context import ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from mnist_cnn.data import MNIST, ImageData
from mnist_cnn.data.datamodule import ImagesInMemory

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY / "data"
TIMEOUT = 250  # seconds for a command

settings.register_profile("tests", derandomize=True, database=None, deadline=None)
settings.load_profile("tests")

Command = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


class Started:
    """A command that is running: its process, and what it has printed so far."""

    def __init__(self, process: ForkServerProcess, output: Path, errors: Path) -> None:
        self.process, self._output, self._errors = process, output, errors

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def wait_for(self, start: str, *, after: str = "") -> None:
        """Wait until a line of the output, from the first that starts with `after`, starts with `start`."""
        end = time.monotonic() + TIMEOUT
        while True:
            lines = dropwhile(lambda line: not line.startswith(after), self.output.splitlines())
            if any(line.startswith(start) for line in lines):
                return
            if not self.process.is_alive() or time.monotonic() > end:
                raise AssertionError(f"{start!r} was not printed\n{self.output}\n{self.errors}")
            time.sleep(0.02)

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Return the exit code, which is negative if the process was ended by a signal."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"{self.output}\n{self.errors}")
        assert self.process.exitcode is not None
        return self.process.exitcode


Start = Callable[..., Started]


@pytest.fixture(scope="session")
def start_in(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Start a script of the repository in the folder given first.

    The process is forked from one that has imported Lightning, which saves seconds a command.
    """
    streams = tmp_path_factory.mktemp("streams")

    def start(folder: Path, script: str, *arguments: str, **changes: str) -> Started:
        context = multiprocessing.get_context("forkserver")
        out, err = (Path(tempfile.mkstemp(dir=streams)[1]) for _ in range(2))
        process = context.Process(
            target=_run_script, args=(script, arguments, folder, environment(**changes), out, err)
        )
        process.start()
        return Started(process, out, err)

    return start


@pytest.fixture(scope="session", autouse=True)
def forkserver() -> None:
    """Start the process that forks the commands, before a test of the pool starts one with other imports."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.preloaded"])
    ensure_running()


@pytest.fixture(scope="session")
def mnist() -> Path:
    """Return the folder of real MNIST, which is downloaded once and then kept."""
    MNIST().fetch(DATA)
    return DATA


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a command: that of the tests, without settings of Hydra."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA_", "MNIST_CNN_"))}
    return inherited | changes


@pytest.fixture
def start(start_in: Start, tmp_path: Path) -> Iterator[Start]:
    """Start a script of the repository in a fresh folder, like `start_in`."""
    started = []

    def begin(script: str, *arguments: str, **changes: str) -> Started:
        started.append(start_in(tmp_path, script, *arguments, **changes))
        return started[-1]

    yield begin
    for command in started:
        command.process.kill()  # what a failed test has left
        command.process.join()


@pytest.fixture
def command(start: Start) -> Command:
    """Run a script of the repository in a fresh folder; return what it printed and its exit code."""

    def run(script: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        started = start(script, *arguments, **changes)
        code = started.wait()
        return subprocess.CompletedProcess([script, *arguments], code, started.output, started.errors)

    return run


def _run_script(
    script: str, arguments: Sequence[str], folder: Path, variables: dict[str, str], out: Path, err: Path
) -> None:
    # They may be ignored by inheritance, as under nohup.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = [str(REPOSITORY / script), *arguments]
    sys.path[:0] = [str(REPOSITORY), *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
    runpy.run_path(sys.argv[0], run_name="__main__")


@pytest.fixture
def new_process(tmp_path: Path) -> Command:
    """Run a script like `command`, in a new process that imports everything itself."""

    def run(script: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(REPOSITORY / script), *arguments],
            cwd=tmp_path,
            env=environment(**changes),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    return run


@pytest.fixture
def train(command: Command, mnist: Path) -> Command:
    """Run train.py on real MNIST in a fresh folder; it must succeed."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = command("train.py", f"data.dir={mnist}", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def small_data() -> ImageData:
    """Return 96 training, 32 validation and 37 test images of noise, ready to use."""
    data = make_data()
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> ImagesInMemory:
        pixels = torch.randint(256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
        return ImagesInMemory(pixels, torch.randint(10, (count,), generator=generator))

    data.train, data.val, data.test = images(96), images(32), images(37)
    data.prepare_data = lambda: None  # type: ignore[method-assign]
    return data


def make_data(
    directory: Path = DATA, val_size: int = 5000, batch_size: int = 32, image_size: int = 28, seed: int = 0
) -> ImageData:
    """Return the data module of conf/data/mnist.yaml."""
    return ImageData(
        source=MNIST(),
        dir=str(directory),
        batch_size=batch_size,
        val_size=val_size,
        mean=0.5,
        std=0.5,
        in_channels=1,
        num_classes=10,
        classes=[str(digit) for digit in range(10)],
        image_size=image_size,
        prepare="digits",
        seed=seed,
    )
