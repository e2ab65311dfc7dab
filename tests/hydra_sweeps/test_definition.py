"""What a resumed sweep brings along, and in what it may differ."""

from pathlib import Path
from typing import Any

import pytest
from mnist_cnn.sweeps.definition import merged, refuse_changes
from omegaconf import OmegaConf

from mnist_cnn.errors import UserError


def config(**changes: Any) -> Any:
    overrides = {
        "hydra": ["hydra.mode=MULTIRUN", "hydra/launcher=pool", "hydra.launcher.threads=2"],
        "task": ["optim=sgd, adam", "data.dir=/a", "~callbacks.pictures"],
    }
    settings = {
        "optim": {"lr": 0.01},
        "data": {"dir": "/a"},
        "sweep": {"resume": None},
        "hydra": {"overrides": overrides, "sweeper": {"n_trials": 4}, "sweep": {"subdir": "${now:}"}},
    }
    made = OmegaConf.create(settings)
    for key, value in changes.items():
        OmegaConf.update(made, key.replace("__", "."), value)
    return made


def test_what_is_typed_takes_the_place_of_what_was(tmp_path: Path) -> None:
    OmegaConf.save(config(), tmp_path / "multirun.yaml")
    given = ["sweep.resume=x", "data.dir=/b", "--config-dir=y", "optim=sgd,adam"]
    assert merged(tmp_path, given) == [
        "--config-dir=y",
        "hydra/launcher=pool",
        "hydra.launcher.threads=2",
        "optim=sgd,adam",
        "data.dir=/b",
        "~callbacks.pictures",
        "sweep.resume=x",
        f"hydra.sweep.dir='{tmp_path}'",
    ]


def test_the_options_of_another_launcher_are_left_behind(tmp_path: Path) -> None:
    OmegaConf.save(config(), tmp_path / "multirun.yaml")
    arguments = merged(tmp_path, ["hydra/launcher=ray", "hydra.launcher.num_cpus=2"])
    assert "hydra.launcher.threads=2" not in arguments
    assert {"hydra/launcher=ray", "hydra.launcher.num_cpus=2"} <= set(arguments)


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the folder of a sweep"):
        merged(tmp_path, [])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data__dir": "/b"},
        {"hydra__sweeper__n_trials": 9},
        {"hydra__overrides__task": ["optim=sgd,adam", "data.dir=/b", "~callbacks.pictures"]},
    ],
)
def test_where_and_how_far_it_runs_may_change(changes: dict[str, Any]) -> None:
    refuse_changes(config(), config(**changes), Path("s"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optim__lr": 0.1}, "optim.lr: 0.01 before, 0.1 now"),
        ({"hydra__sweep__subdir": "x"}, "hydra.sweep.subdir"),
        ({"hydra__overrides__task": ["optim=sgd"]}, "optim: sgd,adam before, sgd now"),
        ({"hydra__overrides__task": ["optim=sgd,adam", "data.dir=/b,/c"]}, "data.dir"),
    ],
)
def test_what_it_compares_may_not(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        refuse_changes(config(), config(**changes), Path("s"))
