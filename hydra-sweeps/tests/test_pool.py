"""The pool: dividing the machine, and running commands in processes of their own."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from hydra_sweeps import SweepError
from hydra_sweeps.launchers import pool, process
from hydra_sweeps.launchers.base import Command, Job
from hydra_sweeps.launchers.pool import Pool, count_devices, divide, visible_gpus

SECONDS = 60  # limit for each wait


@pytest.mark.parametrize(
    ("n_jobs", "threads", "gpus", "cores", "devices", "expected"),
    [
        # expected: threads of each job, and the GPUs of each place
        ("auto", "auto", "", 4, 1, (1, ["", "", "", ""])),
        ("auto", 3, "", 8, 1, (3, ["", ""])),
        ("auto", 16, "", 8, 1, (16, [""])),
        ("auto", "auto", "", 4, 2, (1, ["", ""])),
        (3, "auto", "", 8, 1, (2, ["", "", ""])),
        (3, 4, "", 8, 1, (4, ["", "", ""])),
        ("auto", "auto", "abcd", 16, 1, (4, ["a", "b", "c", "d"])),
        ("auto", "auto", "abcd", 16, 3, (16, ["abc"])),
        ("auto", 2, "abcd", 16, "2", (2, ["ab", "cd"])),
        ("auto", "auto", "ab", 16, "auto", (16, ["ab"])),
        ("auto", "auto", "ab", 16, -1, (16, ["ab"])),
        ("auto", "auto", "abcd", 16, [0, 1], (8, ["ab", "cd"])),
        ("auto", "auto", "a", 16, 2, (16, ["a"])),
        (5, "auto", "ab", 16, 1, (3, ["a", "b", "a", "b", "a"])),
    ],
)
def test_machine_is_divided_among_jobs(
    n_jobs: Any, threads: Any, gpus: str, cores: int, devices: Any, expected: tuple[int, list[str]]
) -> None:
    found, places = divide(n_jobs, threads, count_devices(devices, len(gpus)), gpus, cores)
    assert (found, ["".join(place) for place in places]) == expected


@pytest.mark.parametrize("value", [0, -1, "many", 1.5, True, None])
def test_invalid_sizes_are_refused(value: Any) -> None:
    for name in ("n_jobs", "threads"):
        with pytest.raises(SweepError, match=rf"hydra\.launcher\.{name}={value}"):
            Pool(**{name: value})


def test_selected_gpus_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "glob", lambda pattern: [pattern])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-7f")
    assert visible_gpus("auto") == ["5", "GPU-7f"]
    assert visible_gpus("cpu") == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus("gpu") == ["0", "1"]


# --- running commands ----------------------------------------------------------------------------

Commands = Callable[..., list[Command]]


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """Return commands that run a script with their number; it finds `number` and `folder`."""

    def make(script: str, count: int) -> list[Command]:
        path = tmp_path / "script.py"
        header = "import os, signal, subprocess, sys, time\nfrom pathlib import Path\n"
        path.write_text(header + f"number, folder = int(sys.argv[1]), Path({str(tmp_path)!r})\n" + script)
        return [
            Command(Job(number, []), tmp_path / str(number), ["python", str(path)], [str(number)], None, {})
            for number in range(count)
        ]

    return make


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_next_job_is_chosen_when_one_has_ended(commands: Commands, tmp_path: Path) -> None:
    script = "while number == 0 and not (folder / 'ended3').exists():\n    time.sleep(0.01)\n"
    ended: list[int] = []
    known: list[list[int]] = []  # which jobs had ended when a job was taken

    def choose() -> Iterator[Command]:
        for command in commands(script, 4):
            known.append(list(ended))
            yield command

    for command, error in Pool(n_jobs=2, threads=1, accelerator="cpu").run(choose()):
        assert error is None
        ended.append(command.job.number)
        (tmp_path / f"ended{command.job.number}").touch()
    assert ended == [1, 2, 3, 0]
    assert known == [[], [], [1], [1, 2]]


def test_line_that_the_console_cannot_encode_is_escaped_and_not_lost(
    commands: Commands, tmp_path: Path
) -> None:
    script = "for stream in (sys.stdout, sys.stderr):\n    assert stream.errors == 'backslashreplace'"
    [(_, error)] = Pool(n_jobs=1, threads=1, accelerator="cpu").run(commands(script, 1))
    assert error is None


def test_jobs_that_die_fail_alone_with_their_processes(commands: Commands, tmp_path: Path) -> None:
    script = """
if number == 1:
    started = subprocess.Popen(["sleep", "1000"])
    (folder / "pid").write_text(str(started.pid))
    os.kill(os.getpid(), signal.SIGKILL)
if number == 2:
    os._exit(7)
if number == 3:
    sys.exit("a message")
if number == 4:
    raise ValueError("a bug")
"""
    ended = Pool(n_jobs=2, threads=1).run(commands(script, 5))
    errors = {command.job.number: error for command, error in ended}
    assert errors == {
        0: None,
        1: "the job's process was killed by SIGKILL, as the system does when memory runs out",
        2: "the job ended with exit code 7",
        3: "the job ended with exit code 1",
        4: "the job ended with exit code 1",
    }
    recorded = [json.loads((tmp_path / name / "failed.json").read_text())["error"] for name in "34"]
    assert recorded == ["a message", "ValueError: a bug"]
    wait_for(lambda: not psutil.pid_exists(int((tmp_path / "pid").read_text())))


def test_job_has_threads_and_gpus_of_its_slot(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the first two jobs run together; the third gets the slot that is free first
    script = """
(folder / f"began{number}").touch()
for other in {0: (1, 2), 1: (0,), 2: ()}[number]:
    while not (folder / f"began{other}").exists():
        time.sleep(0.01)
import torch
in_child = os.popen("echo $OMP_NUM_THREADS").read().strip()
names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "OF_THE_SWEEP")
seen = [str(torch.get_num_threads()), in_child, *(os.environ.get(name, "") for name in names)]
(folder / f"seen{number}").write_text(" ".join(seen))
"""
    monkeypatch.setattr(pool, "visible_gpus", lambda accelerator: ["GPU-a", "GPU-b"])
    monkeypatch.setenv("OF_THE_SWEEP", "1")
    assert [error for _, error in Pool(threads=2).run(commands(script, 3))] == [None] * 3
    seen = [(tmp_path / f"seen{number}").read_text() for number in range(3)]
    assert seen == [f"2 2 2 {gpu} 1" for gpu in ("GPU-a", "GPU-b", "GPU-b")]


def test_stopped_sweep_leaves_no_process(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
if number == 0:  # ends when the others have started
    while not all((folder / f"pids{other}").exists() for other in (1, 2)):
        time.sleep(0.01)
    sys.exit()
if number == 2:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
started = subprocess.Popen(["sleep", "1000"])
(folder / f"part{number}").write_text(f"{os.getpid()} {started.pid}")
(folder / f"part{number}").rename(folder / f"pids{number}")
try:
    time.sleep(1000)
except KeyboardInterrupt:
    (folder / f"interrupted{number}").touch()
    raise
"""
    monkeypatch.setattr(process, "SECONDS_TO_STOP", 1.0)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under `nohup … &`
    try:
        ended = Pool(n_jobs=3, threads=1).run(commands(script, 4))
        command, error = next(ended)
        assert (command.job.number, error) == (0, None)
    finally:
        signal.signal(signal.SIGINT, before)
    processes = [int(pid) for number in (1, 2) for pid in (tmp_path / f"pids{number}").read_text().split()]
    assert all(psutil.pid_exists(pid) for pid in processes)
    ended.close()  # type: ignore[attr-defined]
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in processes))
    assert (tmp_path / "interrupted1").exists()
    assert not (tmp_path / "interrupted2").exists()
    assert not (tmp_path / "pids3").exists()
