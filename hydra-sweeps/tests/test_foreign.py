"""Another app, without a line changed: its own script, config folder and result, and no conventions."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SWEEP = ("--config-name=small", "-m", "hydra/sweeper=grid", "hydra/callbacks=run_files")
POOL = ("hydra/launcher=pool", "hydra.launcher.n_jobs=2")
SEARCH = ("--config-name=small", "-m", "hydra/sweeper=optuna", "hydra/callbacks=run_files")

Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script(tmp_path: Path) -> str:
    shutil.copytree(Path(__file__).parent / "foreign", tmp_path, dirs_exist_ok=True)
    return "tools/fit.py"


def rows(sweep: Path) -> dict[str, dict[str, str]]:
    with (sweep / "sweep.csv").open() as file:
        return {row["job"]: row for row in csv.DictReader(file)}


def printed_command(text: str, after: str) -> list[str]:
    """Return the arguments of a command that was printed, to be run as it is."""
    command = shlex.split(text.split(after)[1].splitlines()[0])
    assert command[:2] == ["python", "tools/fit.py"]
    return command[2:]


@pytest.mark.parametrize("launcher", [(), POOL], ids=["in_process", "pool"])
def test_grid_with_failing_jobs_is_reported_and_resumed(
    launcher: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    done = run(*SWEEP, *launcher, "model.width=1,3", "problem=null,error,exit", "hydra.sweep.dir=out")
    assert done.returncode == 1
    assert "2 ok, 4 failed" in done.stdout
    assert "job 1 failed: ValueError: wanted" in done.stdout
    assert "job 2 failed: a reason" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert (
        'raise ValueError("wanted")' in json.loads((tmp_path / "out/1/failed.json").read_text())["traceback"]
    )
    table = rows(tmp_path / "out")
    assert (table["0"]["model.width"], table["0"]["status"]) == ("1", "finished")
    assert float(table["3"]["result"]) == pytest.approx(1 / 9)

    best = run(
        *printed_command(done.stdout, "rerun with: "), "hydra/callbacks=run_files", "hydra.run.dir=best"
    )
    assert best.returncode == 0, best.stderr
    again = json.loads((tmp_path / "best" / "metrics.json").read_text())["result"]
    assert again == pytest.approx(1 / 9)  # with the other config's 99 epochs it would be smaller

    resumed = run(*printed_command(done.stderr, "Run the failed jobs with: "))
    assert resumed.returncode == 1
    assert "job 0:" not in resumed.stdout
    assert "job 1 failed: ValueError: wanted" in resumed.stdout
    assert "2 ok, 4 failed" in resumed.stdout


def test_job_without_a_result_is_counted_as_failed(run: Run) -> None:
    done = run(*(argument for argument in SWEEP if "callbacks" not in argument), "model.width=1,2")
    assert done.returncode == 1
    assert "job 1 failed: it has left no result in its folder" in done.stdout


def test_an_app_that_continues_runs_must_have_a_setting_for_them(run: Run) -> None:
    done = run(*SWEEP, "model.width=1,2", "+sweep.resume_jobs=true")
    assert "sweep.resume_jobs=true: the app has no setting resume" in done.stderr


def test_killed_jobs_fail_alone_in_the_pool(run: Run, tmp_path: Path) -> None:
    done = run(*SWEEP, *POOL, "problem=null,kill", "hydra.sweep.dir=out")
    assert done.returncode == 1
    assert "job 1 failed: the job's process was killed by SIGKILL" in done.stdout
    assert {job: row["status"] for job, row in rows(tmp_path / "out").items()} == {
        "0": "finished",
        "1": "failed",
    }


@pytest.mark.parametrize(("launcher", "folder"), [((), "out"), (POOL, "tools/../out")])
def test_search_prunes_in_any_folder(
    launcher: tuple[str, ...], folder: str, run: Run, tmp_path: Path
) -> None:
    arguments = (*SEARCH, *launcher, "model.width=interval(0.0,9.0)", "hydra.sweeper.n_trials=8")
    done = run(*arguments, "hydra/sweeper/sampler=random", f"hydra.sweep.dir={folder}")
    assert done.returncode == 0, done.stderr
    statuses = [row["status"] for row in rows(tmp_path / "out").values()]
    assert {"finished", "pruned"} == set(statuses), statuses
    assert "model.width" in rows(tmp_path / "out")["0"]


def test_killed_sweep_is_resumed(start: Start, run: Run, tmp_path: Path) -> None:
    process = start(*SWEEP, *POOL, "model.width=1,2,3", "problem=hang", "hydra.sweep.dir=out")
    deadline = time.monotonic() + 60
    while not (tmp_path / "out/1/.hydra/resolved.yaml").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (tmp_path / "go").touch()
    done = run(*SWEEP[:2], "hydra/sweeper=grid", "hydra/callbacks=run_files", "+sweep.resume=out")
    assert done.returncode == 0, done.stderr
    assert "3 ok" in done.stdout
    assert [float(rows(tmp_path / "out")[job]["result"]) for job in "012"] == pytest.approx(
        [(width - 3) ** 2 + 1 / 9 for width in (1, 2, 3)]
    )


def test_experiment_chooses_the_sweeper(run: Run, tmp_path: Path) -> None:
    extra = ("--config-name=small", "--config-dir=more")
    done = run(*extra, "+experiment=mine", "hydra.sweep.dir=out")
    assert done.returncode == 0, done.stderr
    assert "3 ok" in done.stdout or "pruned" in done.stdout
    best = run(*printed_command(done.stdout, "rerun with: "), "hydra.run.dir=best")
    assert best.returncode == 0, best.stderr
    assert (tmp_path / "best" / "metrics.json").is_file()
    # a sweep is resumed with the options of its configuration
    (tmp_path / "out/1/metrics.json").unlink()
    done = run(*extra, "-m", "hydra/sweeper=grid", "hydra/callbacks=run_files", "+sweep.resume=out")
    assert done.returncode == 0, done.stderr


MISSING = "import sys\nsys.modules['matplotlib'] = None\n"


def test_report_is_complete_without_matplotlib(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(MISSING)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run(*SWEEP, "model.width=1,2", "hydra.sweep.dir=out", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert "pip install 'hydra-sweeps[matplotlib]'" in done.stdout
    assert (tmp_path / "out" / "sweep.md").is_file()
    assert (tmp_path / "out" / "sweep.csv").is_file()
    assert "best by result: job" in done.stdout

    refused = run("--config-name=small", "-m", "hydra/sweeper=optuna", "+sweep.resume=out")
    assert "other callbacks. Add to the command: hydra/callbacks=run_files" in refused.stderr
    command = [sys.executable, "-m", "hydra_sweeps", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path / "more", capture_output=True, text=True, timeout=60)
    assert f"rerun with: cd {tmp_path} && python tools/fit.py --config-name=small" in done.stdout


def test_packaged_settings_need_no_plus(run: Run, tmp_path: Path) -> None:
    packaged: tuple[Any, ...] = ("--config-name=small", "-m", "+sweep=default", "hydra/callbacks=run_files")
    done = run(*packaged, "problem=error", "model.width=1,2", "sweep.fail_fast=true", "hydra.sweep.dir=out")
    assert done.returncode == 1
    assert len(list(tmp_path.glob("out/*/.hydra"))) == 1
    command = printed_command(done.stderr, "Run the rest and the failed jobs with: ")
    assert "-m" not in command
    done = run(*command)
    assert "2 failed" in done.stdout
