"""What an app imports: quoting, resuming, and the trial of a job."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from hydra_sweeps.interface import JOB_VARIABLE, SweepError, current_trial, quote, resume_arguments


@pytest.mark.parametrize("value", ["a", "lr=0.1,x", "it's", r"a\b", r"a\'b", "a b", "[1,2]", "null", "ä"])
def test_quoted_values_are_read_unchanged(value: str) -> None:
    override = OverridesParser.create().parse_override(f"x={quote(value)}")
    assert not override.is_sweep_override()
    assert getattr(override.value(), "text", override.value()) == value


def test_other_command_lines_are_unchanged() -> None:
    for arguments in (["seed=1"], ["-m", "seed=0,1"], ["sweep.resume=null"], []):
        assert resume_arguments(arguments) == arguments


@pytest.mark.parametrize("name", ["sweep", "lr=0.1,momentum=0.9", "it's"])
@pytest.mark.parametrize("written", [str, quote])
def test_resumed_sweep_brings_its_arguments(
    name: str, written: Callable[[Path], str], tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    overrides = {"hydra": ["hydra.mode=MULTIRUN"], "task": ["seed=0,1"]}
    OmegaConf.save(OmegaConf.create({"hydra": {"overrides": overrides}}), folder / "multirun.yaml")
    found = resume_arguments(["-m", f"sweep.resume={written(folder)}", "sleep=1"])
    assert found == [
        "-m",
        "seed=0,1",
        "sleep=1",
        f"sweep.resume={quote(folder)}",
        f"hydra.sweep.dir={quote(folder)}",
    ]


def test_folder_without_sweep_cannot_be_resumed() -> None:
    with pytest.raises(SweepError, match=r"sweep\.resume=nowhere is not the folder of a sweep"):
        resume_arguments(["sweep.resume=nowhere"])


def test_job_has_trial_only_for_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"hydra": {"runtime": {"output_dir": str(tmp_path)}}}
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create(config))
    assert current_trial() is None
    job = {"folder": str(tmp_path), "sweep": "s", "trial": 3, "metric": "val/loss"}
    monkeypatch.setenv(JOB_VARIABLE, json.dumps(job))
    trial = current_trial()
    assert trial is not None and trial.metric == "val/loss"
    monkeypatch.setenv(JOB_VARIABLE, json.dumps(job | {"folder": "another"}))
    assert current_trial() is None
    monkeypatch.setenv(JOB_VARIABLE, json.dumps({"folder": str(tmp_path)}))
    assert current_trial() is None
