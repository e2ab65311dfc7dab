"""The arguments of a resumed sweep, and the settings that may differ."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hydra_sweeps.definition import arguments_to_resume, refuse_changes
from hydra_sweeps.interface import SweepError


def config(**changes: Any) -> Any:
    overrides = {
        "hydra": ["hydra.mode=MULTIRUN", "hydra/launcher=pool", "hydra.launcher.threads=2"],
        "task": ["optim=sgd, adam", "data.dir=/a", "~callbacks.pictures"],
    }
    settings = {
        "optim": {"lr": 0.01},
        "data": {"dir": "/a"},
        "sweep": {"resume": None, "ignore": ["data.dir"]},
        "objective": {"metric": "val/acc", "mode": "max"},
        "hydra": {"overrides": overrides, "sweeper": {"n_trials": 4}, "sweep": {"subdir": "${now:}"}},
    }
    made = OmegaConf.create(settings)
    for key, value in changes.items():
        OmegaConf.update(made, key.replace("__", "."), value)
    return made


def test_new_arguments_replace_former_ones(tmp_path: Path) -> None:
    OmegaConf.save(config(), tmp_path / "multirun.yaml")
    given = ["data.dir=/b", "--config-dir=y", "optim=sgd,adam"]
    assert arguments_to_resume(tmp_path, given) == [
        "--config-dir=y",
        "hydra/launcher=pool",
        "hydra.launcher.threads=2",
        "optim=sgd,adam",
        "data.dir=/b",
        "~callbacks.pictures",
        f"sweep.resume='{tmp_path}'",
        f"hydra.sweep.dir='{tmp_path}'",
    ]


def test_options_of_another_launcher_are_dropped(tmp_path: Path) -> None:
    OmegaConf.save(config(), tmp_path / "multirun.yaml")
    arguments = arguments_to_resume(tmp_path, ["hydra/launcher=ray", "hydra.launcher.num_cpus=2"])
    assert "hydra.launcher.threads=2" not in arguments
    assert {"hydra/launcher=ray", "hydra.launcher.num_cpus=2"} <= set(arguments)


def test_folder_without_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="is not the folder of a sweep"):
        arguments_to_resume(tmp_path, [])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data__dir": "/b"},
        {"hydra__sweeper__n_trials": 9},
        {"sweep__resume": "a,b=c"},
        {"objective__mode": "min"},
        {"hydra__overrides__task": ["optim=sgd,adam", "data.dir=/b", "~callbacks.pictures"]},
    ],
)
def test_ignored_settings_may_change(changes: dict[str, Any]) -> None:
    refuse_changes(config(), config(**changes), Path("s"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim__lr": 0.1}, "optim.lr: 0.01 before, 0.1 now"),
        ({"hydra__sweep__subdir": "x"}, "hydra.sweep.subdir"),
        ({"hydra__overrides__task": ["optim=sgd"]}, "optim: sgd,adam before, sgd now"),
        ({"hydra__overrides__task": ["optim=sgd,adam", "data.dir=/b,/c"]}, "data.dir"),
    ],
)
def test_other_settings_must_not_change(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SweepError, match=message):
        refuse_changes(config(), config(**changes), Path("s"))
