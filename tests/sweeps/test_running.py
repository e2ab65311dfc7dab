"""Sweeps as a user types them: failures, kills, interruptions, and what is refused."""

import csv
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY, Command
from tests.runs import SHORT, jobs_of, only_run, processes_of, scalars, weights

ONE_EPOCH = (*SHORT, "trainer.max_epochs=1")


def rows(sweep: Path) -> dict[str, dict[str, str]]:
    """The rows of sweep.csv by the job's number."""
    with (sweep / "sweep.csv").open() as file:
        return {row["job"]: row for row in csv.DictReader(file)}


def started(tmp_path: Path, mnist: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), "-m", f"data.dir={mnist}", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: "subprocess.Popen[str]", start: str, times: int = 1) -> None:
    """Read what the process says until a line starts with `start`, the `times`-th such line."""
    assert process.stdout is not None
    for line in process.stdout:
        times -= line.startswith(start)
        if times == 0:
            return
    raise AssertionError(f"{start!r} was not said")


def test_failing_jobs_are_told_at_once_and_at_the_end_and_leak_nothing_into_the_others(
    command: Command, train: Command, mnist: Path, tmp_path: Path
) -> None:
    train(*ONE_EPOCH, "optim.lr=0.02")
    alone = weights(only_run(tmp_path))

    # the third diverges; every second asks for terabytes; the seventh comes after all of it
    swept = ("optim.lr=0.01,1e30,0.03,0.02", "data.num_classes=10,10000000000")
    done = command("train.py", "-m", f"data.dir={mnist}", *ONE_EPOCH, "seed=42", *swept)
    assert done.returncode == 1
    sweep = only_run(tmp_path, "sweeps")
    status = {job: row["status"] for job, row in rows(sweep).items()}
    assert status == {job: "finished" if job in "046" else "failed" for job in "01234567"}
    lines = done.stdout.splitlines()
    (diverged,) = [number for number, line in enumerate(lines) if line.startswith("job 2 failed: The loss")]
    (too_large,) = [
        number for number, line in enumerate(lines) if line.startswith("job 1 failed: out of mem")
    ]
    assert too_large < diverged < lines.index("job 4: optim.lr=0.03 data.num_classes=10   (5 of 8)")
    assert "3 ok, 5 failed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert f"python train.py sweep.resume={sweep.relative_to(tmp_path)}" in done.stderr
    jobs = jobs_of(sweep)
    assert "Traceback" in (jobs[2] / "train.log").read_text()
    assert "NonFiniteLoss" in (jobs[2] / "train.log").read_text()
    assert "The loss became" in json.loads((jobs[2] / "failed.json").read_text())["error"]
    assert torch.equal(weights(jobs[6]), alone)


def test_fail_fast_stops_at_the_first_and_what_was_mended_is_run_by_a_resume(
    command: Command, mnist: Path, tmp_path: Path
) -> None:
    # the data is not where job 0 looks for it, until it is
    data = tmp_path / "data"
    arguments = ("-m", *ONE_EPOCH, f"data.dir={data}", "seed=0,1")
    (tmp_path / "data").write_text("a file where the folder should be")
    done = command("train.py", *arguments, "sweep.fail_fast=true")
    assert done.returncode == 1
    assert "job 1" not in done.stdout
    assert "1 failed" in done.stdout
    assert "Run the rest and those that failed by" in done.stderr
    sweep = only_run(tmp_path, "sweeps")

    data.unlink()
    data.symlink_to(mnist)
    done = command("train.py", f"sweep.resume={sweep}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["status"] for row in rows(sweep).values()} == {"finished"}
    assert sorted(rows(sweep)) == ["0", "1"]
    assert not list(sweep.glob("*/failed.json"))


def test_a_killed_sweep_goes_on_as_if_it_had_not_been(
    command: Command, train: Command, mnist: Path, tmp_path: Path
) -> None:
    long = (*SHORT, "trainer.limit_train_batches=100", "trainer.max_epochs=4", "optim=adam,sgd", "seed=0,1")
    train("-m", *long, "hydra.sweep.dir=whole")
    process = started(tmp_path, mnist, *long, "hydra.sweep.dir=killed")
    wait_for(process, "epoch 2/4", times=2)  # of the second job
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert len(jobs_of(killed)) == 2
    first = (killed / jobs_of(killed)[0].name / "metrics.json").stat().st_mtime_ns

    refused = command("train.py", "-m", f"data.dir={mnist}", *long, "hydra.sweep.dir=killed")
    assert refused.returncode == 1
    assert "holds a sweep already. Go on with it by sweep.resume=killed" in refused.stderr
    refused = command("train.py", "-m", *long, "optim.lr=0.1", "optim=adam", "sweep.resume=killed")
    assert refused.returncode == 1
    assert "optim.lr: 0.01 before, 0.1 now" in refused.stderr
    assert "optim: adam,sgd before, adam now" in refused.stderr

    done = train("-m", *long, "sweep.resume=killed/")
    assert "resumed    after epoch" in done.stdout
    assert [job.name for job in jobs_of(killed)] == [job.name for job in jobs_of(whole)]
    assert (killed / jobs_of(killed)[0].name / "metrics.json").stat().st_mtime_ns == first
    for one, other in zip(jobs_of(killed), jobs_of(whole), strict=True):
        assert torch.equal(weights(one), weights(other))
        assert scalars(one) == scalars(other)
    done = train("sweep.resume=killed")  # nothing is left to do
    assert not re.search("^job ", done.stdout, re.MULTILINE)
    assert "4 ok" in done.stdout


def test_ctrl_c_ends_a_sweep_with_its_report_and_how_to_go_on(
    train: Command, mnist: Path, tmp_path: Path
) -> None:
    process = started(tmp_path, mnist, *SHORT, "trainer.max_epochs=40", "seed=0,1")
    wait_for(process, "epoch  3/40")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert errors == ""
    sweep = only_run(tmp_path, "sweeps")
    assert f"interrupted; go on with: python train.py sweep.resume={sweep.relative_to(tmp_path)}" in output
    assert rows(sweep)["0"]["status"] == "unfinished"
    assert int(rows(sweep)["0"]["epochs"]) >= 2
    assert processes_of(tmp_path) == []


def test_two_processes_do_not_run_one_sweep(command: Command, mnist: Path, tmp_path: Path) -> None:
    process = started(tmp_path, mnist, *SHORT, "trainer.max_epochs=9999", "seed=0,1")
    wait_for(process, "epoch ")
    done = command("train.py", f"sweep.resume={only_run(tmp_path, 'sweeps')}")
    process.kill()
    process.communicate()
    assert done.returncode == 1
    assert "Another process is running the sweep" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep.resume=nowhere"], "sweep.resume=nowhere is not the folder of a sweep"),
        (["-m", "optim=sgd,adm"], "adm"),
        (["-m", "optim.lr=interval(0,1)"], "hydra/sweeper=optuna"),
    ],
)
def test_what_cannot_be_swept_is_told_before_any_job_runs(
    arguments: list[str], said: str, command: Command, tmp_path: Path
) -> None:
    done = command("train.py", *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("logs/sweeps/*/*_*"))


def test_jobs_are_kept_where_the_user_wants_them_each_in_its_own_folder(
    command: Command, train: Command, tmp_path: Path
) -> None:
    swept = ("-m", *ONE_EPOCH, "seed=0,1", "hydra.sweep.dir=sweep")
    refused = command("train.py", *swept, "hydra.sweep.subdir=${hparams.optim}")
    assert refused.returncode == 1
    assert "The jobs 0 and 1 would have the same folder" in refused.stderr
    done = train(*swept, "hydra.sweep.subdir='${hparams.optim}/${hydra:job.num}'")
    assert (tmp_path / "sweep" / "sgd" / "1" / "metrics.json").is_file()
    assert "2 ok" in done.stdout


def test_the_last_value_of_a_setting_holds(train: Command, tmp_path: Path) -> None:
    train("-m", *ONE_EPOCH, "seed=0,1", "seed=3")
    assert len(jobs_of(only_run(tmp_path, "sweeps"))) == 1
