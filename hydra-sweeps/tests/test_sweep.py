"""Sweeps of the test app: grids, searches, failures, kills, and resuming, under each launcher."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from hydra_sweeps import SweepError
from hydra_sweeps.contract import Job
from hydra_sweeps.grid import Grid

Run = Callable[..., "subprocess.CompletedProcess[str]"]
App = Callable[..., "subprocess.Popen[str]"]
Plan = Callable[..., tuple[Grid, list[Job]]]

APP = "../app/app.py"  # as typed in the folder of a test
POOL = ("hydra/launcher=pool", "hydra.launcher.n_jobs=2")
LAUNCHERS = pytest.mark.parametrize("launcher", [(), POOL], ids=["in_process", "pool"])


def rows(sweep: Path) -> dict[str, dict[str, str]]:
    """Return the rows of sweep.csv by the number of the job."""
    with (sweep / "sweep.csv").open() as file:
        return {row["job"]: row for row in csv.DictReader(file)}


def results(sweep: Path) -> dict[str, Any]:
    """Return the final x of each job by its folder."""
    return {path.parent.name: json.loads(path.read_text())["x"] for path in sweep.glob("*/metrics.json")}


def descend(seed: int, lr: float, epochs: int) -> float:
    """Return the final x of a job that is not interrupted."""
    x = float(seed)
    for _ in range(epochs):
        x -= lr * 2 * (x - 2.0)
    return x


def wait_for(process: "subprocess.Popen[str]", text: str) -> None:
    assert process.stdout is not None
    assert any(text in line for line in process.stdout), f"{text!r} was not printed"


def processes_of(app_folder: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(app_folder) in part for part in process.info["cmdline"] or [])
    ]


def test_grid_runs_every_combination_and_reports_it(run: Run, tmp_path: Path) -> None:
    done = run("-m", "lr=0.1,0.2", "target=2,3", "hydra.sweep.dir='a,b=c'")
    assert (done.returncode, done.stderr) == (0, "")
    sweep = tmp_path / "a,b=c"
    folders = ["0_lr-0.1_target-2", "1_lr-0.1_target-3", "2_lr-0.2_target-2", "3_lr-0.2_target-3"]
    assert sorted(results(sweep)) == folders
    assert "job 3: lr=0.2 target=3   (4 of 4)" in done.stdout
    assert f"best by val/loss: job 2, rerun with: python {APP} lr=0.2 target=2" in done.stdout
    assert (sweep / "figures" / "lr_x_target.png").is_file()

    refused = run("-m", "lr=0.1,0.2", "hydra.sweep.dir='a,b=c'")
    assert refused.returncode == 1
    resume = shlex.join(["python", APP, "sweep.resume='a,b=c'"])
    assert f"a,b=c already holds a sweep. Resume it with: {resume}" in refused.stderr
    assert "Traceback" not in refused.stderr
    refused = run("-m", "lr=0.1", "target=2,3", "sweep.resume='a,b=c'")
    assert "lr: 0.1,0.2 before, 0.1 now" in refused.stderr
    done = run("sweep.resume='a,b=c/'")
    assert done.returncode == 0, done.stderr
    assert "4 ok" in done.stdout
    assert "epoch" not in done.stdout.split("| job")[0]  # nothing was left to do


@LAUNCHERS
def test_failed_jobs_are_reported_and_rerun_by_resume(
    launcher: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    done = run("-m", *launcher, "fail=null,error", "seed=0,1", r"hydra.sweep.dir='it\'s'")
    assert done.returncode == 1
    assert "job 2 failed: ValueError: wanted" in done.stdout
    traceback = re.search(r"job 2 failed.*\n  traceback: (.*)", done.stdout)
    assert traceback is not None
    assert 'raise ValueError("wanted")' in json.loads((tmp_path / traceback[1]).read_text())["traceback"]
    assert "2 ok, 2 failed" in done.stdout
    sweep = tmp_path / "it's"
    assert {job: row["status"] for job, row in rows(sweep).items()} == {
        **{"0": "finished", "1": "finished"},
        **{"2": "failed", "3": "failed"},
    }
    before = (sweep / "0_fail-null_seed-0" / "metrics.json").stat().st_mtime_ns
    # the command that is printed can be pasted into a shell
    command = done.stderr.split("Run the failed jobs with: ")[1].splitlines()[0]
    arguments = shlex.split(command)
    assert arguments[:2] == ["python", APP]
    done = run(*arguments[2:])
    assert "job 2: fail=error" in done.stdout
    assert "job 0:" not in done.stdout
    assert (sweep / "0_fail-null_seed-0" / "metrics.json").stat().st_mtime_ns == before


def test_fail_fast_stops_at_first_failure(run: Run, tmp_path: Path) -> None:
    done = run("-m", "fail=error,null", "seed=0,1", "sweep.fail_fast=true")
    assert done.returncode == 1
    assert "job 1" not in done.stdout
    assert "Run the rest and the failed jobs with" in done.stderr
    assert len(list((tmp_path / "sweep").glob("*/.hydra"))) == 1


def test_exception_that_is_none_interrupts_the_sweep(run: Run) -> None:
    done = run("-m", "fail=stop,null", "seed=0,1")
    assert done.returncode == 128 + signal.SIGHUP, done.stderr
    assert f"interrupted; resume with: python {APP} sweep.resume=sweep" in done.stdout
    assert "job 1" not in done.stdout.split("interrupted")[0].split("| ")[0]


@pytest.mark.parametrize(
    ("launcher", "how"),
    [((), signal.SIGTERM), (POOL, signal.SIGKILL)],
    ids=["terminated in process", "killed in the pool"],
)
def test_interrupted_sweep_is_resumed_with_same_results(
    launcher: tuple[str, ...], how: signal.Signals, run: Run, start: App, app_folder: Path, tmp_path: Path
) -> None:
    sweep = ("-m", *launcher, "seed=0,1", "lr=0.1,0.2", "epochs=10")
    # as under `nohup … &`, where SIGINT is ignored
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start(*sweep, "sleep=0.2", "hydra.sweep.dir=part")
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(process, "epoch 10")
    wait_for(process, "epoch 3")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    output, errors = process.communicate(timeout=60)
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert processes_of(app_folder) == []
    if how is signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM, errors
        assert f"interrupted; resume with: python {APP} sweep.resume=part" in output
    done = run("sweep.resume=part", "sleep=0")
    assert done.returncode == 0, done.stderr
    assert "resumed after epoch" in done.stdout
    expected = [descend(seed, lr, epochs=10) for seed in (0, 1) for lr in (0.1, 0.2)]
    assert [x for _, x in sorted(results(tmp_path / "part").items())] == expected


def test_one_sweep_is_run_by_one_process(run: Run, start: App) -> None:
    process = start("-m", "seed=0,1", "sleep=60")
    wait_for(process, "epoch 1")
    done = run("sweep.resume=sweep")
    process.kill()
    process.communicate()
    assert done.returncode == 1
    assert "Another process is running the sweep" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep.resume=nowhere"], "sweep.resume=nowhere is not the folder of a sweep"),
        (["-m", "seed=0,1", *POOL[:1], "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs=0"),
        (["-m", "seed=0,1", "hydra/sweeper=basic", *POOL[:1]], "hydra/sweeper=grid"),
    ],
)
def test_user_errors_are_reported_before_any_job_runs(
    arguments: list[str], message: str, run: Run, tmp_path: Path
) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert not list(tmp_path.glob("sweep/*/.hydra"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rate=0.1,0.2"], "rate=0.1: Could not override 'rate'"),
        (["lr=interval(0,1)"], "hydra/sweeper=optuna"),
        (["seed=range(0,3,0)"], "seed=range(0,3,0): range() arg 3 must not be zero"),
        (["lr=range(0.0,3.0,0)"], "lr=range(0.0,3.0,0): Invalid range values"),
        (["lr=0.1,0.2", "seed=range(3,0)"], "seed=range(3,0) has no value: no job would run."),
        (["seed=glob(*)"], "seed=glob(*) has no value"),
        (["lr=shuffle(0.1,0.2)"], "lr=shuffle(0.1,0.2): resuming the sweep would give another order"),
    ],
)
def test_invalid_grids_are_refused(overrides: list[str], message: str, plan: Plan) -> None:
    with pytest.raises(SweepError, match=re.escape(message)):
        plan(*overrides)


def test_jobs_get_settings_of_their_report(plan: Plan) -> None:
    metrics, ignore = "sweep.metrics=[seconds]", "sweep.ignore=[lr]"
    sweep, (job,) = plan(metrics, ignore, "lr=0.3", "seed=1", "sweep.fail_fast=true")
    ready = sweep.ready(job)
    assert ready.overrides == [metrics, ignore, "lr=0.3", "seed=1"]
    assert ready.folder.name == "0_seed-1"


@pytest.mark.parametrize(
    ("subdir", "name"),
    [
        ("${hydra.job.num}", "1"),
        ("a/${hydra.job.num}", "1_lr-0.2"),
        ("2024_${hydra.job.num}", "1_lr-0.2"),
        ("${hydra:job.override_dirname}", "1_lr-0.2"),
        ("${hydra:job.num}_${lr}", "1_lr-0.2"),
        ("same", "1_lr-0.2"),
    ],
)
def test_each_job_has_a_folder_of_its_own(subdir: str, name: str, plan: Plan, tmp_path: Path) -> None:
    sweep, jobs = plan("lr=0.1,0.2", f"hydra.sweep.subdir='{subdir}'")
    assert sweep.ready(jobs[1]).folder == tmp_path / "sweep" / name


def test_jobs_in_pool_have_their_options_and_prefix(run: Run, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "more").mkdir()
    (conf / "more" / "short.yaml").write_text("# @package _global_\nepochs: 2\n")
    done = run("-m", f"--config-dir={conf}", *POOL, "+more=short", "seed=0,1", "hydra.launcher.threads=3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "#0  epoch 2\n" in done.stdout
    assert "#1  epoch 2\n" in done.stdout
    assert "epoch 3" not in done.stdout
    metrics = json.loads((tmp_path / "sweep" / "0_seed-0" / "metrics.json").read_text())
    assert metrics["threads"] == "3"


SEARCH = ("hydra/sweeper=optuna", "lr=interval(0.01,0.4)", "epochs=9", "hydra/sweeper/sampler=random")


def test_search_prunes_and_is_resumed_with_same_results(run: Run, start: App, tmp_path: Path) -> None:
    done = run("-m", *SEARCH, "hydra.sweeper.n_trials=7", "hydra.sweep.dir=whole")
    assert done.returncode == 0, done.stderr
    assert "saved by pruning" in done.stdout
    search = ("-m", *SEARCH, "hydra/launcher=pool", "hydra.launcher.n_jobs=1", "hydra.sweeper.n_trials=5")
    process = start(*search, "sleep=0.1", "hydra.sweep.dir=part")
    wait_for(process, "job 2:")
    wait_for(process, "epoch 1")
    process.kill()
    process.communicate()
    done = run("sweep.resume=part", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=7", "sleep=0")
    assert done.returncode == 0, done.stderr
    whole, part = rows(tmp_path / "whole"), rows(tmp_path / "part")
    assert {row["status"] for row in whole.values()} == {"finished", "pruned"}
    kept = ("lr", "status", "epochs", "val/loss")
    assert {j: [r[k] for k in kept] for j, r in part.items()} == {
        j: [r[k] for k in kept] for j, r in whole.items()
    }


def test_search_has_several_objectives(run: Run, tmp_path: Path) -> None:
    objectives = "hydra.sweeper.objectives={val/loss:minimize,seconds:minimize}"
    done = run("-m", *SEARCH, objectives, "hydra/sweeper/pruner=none", "hydra.sweeper.n_trials=3")
    assert done.returncode == 0, done.stderr
    assert "among the best by val/loss, seconds: job" in done.stdout
    assert "*" in {row["best"] for row in rows(tmp_path / "sweep").values()}


def test_search_for_the_worst_is_refused(run: Run) -> None:
    for objectives in ("{val/acc:minimize}", "{val/loss:maximize}"):  # of sweep.modes, and the app's own
        done = run("-m", *SEARCH, f"hydra.sweeper.objectives={objectives}", "+sweep.modes={val/acc: max}")
        assert "would search for the worst: write {" in done.stderr


def test_metric_that_no_job_has_is_reported(run: Run) -> None:
    objectives = "hydra.sweeper.objectives={val/los:minimize}"
    done = run("-m", *SEARCH, objectives, "hydra/sweeper/pruner=none", "hydra.sweeper.n_trials=1")
    assert done.returncode == 1
    assert "job 0 has no finite val/los, by which the search chooses. It has: val/loss 0." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra.sweeper.objectives={test/acc:maximize}"], "test/acc"),
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0"),
        (["hydra.sweeper.objectives={x:minimize,seconds:minimize}"], "hydra/sweeper/pruner=none"),
        (["hydra.sweeper.conditional=nowhere.at_all"], "hydra.sweeper.conditional=nowhere.at_all"),
        (["hydra.sweeper.objectives=val/acc"], "write 'hydra.sweeper.objectives={val/acc:maximize}'"),
        (["hydra.sweeper.sampler=random"], "write hydra/sweeper/sampler=random"),
        (["hydra.sweeper.pruner=none"], "write hydra/sweeper/pruner=none"),
        (["rate=interval(0.1,0.2)", "fail=null,x"], "Could not override 'rate'"),
        (["lr=shuffle(0.1,0.2)"], "Leave out shuffle()"),
    ],
)
def test_invalid_searches_are_refused(arguments: list[str], message: str, plan: Plan) -> None:
    with pytest.raises(SweepError, match=re.escape(message)):
        plan(*SEARCH, *arguments)


def test_missing_library_is_reported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "optuna.py").write_text("raise ModuleNotFoundError('none', name='optuna')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = run("-m", *SEARCH, PYTHONPATH=path)
    assert done.returncode == 1
    assert "pip install 'hydra-sweeps[optuna]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_module_run_with_m_is_run_again(app_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "-m", *POOL, "seed=0,1"]
    path = os.pathsep.join([str(app_folder), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert len(results(tmp_path / "sweep")) == 2
