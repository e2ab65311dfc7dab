"""Sweeps of real trainings: the same weights under each launcher, resuming, and several ranks per job."""

import csv
import json
import signal
from pathlib import Path

import psutil
import torch

from tests.conftest import Command, Start
from tests.faults import fault
from tests.runs import SHORT, jobs_of, only_run, processes_of, weights

UNLOGGED = (*SHORT, "logger=none")  # which saves the figures of TensorBoard
SEARCH = (*UNLOGGED, "trainer.max_epochs=3", "hydra/sweeper=optuna", "optim.lr=tag(log, interval(1e-5, 0.5))")
ONE_STEP = (
    *SHORT,
    "trainer.limit_train_batches=1",
    "trainer.limit_test_batches=0",
    "trainer.max_epochs=1",
)
DDP = (*UNLOGGED, "trainer=ddp", "trainer.devices=2")


def rows(sweep: Path) -> dict[str, dict[str, str]]:
    """Return the rows of sweep.csv by the number of the job."""
    with (sweep / "sweep.csv").open() as file:
        return {row["job"]: row for row in csv.DictReader(file)}


def test_failing_jobs_are_reported_and_do_not_affect_others(
    command: Command, train: Command, mnist: Path, tmp_path: Path
) -> None:
    one_epoch = (*SHORT, "trainer.max_epochs=1", "logger=none")
    train(*one_epoch, "optim.lr=0.02")
    done = command(
        "train.py",
        "-m",
        f"data.dir={mnist}",
        *one_epoch,
        "logger=tensorboard",
        "seed=42",
        "optim.lr=0.01,1e30,0.02",
    )
    assert done.returncode == 1
    sweep = only_run(tmp_path, "sweeps")
    assert [row["status"] for _, row in sorted(rows(sweep).items())] == ["finished", "failed", "finished"]
    assert "job 1 failed: The loss is" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert f"train.py sweep.resume={sweep.relative_to(tmp_path)}" in done.stderr
    # a job is headed by one line, and the sweep ends with how to look at it
    assert "network" not in done.stdout and "run folder" not in done.stdout
    assert "network    CnnNet" in (jobs_of(sweep)[0] / "train.log").read_text()
    assert done.stdout.splitlines()[-1] == f"view: tensorboard --logdir {sweep.relative_to(tmp_path)}"
    failed = jobs_of(sweep)[1]
    assert "NonFiniteLoss" in (failed / "train.log").read_text()
    assert "The loss is" in json.loads((failed / "failed.json").read_text())["error"]
    assert torch.equal(weights(jobs_of(sweep)[2]), weights(only_run(tmp_path)))


def test_killed_search_is_resumed_with_same_weights(
    start: Start, train: Command, mnist: Path, tmp_path: Path
) -> None:
    # with this seed the third job is pruned
    arguments = (*SEARCH, "trainer.limit_train_batches=30", "optim=adam,sgd", "hydra.sweeper.seed=2")
    train("-m", *arguments, "hydra.sweeper.n_trials=3", "hydra.sweep.dir=whole")
    killed_search = (*arguments, "hydra.sweeper.n_trials=2", "hydra.sweep.dir=killed")
    started = start("train.py", "-m", f"data.dir={mnist}", *killed_search)
    started.wait_for("job 1:")
    started.wait_for("epoch 1/3", after="job 1:")
    started.send_signal(signal.SIGKILL)
    started.wait()
    done = train("hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "sweep.resume=killed")
    assert "job 0:" not in done.stdout
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert [job.name for job in jobs_of(killed)] == [job.name for job in jobs_of(whole)]
    kept = ("job", "lr", "status", "val/acc")
    assert {tuple(row[key] for key in kept) for row in rows(killed).values()} == {
        tuple(row[key] for key in kept) for row in rows(whole).values()
    }
    assert {row["status"] for row in rows(whole).values()} == {"finished", "pruned"}
    for one, other in zip(jobs_of(killed), jobs_of(whole), strict=True):
        assert torch.equal(weights(one), weights(other))
    assert "saved by pruning" in done.stdout


def test_all_ranks_of_job_are_pruned_together(command: Command, mnist: Path, tmp_path: Path) -> None:
    done = command(
        "train.py",
        "-m",
        f"data.dir={mnist}",
        *DDP,
        "trainer.max_epochs=3",
        "optim.lr=0.05,0.01",
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=1",
        "hydra/sweeper/pruner=none",
        "hydra.sweeper.pruner._target_=optuna.pruners.ThresholdPruner",
        "+hydra.sweeper.pruner.lower=0.99",
    )
    assert done.returncode == 0, done.stderr
    (job,) = jobs_of(only_run(tmp_path, "sweeps"))
    metrics = json.loads((job / "metrics.json").read_text())
    assert (metrics["status"], metrics["epochs"], metrics["devices"]) == ("pruned", 1, 2)
    assert not [name for name in metrics if name.startswith("test/")]
    assert processes_of(tmp_path) == []


def test_no_rank_outlives_its_killed_sweep(start: Start, mnist: Path) -> None:
    pool = ("hydra/launcher=pool", "hydra.launcher.n_jobs=2", "hydra.launcher.preload=[]")
    arguments = (*DDP, "trainer.max_epochs=9999", *pool)
    started = start("train.py", "-m", f"data.dir={mnist}", *arguments)
    started.wait_for("epoch    2/9999")
    children = psutil.Process(started.process.pid).children(recursive=True)
    ranks = [child for child in children if "train.py" in " ".join(child.cmdline())]
    assert len(ranks) == 2
    started.send_signal(signal.SIGKILL)
    started.wait(timeout=60)
    left = psutil.wait_procs(children, timeout=60)[1]
    for child in left:
        child.kill()
    assert left == []


def test_settings_that_cannot_be_combined_fail_alone(command: Command, mnist: Path, tmp_path: Path) -> None:
    # adam has no momentum
    done = command(
        "train.py",
        "-m",
        f"data.dir={mnist}",
        *ONE_STEP,
        "logger=none",
        "hydra/sweeper=optuna",
        "optim=sgd,adam",
        "optim.momentum=0.5",
        "hydra/sweeper/sampler=random",
        "hydra.sweeper.seed=0",
        "hydra.sweeper.n_trials=2",
    )
    assert done.returncode == 1
    assert "1 ok, 1 failed" in done.stdout
    assert "Key 'momentum' is not in struct" in done.stdout


def test_jobs_of_a_sweep_leave_no_memory_files_or_threads_behind(train: Command, tmp_path: Path) -> None:
    train("-m", *ONE_STEP, "seed=range(8)", fault("Usage", file="usage"))
    used = usage(tmp_path / "usage")
    assert len(used) == 8
    assert len({(job["files"], job["threads"]) for job in used[4:]}) == 1, used  # the first load libraries
    # the largest, since the images of a job, 55 MB, may be freed later or earlier
    assert largest(used[5:]) - largest(used[2:5]) < 20, used


def largest(used: list[dict[str, float]]) -> float:
    return max(job["megabytes"] for job in used)


def usage(file: Path) -> list[dict[str, float]]:
    """Return what the process used after each job, as `tests.faults.Usage` has written it."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_experiment_file_is_a_search(train: Command, tmp_path: Path) -> None:
    done = train(*ONE_STEP, "logger=none", "experiment=search", "hydra.sweeper.n_trials=2")
    jobs = jobs_of(only_run(tmp_path, "sweeps"))
    assert len(jobs) == 2
    assert all("optim.lr" in job.name for job in jobs)
    assert "experiment=search" in done.stdout
    assert done.stdout.count("hydra.mode=RUN") == 1  # to run one job again
