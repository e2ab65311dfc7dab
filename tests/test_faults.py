"""Faults of the machine: full and read-only disks, lost processes, memory, the clock, folders."""

import contextlib
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mnist_cnn.reporting.tensorboard import RunLogger
from mnist_cnn.training.loading import load
from mnist_cnn.training.quiet import quiet_libraries
from tests.conftest import Command
from tests.faults import fault
from tests.runs import SHORT, SMOKE, only_run, processes_of, scalars

Mount = Callable[..., Path]

UNLOGGED = (*SHORT, "logger=none", "trainer.max_epochs=2")
FREE = "trust=[tests]"  # the fault is a class of the tests


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a file system on a new folder of this name, with the options of `mount`."""
    mounted = []

    def do(name: str, *options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
        may_mount = os.environ.get("CI") == "true" and os.geteuid() == 0  # runners of GitHub forbid it
        if done.returncode and not may_mount:
            pytest.skip(f"file systems cannot be mounted: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        mounted.append(folder)
        return folder

    if sys.platform != "linux":
        pytest.skip("mounts as Linux does")
    yield do
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def small_disk(mount: Mount, *options: str) -> Path:
    return mount("disk", "-t", "tmpfs", "-o", ",".join(["size=4m", *options]), "tmpfs")


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the message of a command that has failed; nothing but warnings may be before it."""
    assert done.returncode == 1, done.stdout + done.stderr
    for text in ("Traceback", "Logging error", "Exception"):
        assert text not in done.stdout + done.stderr
    return done.stderr.splitlines()[-1]


def partial_files(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


def test_full_disk_while_a_checkpoint_is_written_keeps_the_former_one(
    command: Command, mount: Mount, mnist: Path
) -> None:
    disk = small_disk(mount)
    run, ballast = disk / "run", disk / "ballast"
    full = fault("FullDisk", file=ballast, free=4096)  # for history.json
    done = command("train.py", *UNLOGGED, f"data.dir={mnist}", f"hydra.run.dir={run}", full)
    assert last_line(done).startswith(
        f"train.py: cannot access {run}/checkpoints/best.ckpt: No space left on device."
    )
    assert (
        load(run / "checkpoints" / "best.ckpt")["epoch"]
        == load(run / "checkpoints" / "last.ckpt")["epoch"]
        == 0
    )
    assert [row["epoch"] for row in json.loads((run / "history.json").read_text())] == [1]
    assert partial_files(disk) == []

    os.truncate(ballast, 0)
    done = command("train.py", f"resume={run}", FREE)
    assert done.returncode == 0, done.stderr
    assert "resumed    after epoch 1" in done.stdout
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 2


@pytest.mark.parametrize(("free", "file"), [(0, "metrics.json"), (8192, "predictions.png")])
def test_full_disk_at_the_end_of_a_run_keeps_what_is_written(
    free: int, file: str, command: Command, mount: Mount, mnist: Path
) -> None:
    disk = small_disk(mount)
    run = disk / "run"
    full = fault("FullDisk", file=disk / "ballast", free=free, epoch=0)
    done = command("train.py", *UNLOGGED, f"data.dir={mnist}", f"hydra.run.dir={run}", full)
    assert last_line(done).startswith(f"train.py: cannot access {run / file}: No space left on device.")
    assert not (run / file).exists()
    assert (run / "metrics.json").exists() == (file != "metrics.json")
    assert load(run / "checkpoints" / "last.ckpt")["epoch"] == 1
    assert partial_files(disk) == []


def test_checkpoint_of_an_interrupted_run_that_cannot_be_written_is_reported(
    command: Command, mnist: Path, tmp_path: Path
) -> None:
    done = command("train.py", *UNLOGGED, f"data.dir={mnist}", fault("NoSpaceAfterInterrupt"))
    assert "stopping with a checkpoint" in done.stderr
    assert last_line(done).startswith("train.py: cannot access last.ckpt: No space left on device.")
    assert "resume" not in done.stdout
    assert "No space left" in (only_run(tmp_path) / "failed.json").read_text()


def test_disk_that_is_full_at_the_start_is_reported_in_a_line(command: Command, mount: Mount) -> None:
    disk = small_disk(mount)
    with contextlib.suppress(OSError):
        (disk / "ballast").write_bytes(bytes(5 * 2**20))
    done = command("train.py", f"hydra.run.dir={disk / 'run'}")
    assert last_line(done).startswith(
        "train.py: cannot access the files of the run: No space left on device."
    )


def test_disk_without_inodes_is_reported_in_a_line(command: Command, mount: Mount, mnist: Path) -> None:
    run = small_disk(mount, "nr_inodes=10") / "run"
    done = command("train.py", *UNLOGGED, f"data.dir={mnist}", f"hydra.run.dir={run}")
    assert last_line(done).startswith(f"train.py: cannot access {run}/")
    assert "No space left on device." in last_line(done)


def test_full_disk_stops_a_sweep(command: Command, mount: Mount, mnist: Path) -> None:
    disk = small_disk(mount)
    sweep, full = disk / "sweep", fault("FullDisk", file=disk / "ballast", epoch=1)
    done = command(
        "train.py", "-m", *UNLOGGED, f"data.dir={mnist}", "seed=1,2", f"hydra.sweep.dir={sweep}", full
    )
    assert last_line(done).startswith(f"train.py: cannot access {sweep}/0_seed-1/")
    assert "The sweep has stopped. When this is fixed, resume with: python " in done.stdout
    assert "job 1" not in done.stdout


def test_full_disk_stops_the_writer_of_events(
    mount: Mount, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    quiet_libraries()
    disk, others = small_disk(mount), threading.enumerate()
    logger = RunLogger(str(disk))
    logger.log_metrics({"val/acc": 0.5}, 1)
    logger.save()
    (events,) = disk.iterdir()
    before = events.read_bytes()
    image = np.random.default_rng(0).integers(256, size=(3, 512, 512), dtype=np.uint8)

    def fill() -> None:
        for step in range(20):
            logger.experiment.add_image("noise", image, step)
            logger.save()

    with pytest.raises(OSError, match="No space left on device"):
        fill()
    assert events.read_bytes().startswith(before)
    for thread in threading.enumerate():
        if thread not in others:
            thread.join(10)  # it may still report its error
    assert capfd.readouterr().err == ""


def test_full_disk_while_the_data_is_written_leaves_no_part_of_a_file(
    command: Command, mount: Mount, mnist: Path, tmp_path: Path
) -> None:
    disk = mount("disk", "-t", "tmpfs", "-o", "size=20m", "tmpfs")
    folder = disk / "MNIST" / "raw"
    folder.mkdir(parents=True)
    images = "train-images-idx3-ubyte"
    with gzip.open(folder / f"{images}.gz", "wb", compresslevel=1) as packed:
        packed.write((mnist / "MNIST" / "raw" / images).read_bytes())
    done = command("train.py", *UNLOGGED, f"data.dir={disk}")
    assert last_line(done).startswith(f"train.py: cannot access {folder / images}: No space left on device.")
    assert [path.name for path in folder.iterdir()] == [f"{images}.gz"]


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_read_only_logs_are_named(script: str, command: Command, mount: Mount, tmp_path: Path) -> None:
    mount("logs", "-t", "tmpfs", "-o", "ro", "tmpfs")
    (tmp_path / "a.ckpt").touch()
    done = command(script, *(["ckpt=a.ckpt"] if script == "evaluate.py" else []))
    assert last_line(done).startswith(f"{script}: cannot access ")
    assert "logs" in last_line(done)
    assert "Read-only file system." in last_line(done)


def test_read_only_data_is_used_if_it_is_complete(
    command: Command, mount: Mount, mnist: Path, tmp_path: Path
) -> None:
    data = mount("read_only", "--bind", "-o", "ro", str(mnist.resolve()))
    with pytest.raises(OSError, match="Read-only"):
        (data / "file").touch()
    done = command("train.py", *SMOKE, "logger=none", f"data.dir={data}")
    assert done.returncode == 0, done.stderr
    empty = mount("empty", "-t", "tmpfs", "-o", "ro", "tmpfs")
    done = command("train.py", *SMOKE, "logger=none", f"data.dir={empty}")
    assert last_line(done).startswith(f"train.py: cannot access {empty}/MNIST: Read-only file system.")


def test_data_damaged_between_two_starts_of_a_run_is_replaced(
    command: Command, mnist: Path, tmp_path: Path
) -> None:
    data, labels = tmp_path / "scratch", "train-labels-idx1-ubyte"
    (data / "MNIST" / "raw").mkdir(parents=True)
    for file in (mnist / "MNIST" / "raw").glob("*ubyte"):
        if file.name == labels:
            shutil.copy(file, data / "MNIST" / "raw")
        else:
            (data / "MNIST" / "raw" / file.name).symlink_to(file)
    file = data / "MNIST" / "raw" / labels
    Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes(), 1))

    done = command("train.py", *UNLOGGED, f"data.dir={data}", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    os.truncate(file, 30_000)
    done = command("train.py", "resume=run", "trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    assert f"{file} is not used and will be replaced: " in done.stdout
    assert file.stat().st_size == 60_008
    assert load(tmp_path / "run" / "checkpoints" / "last.ckpt")["epoch"] == 1
    refused = command("train.py", "resume=run", "trainer.max_epochs=1")
    assert last_line(refused) == "train.py: trainer.max_epochs=1: the run has trained 2 epochs already."


TIMED_OUT = (
    "A rank has waited 8 s for another one. If that was not enough, set trainer.rank_timeout to more seconds."
)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (fault("Refusal"), "This is the reason."),
        (fault("Hang", rank=1), TIMED_OUT),
        # torch waits 30 s before it kills it
        pytest.param(fault("Signal", name="SIGSTOP", rank=1), TIMED_OUT, marks=pytest.mark.long),
    ],
    ids=["fails", "hangs", "is stopped"],
)
def test_lost_rank_fails_its_job_and_leaves_no_process(
    lost: str, message: str, command: Command, mnist: Path, tmp_path: Path
) -> None:
    ranks = ("trainer=ddp", "trainer.devices=2", "trainer.rank_timeout=8")
    done = command("train.py", *UNLOGGED, *ranks, f"data.dir={mnist}", lost)
    assert last_line(done) == f"train.py: {message}"
    assert processes_of(tmp_path) == []
    run = only_run(tmp_path)
    assert json.loads((run / "failed.json").read_text()) == {"error": message}
    assert load(run / "checkpoints" / "last.ckpt")["epoch"] == 0


@pytest.mark.long
def test_ranks_that_refuse_their_data_say_so_once(command: Command, mnist: Path, tmp_path: Path) -> None:
    ranks = ("trainer=ddp", "trainer.devices=2", "data.val_size=1")
    done = command("train.py", *UNLOGGED, *ranks, f"data.dir={mnist}")
    assert done.stderr.splitlines() == [last_line(done)]
    assert last_line(done).startswith("train.py: 2 processes cannot share the images to evaluate")


def test_missing_memory_is_reported_in_a_line(command: Command, mnist: Path, tmp_path: Path) -> None:
    one_large_batch = ("data.batch_size=20000", "trainer.limit_train_batches=1")
    limit = fault("NoMemory", megabytes=1)
    done = command("train.py", *UNLOGGED, f"data.dir={mnist}", *one_large_batch, limit)
    assert last_line(done).startswith("train.py: out of memory: ")
    assert last_line(done).endswith("Try a smaller data.batch_size.")
    assert load(only_run(tmp_path) / "checkpoints" / "last.ckpt")["epoch"] == 0


def test_clock_set_back_during_a_run_is_not_noticed(train: Command, tmp_path: Path) -> None:
    train(*SHORT, "trainer.max_epochs=3", fault("ClockBack"), "hydra.run.dir=run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < metrics["seconds"] < 10_000
    assert metrics["images_per_second"] > 0
    assert [step for step, _ in scalars(tmp_path / "run")["val/acc"]] == [12, 24, 36]
