"""What an app and its sweep tell each other: the job, its trial, how it ended."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf

from hydra_sweeps import SweepError, callbacks, current_trial, in_sweep
from hydra_sweeps.callbacks import RunFiles
from hydra_sweeps.contract import CurrentJob
from hydra_sweeps.files import read
from hydra_sweeps.outcome import read_outcome


def in_folder(monkeypatch: pytest.MonkeyPatch, folder: Path, mode: str | None = None) -> Any:
    config = OmegaConf.create({"hydra": {"mode": mode, "runtime": {"output_dir": str(folder)}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    return config


def set_job(monkeypatch: pytest.MonkeyPatch, job: CurrentJob) -> None:
    for name, value in job.environment().items():
        monkeypatch.setenv(name, value)


def test_errors_for_users_are_shown_without_traceback_by_hydra() -> None:
    assert issubclass(SweepError, CompactHydraException)


def test_job_has_trial_only_for_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_folder(monkeypatch, tmp_path)
    assert current_trial() is None
    set_job(monkeypatch, CurrentJob(str(tmp_path), "s", 3, "val/loss"))
    trial = current_trial()
    assert trial is not None and trial.metric == "val/loss"
    assert current_trial() is trial
    assert in_sweep()
    set_job(monkeypatch, CurrentJob("another", "s", 3, "val/loss"))
    assert current_trial() is None
    assert not in_sweep()
    set_job(monkeypatch, CurrentJob(str(tmp_path)))
    assert current_trial() is None
    assert in_sweep()


def test_job_is_found_by_any_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    in_folder(monkeypatch, tmp_path / "sweep" / "0")
    set_job(monkeypatch, CurrentJob(f"{tmp_path}/runs/../sweep/0", "s", 3, "val/loss"))
    assert current_trial() is not None


# --- the callback that writes the files of a run -----------------------------------------------------


def run_job(
    config: Any,
    returned: object,
    status: JobStatus = JobStatus.COMPLETED,
    app: Callable[[Any], None] = lambda config: None,
) -> Path:
    """Call the callback as Hydra does around a job."""
    files = RunFiles()
    files.on_job_start(config, task_function=app)
    app(config)
    result = JobReturn(status=status)
    result.return_value = returned
    files.on_job_end(config, result)
    return Path(config.hydra.runtime.output_dir)


def config_in(folder: Path, **settings: Any) -> Any:
    hydra = {"runtime": {"output_dir": str(folder)}, "overrides": {"task": ["lr=0.1"]}}
    return OmegaConf.create({"hydra": hydra, "lr": 0.1, **settings})


@pytest.mark.parametrize(
    ("objective", "returned", "expected"),
    [
        (None, 0.5, {"result": 0.5}),
        (None, 3, {"result": 3}),
        (None, None, {}),
        (None, {"loss": 0.5, "acc": np.float32(0.75), "missing": None}, {"loss": 0.5, "acc": 0.75}),
        ("val/loss", 0.5, {"val/loss": 0.5}),
    ],
)
def test_returned_value_is_the_result(
    objective: str | None, returned: object, expected: dict[str, float], tmp_path: Path
) -> None:
    settings = {"objective": {"metric": objective, "mode": "min"}} if objective else {}
    folder = run_job(config_in(tmp_path, **settings, again="${lr}"), returned)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.pop("seconds") >= 0
    assert metrics == expected
    resolved = OmegaConf.load(folder / ".hydra" / "resolved.yaml")
    assert (resolved.lr, resolved.again, "hydra" in resolved) == (0.1, 0.1, False)


def test_error_is_written_with_its_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("wanted")
    except ValueError as error:
        folder = run_job(config_in(tmp_path), error, JobStatus.FAILED)
    failure = json.loads((folder / "failed.json").read_text())
    assert failure["error"] == "ValueError: wanted"
    assert "test_contract.py" in failure["traceback"]
    assert read_outcome(folder).has_traceback
    assert capsys.readouterr().err == ""
    assert read_outcome(run_job(config_in(tmp_path), 0.5)).status == "finished"  # an old failed.json goes


def test_files_of_the_app_are_kept(tmp_path: Path) -> None:
    def write_it(config: Any) -> None:
        (tmp_path / "metrics.json").write_text('{"val/acc": 1}')

    (tmp_path / "metrics.json").write_text("")  # of an earlier start
    run_job(config_in(tmp_path), 0.5, app=write_it)
    assert read_outcome(tmp_path).metrics == {"val/acc": 1}
    run_job(config_in(tmp_path), ValueError("later"), JobStatus.FAILED, app=write_it)
    assert read_outcome(tmp_path).status == "failed"


def test_settings_that_are_no_plain_values_are_written_as_text(tmp_path: Path) -> None:
    run_job(config_in(tmp_path, data=Path("a/b"), unknown="${oc.env:NO_SUCH_VARIABLE}", x="${lr}"), 0.5)
    written = read(tmp_path / ".hydra" / "resolved.yaml")
    assert written == {"lr": 0.1, "data": "a/b", "unknown": "${oc.env:NO_SUCH_VARIABLE}", "x": "${lr}"}
    assert read(tmp_path / ".hydra" / "overrides.yaml") == ["lr=0.1"]


def test_settings_of_a_job_that_goes_on_are_kept(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "resolved.yaml").write_text("lr: 7\n")
    run_job(config_in(tmp_path, resume=str(tmp_path)), 0.5)
    assert OmegaConf.load(tmp_path / ".hydra" / "resolved.yaml").lr == 7
    run_job(config_in(tmp_path, resume=None), 0.5)
    assert OmegaConf.load(tmp_path / ".hydra" / "resolved.yaml").lr == 0.1


def test_job_that_was_told_to_stop_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = SimpleNamespace(metric="val/loss", value=0.7, pruned=True)
    monkeypatch.setattr(callbacks, "current_trial", lambda: told)
    outcome = read_outcome(run_job(config_in(tmp_path), None))
    assert (outcome.status, outcome.metrics["val/loss"]) == ("pruned", 0.7)
