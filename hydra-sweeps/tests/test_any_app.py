"""An app with habits of its own: settings of all kinds in a dataclass, and a `resume` that is not a run's."""

import csv
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

APP = """
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore


@dataclass
class Config:
    x: float = 1.0
    data: Path = Path("data/train")
    resume: Any = None  # a checkpoint
    habit: str = ""


ConfigStore.instance().store("config", Config)


@hydra.main(version_base=None, config_path=None, config_name="config")
def main(config):
    print("x is", config.x, flush=True)
    if config.habit == "fails_once" and config.x > 1 and not Path("repaired").exists():
        raise ValueError("wanted")
    if config.habit == "catches":
        try:
            time.sleep(100)
        except KeyboardInterrupt:
            return 0.0
    if config.habit == "prints":
        sys.stdout.buffer.write("a".encode(sys.stdout.encoding) + b" line\\n")
        sys.stdout.reconfigure(errors="replace")
        sys.stdout.write("".join(f"\\r{i} %" for i in range(101)) + "\\n")
        sys.stdout.write("no end")
    if config.habit == "leaves":
        os.chdir("/")
    return config.x + float(os.environ.get("ADDED", 0))


if __name__ == "__main__":
    main()
"""
GRID = ("-m", "hydra/sweeper=grid", "hydra/callbacks=run_files", "hydra.sweep.dir=out")
POOL = ("hydra/launcher=pool", "hydra.launcher.n_jobs=2")
LAUNCHERS = pytest.mark.parametrize("launcher", [(), POOL], ids=["in_process", "pool"])

Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "app.py").write_text(APP)
    return "app.py"


def results(sweep: Path) -> dict[float, float]:
    """Return the result of each job by its x."""
    with (sweep / "sweep.csv").open() as file:
        return {float(row["x"]): float(row["result"]) for row in csv.DictReader(file)}


def printed(text: str, after: str) -> list[str]:
    """Return the arguments of a command that was printed."""
    return shlex.split(text.split(after)[1].splitlines()[0])[2:]


@LAUNCHERS
def test_a_job_that_runs_again_has_its_overrides(launcher: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    done = run(*GRID, *launcher, "x=1,2,3", "habit=fails_once", "+sweep.ignore=[data]")
    assert "1 ok, 2 failed" in done.stdout
    (tmp_path / "repaired").touch()
    done = run(*printed(done.stderr, "Run the failed jobs with: "))
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == {1.0: 1.0, 2.0: 2.0, 3.0: 3.0}
    assert printed(done.stdout, "best by result: job 0, rerun with: ")[:2] == ["x=1", "habit=fails_once"]


@LAUNCHERS
def test_what_an_interrupted_job_returns_is_no_result(
    launcher: tuple[str, ...], start: Start, tmp_path: Path
) -> None:
    process = start(*GRID, *launcher, "x=1,2", "habit=catches")
    assert process.stdout is not None
    while "x is" not in process.stdout.readline():
        pass
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "interrupted; resume with: " in output
    assert not list(tmp_path.glob("out/*/metrics.json"))


def test_a_folder_that_holds_another_run_is_refused(run: Run, tmp_path: Path) -> None:
    run("hydra/callbacks=run_files", "x=5", "hydra.run.dir=out/0")
    done = run(*GRID, "x=1,2")
    assert done.returncode == 1
    assert "out/0 holds a run with x=5, where job 0 would have x=1" in done.stderr
    assert (tmp_path / "out" / "0" / "metrics.json").is_file()


def test_what_is_swept_is_compared_though_it_is_ignored_otherwise(run: Run) -> None:
    run("hydra/callbacks=run_files", "x=5", "hydra.run.dir=out/0")
    done = run(*GRID, "x=1,2", "+sweep.ignore=[x]")
    assert "out/0 holds a run with x=5, where job 0 would have x=1" in done.stderr


def test_an_objective_with_another_meaning_is_a_setting_of_the_app(run: Run, tmp_path: Path) -> None:
    done = run(*GRID, "x=1,2", "+objective=binary:logistic")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == {1.0: 1.0, 2.0: 2.0}


def test_a_study_that_has_all_its_jobs_is_reported(run: Run) -> None:
    search = ("-m", "hydra/sweeper=optuna", "hydra/callbacks=run_files", "hydra.sweeper.n_trials=1")
    shared = ("hydra.sweeper.storage=sqlite:///s.db", "hydra.sweeper.study_name=s", "x=interval(0.0,1.0)")
    assert run(*search, *shared, "hydra.sweep.dir=a").returncode == 0
    done = run(*search, *shared, "hydra.sweep.dir=b")
    assert done.returncode == 1
    assert "The study s has its 1 jobs. Raise hydra.sweeper.n_trials" in done.stderr


def test_commands_have_the_settings_of_hydra_that_the_jobs_had(run: Run, tmp_path: Path) -> None:
    done = run(*GRID, "x=3,2", "+hydra.job.env_set.ADDED=5")
    assert "+hydra.job.env_set.ADDED=5" in printed(done.stdout, "rerun with: ")
    run(*printed(done.stdout, "rerun with: "), "hydra.run.dir=again")
    assert '"result": 7.0' in (tmp_path / "again" / "metrics.json").read_text()


def test_an_app_may_leave_its_folder_and_name_that_of_hydra(run: Run, tmp_path: Path) -> None:
    done = run(*GRID, "x=1,2", "habit=leaves", "hydra.output_subdir=null")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == {1.0: 1.0, 2.0: 2.0}
    (tmp_path / "out" / "1" / "metrics.json").unlink()
    done = run(*GRID[:3], "hydra.output_subdir=null", "+sweep.resume=out")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == {1.0: 1.0, 2.0: 2.0}


def test_jobs_in_the_pool_print_as_alone(run: Run) -> None:
    done = run(*GRID, *POOL, "x=1,2", "habit=prints")
    assert done.returncode == 0, done.stderr
    assert "#0  a line\n" in done.stdout
    assert "#0  100 %\n" in done.stdout  # the last state of a progress bar
    assert "#1  no end\n" in done.stdout


def test_an_app_may_be_a_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    shutil.move(tmp_path / "app.py", tmp_path / "folder" / "__main__.py")
    (tmp_path / "app.py").write_text("import runpy\nrunpy.run_path('folder', run_name='__main__')\n")
    done = run(*GRID, "x=1,2")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+objective={mode: max}"], "objective={'mode': 'max'}: write {metric: NAME, mode: max}, or min"),
        (["+objective={metric: result, mode: maximize}"], "write {metric: NAME, mode: max}, or min"),
        (["hydra.sweep.dir=app.py/out"], "hydra.sweep.dir=app.py/out cannot be created: Not a directory"),
        (["hydra/launcher=pool", "hydra.launcher.devices=0"], "hydra.launcher.devices=0: it must be"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(arguments: list[str], message: str, run: Run) -> None:
    done = run(*GRID, "x=1,2", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
