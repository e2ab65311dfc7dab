"""Launchers for clusters: submitit and Ray on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from hydra_sweeps.launchers import slurm
from hydra_sweeps.launchers.base import Command, Job
from hydra_sweeps.launchers.process import RemoteCommand
from hydra_sweeps.launchers.slurm import SubmititCommand, SubmititLauncher

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def command(folder: Path, fresh: list[str], resume: list[str] | None = None) -> Command:
    return Command(Job(0, []), folder, [], fresh, resume, {})


@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_jobs_run_on_cluster_and_fail_alone(launcher: str, run: Run, tmp_path: Path) -> None:
    threads = {"ray": "num_cpus=1", "submitit_local": "parameters.cpus_per_task=3"}[launcher]
    done = run("-m", f"hydra/launcher={launcher}", "fail=null,error", f"hydra.launcher.{threads}")
    assert done.returncode == 1
    assert "job 0 finished: val/loss" in done.stdout
    assert "job 1 failed: ValueError: wanted" in done.stdout
    assert "1 ok, 1 failed" in done.stdout
    assert (
        json.loads((tmp_path / "sweep" / "0_fail-null" / "metrics.json").read_text())["threads"]
        == threads[-1]
    )


def test_machine_without_slurm_is_told_so(run: Run, tmp_path: Path) -> None:
    done = run("-m", "hydra/launcher=submitit_slurm", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "hydra/launcher=submitit_slurm cannot be used: " in done.stderr


def test_preempted_job_is_submitted_again_and_resumes(tmp_path: Path) -> None:
    submitted = SubmititCommand(command(tmp_path, ["fresh"], ["resume"]), threads=2)
    assert submitted.command.arguments == ["fresh"]
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "resolved.yaml").touch()
    again = submitted.checkpoint()
    assert again.function is submitted
    assert submitted.command.arguments == ["resume"]
    assert command(tmp_path, ["fresh"]).arguments == ["fresh"]  # an app that cannot resume
    assert submitted.environment == {"OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_command_ends_with_the_process_that_started_it(how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "pathlib.Path('part').write_text(f'{os.getpid()} {child.pid}')\n"
        "os.rename('part', 'pids')\n"
        "try:\n    time.sleep(1000)\nexcept KeyboardInterrupt:\n    pathlib.Path('interrupted').touch()\n"
    )
    runner = (
        "import sys, signal\nfrom pathlib import Path\nfrom hydra_sweeps.launchers.base import Command, Job\n"
        "from hydra_sweeps.launchers.process import RemoteCommand\n"
        f"folder, script = Path({str(tmp_path)!r}), {str(script)!r}\n"
        "command = Command(Job(0, []), folder, [sys.executable, script], [], None, {})\n"
        "if __name__ == '__main__':\n    RemoteCommand(command, 1)()"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the processes inherit
    try:
        process = subprocess.Popen([sys.executable, "-c", runner], cwd=tmp_path, stderr=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGINT, before)
    while not (tmp_path / "pids").exists():
        time.sleep(0.02)
    process.send_signal(how)
    process.wait(30)
    assert (tmp_path / "interrupted").exists() == (how is signal.SIGINT)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    deadline = time.monotonic() + 30
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [pid for pid in pids if is_alive(pid)] == []


def is_alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_warning_before_time_limit_does_not_reach_command(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); os._exit(3)"
    )
    job = command(tmp_path, [sys.executable, str(tmp_path / "script.py")])
    assert RemoteCommand(job, 1)() == "the job ended with exit code 3"


@pytest.mark.parametrize("code", [1, 128 + signal.SIGTERM])
def test_job_that_slurm_stops_has_no_result(code: int, tmp_path: Path) -> None:
    # a rank may end before the job that has started it, which then fails
    script = f"import os, signal; os.kill({os.getpid()}, signal.SIGTERM); os._exit({code})"
    (tmp_path / "script.py").write_text(script)
    before = signal.getsignal(signal.SIGTERM)
    try:
        job = SubmititCommand(command(tmp_path, [sys.executable, str(tmp_path / "script.py")]), threads=1)
        with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
            job()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_job_that_slurm_may_start_again_has_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = ["PENDING", "COMPLETING", "REQUEUED", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "CANCELLED", None]
    queue = {str(number): state for number, state in enumerate(states) if state is not None}
    task = SimpleNamespace(paths=SimpleNamespace(result_pickle=tmp_path / "none"))
    jobs: list[Any] = [
        Mock(job_id=str(number), num_tasks=1, task=lambda index: task) for number in range(len(states))
    ]
    launcher = SubmititLauncher("slurm", n_jobs=9, parameters={}, poll=0)
    launcher.executor = SimpleNamespace(folder=tmp_path)
    monkeypatch.setattr(slurm, "read_queue", lambda folder: queue)
    assert launcher.ended(jobs) == []  # its result may be seen late
    assert launcher.ended(jobs) == [
        (jobs[6], f"Slurm has ended the job; its state is CANCELLED. See {tmp_path}/6_*"),
        (jobs[7], f"Slurm has ended the job; its state is unknown. See {tmp_path}/7_*"),
    ]
    monkeypatch.setattr(slurm, "read_queue", lambda folder: None)  # the controller does not answer
    assert launcher.ended(jobs) == []
