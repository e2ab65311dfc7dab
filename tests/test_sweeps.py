"""Searches as a user types them: a kill, ranks that are pruned together, several objectives."""

import json
import signal
from pathlib import Path

import pytest
import torch
from tests.sweeps.test_running import rows, started, wait_for

from tests.conftest import Command
from tests.runs import SHORT, jobs_of, only_run, processes_of, weights

SEARCH = (*SHORT, "trainer.max_epochs=3", "hydra/sweeper=optuna", "optim.lr=tag(log, interval(1e-5, 0.5))")


def ends(sweep: Path) -> list[tuple[str, str, str, str]]:
    return [(row["job"], row["lr"], row["status"], row["val/acc"]) for row in rows(sweep).values()]


def test_a_killed_search_goes_on_as_if_it_had_not_been(
    command: Command, train: Command, mnist: Path, tmp_path: Path
) -> None:
    # long enough that the kill comes in the middle of a job
    arguments = (*SEARCH, "trainer.limit_train_batches=60", "optim=adam,sgd")
    train("-m", *arguments, "hydra.sweeper.n_trials=7", "hydra.sweep.dir=whole")
    process = started(tmp_path, mnist, *arguments, "hydra.sweeper.n_trials=5", "hydra.sweep.dir=killed")
    wait_for(process, "job 3:")
    wait_for(process, "epoch 1/3")
    process.send_signal(signal.SIGKILL)
    process.communicate()

    refused = command("train.py", "-m", "optim=adam", "sweep.resume=killed")
    assert "optim: adam,sgd before, adam now" in refused.stderr
    done = train("-m", "hydra.sweeper.n_trials=7", "sweep.resume=killed")  # of which some are there
    assert "job 2:" not in done.stdout
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert [job.name for job in jobs_of(killed)] == [job.name for job in jobs_of(whole)]
    assert len(jobs_of(killed)) == 7
    assert ends(killed) == ends(whole)
    assert {"finished", "pruned"} == {row["status"] for row in rows(whole).values()}
    for one, other in zip(jobs_of(killed), jobs_of(whole), strict=True):
        assert torch.equal(weights(one), weights(other))
    assert "saved by pruning" in done.stdout
    assert (whole / "pictures" / "study_history.png").is_file()
    assert "study_history.png" in (whole / "sweep.md").read_text()


def test_all_ranks_of_a_job_are_pruned_together_and_what_failed_is_tried_again(
    command: Command, mnist: Path, tmp_path: Path
) -> None:
    done = command(
        "train.py",
        "-m",
        f"data.dir={mnist}",
        *(*SHORT, "trainer.max_epochs=3", "hydra/sweeper=optuna", "trainer=ddp", "trainer.devices=2"),
        *("optim.lr=0.05,1e-7,1e-8,1e30", "hydra/sweeper/sampler=grid", "hydra.sweeper.seed=3"),
        *("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1"),
        "hydra.sweeper.pruner.n_warmup_steps=0",
    )
    assert done.returncode == 1
    sweep = only_run(tmp_path, "sweeps")
    told = {row["lr"]: (row["status"], row["epochs"]) for row in rows(sweep).values()}
    assert told["0.05"] == ("finished", "3")
    assert ("pruned", "1") in told.values()
    assert told["1e+30"][0] == "failed"
    pruned = next(job for job in jobs_of(sweep) if rows(sweep)[job.name[0]]["status"] == "pruned")
    metrics = json.loads((pruned / "metrics.json").read_text())
    assert metrics["devices"] == 2
    assert not [name for name in metrics if name.startswith("test/")]
    assert processes_of(tmp_path) == []

    again = command("train.py", f"sweep.resume={sweep}")
    assert again.returncode == 1
    (number,) = [job for job, row in rows(sweep).items() if row["status"] == "failed"]
    assert f"job {number}: optim.lr=1e+30" in again.stdout
    assert again.stdout.count(": optim.lr=") == 1
    assert len(jobs_of(sweep)) == 4


def test_several_objectives_and_a_space_that_depends_on_the_optimizer(train: Command, tmp_path: Path) -> None:
    done = train(
        *("-m", *SHORT, "trainer.max_epochs=1", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3"),
        *("optim=sgd,adam", "hydra/sweeper/sampler=random", "hydra/sweeper/pruner=none"),
        "hydra.sweeper.conditional=mnist_cnn.sweeps.conditional.by_optimizer",
        "hydra.sweeper.objectives={val/acc:maximize,seconds:minimize}",
    )
    sweep = only_run(tmp_path, "sweeps")
    for job in jobs_of(sweep):
        assert ("optim.momentum" in job.name) == ("optim=sgd" in job.name)
        assert "optim.lr" in job.name
    assert "among the best by val/acc, seconds: job" in done.stdout
    assert "*" in {row["best"] for row in rows(sweep).values()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hydra.sweeper.objectives={test/acc:maximize}"], "test/acc"),
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0"),
        (["hydra.sweeper.objectives={val/acc:maximize,seconds:minimize}"], "hydra/sweeper/pruner=none"),
        (["hydra.sweeper.conditional=nowhere.at_all"], "hydra.sweeper.conditional=nowhere.at_all"),
        (["hydra/sweeper/sampler=grid"], "optim.lr is continuous"),
    ],
)
def test_what_cannot_be_searched_is_told(arguments: list[str], said: str, command: Command) -> None:
    done = command("train.py", "-m", *SEARCH, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_optuna_is_told_with_its_extra(command: Command, tmp_path: Path) -> None:
    (tmp_path / "optuna.py").write_text("raise ModuleNotFoundError('No module named optuna')")
    done = command("train.py", "-m", *SEARCH, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "pip install -e '.[search]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_trial_whose_settings_do_not_go_together_fails_alone(
    command: Command, mnist: Path, tmp_path: Path
) -> None:
    # adam has no momentum
    done = command(
        *("train.py", "-m", f"data.dir={mnist}", *SHORT, "trainer.max_epochs=1", "hydra/sweeper=optuna"),
        *("optim=sgd,adam", "optim.momentum=0.5,0.9", "hydra/sweeper/sampler=grid"),
    )
    assert done.returncode == 1
    sweep = only_run(tmp_path, "sweeps")
    assert "2 ok, 2 failed" in done.stdout or "1 ok, 1 pruned, 2 failed" in done.stdout
    for job, row in rows(sweep).items():
        assert (row["status"] == "failed") == ("Key 'momentum' is not in struct" in row["error"]), job
    assert "Key 'momentum' is not in struct" in done.stdout
