"""The arguments of a resumed sweep, and the settings that may differ."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hydra_sweeps import SweepError
from hydra_sweeps.definition import overrides_to_resume, refuse_changes


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


def plain(made: Any) -> Any:
    return OmegaConf.to_container(made, resolve=False)


def test_the_last_override_of_a_key_is_taken_in_its_place(tmp_path: Path) -> None:
    task = ["opt.a=5", "opt={a:10},{a:11}", "opt.a=7", "~gone", "+gone=1"]
    OmegaConf.save({"hydra": {"overrides": {"hydra": [], "task": task}}}, tmp_path / "multirun.yaml")
    assert overrides_to_resume(tmp_path, []) == task[1:]


def test_new_overrides_replace_former_ones(tmp_path: Path) -> None:
    OmegaConf.save(config(), tmp_path / "multirun.yaml")
    given = ["hydra.mode=MULTIRUN", "hydra/sweeper=grid", f"sweep.resume={tmp_path}", "data.dir=/b"]
    assert overrides_to_resume(tmp_path, given) == [
        "hydra/launcher=pool",
        "hydra.launcher.threads=2",
        "optim=sgd, adam",
        "data.dir=/b",
        "~callbacks.pictures",
    ]


def test_options_of_another_launcher_are_dropped(tmp_path: Path) -> None:
    OmegaConf.save(config(), tmp_path / "multirun.yaml")
    arguments = overrides_to_resume(tmp_path, ["hydra/launcher=ray", "hydra.launcher.num_cpus=2"])
    assert "hydra.launcher.threads=2" not in arguments
    assert {"hydra/launcher=ray", "hydra.launcher.num_cpus=2"} <= set(arguments)


def test_folder_without_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="is not the folder of a sweep"):
        overrides_to_resume(tmp_path, [])


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
    refuse_changes(plain(config()), config(**changes), Path("s"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim__lr": 0.1}, "optim.lr: 0.01 before, 0.1 now"),
        ({"hydra__sweep__subdir": "x"}, "hydra.sweep.subdir"),
        ({"hydra__overrides__task": ["optim=sgd"]}, "optim: sgd,adam before, sgd now"),
        ({"hydra__overrides__task": ["optim=s gd,adam"]}, "optim: sgd,adam before, s gd,adam now"),
        ({"hydra__overrides__task": ["optim='sgd, adam','b'"]}, "'sgd, adam','b' now"),
        ({"hydra__overrides__task": ["optim=sgd,adam", "data.dir=/b,/c"]}, "data.dir"),
    ],
)
def test_other_settings_must_not_change(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SweepError, match=message):
        refuse_changes(plain(config()), config(**changes), Path("s"))


@pytest.mark.parametrize(
    "override",
    [
        "model._target_=os.system",
        "+callbacks.x={_target_: os.system}",
        "++a.b=[{_target_: x}]",
        "scheduler.scheduler=antigravity.geohash",
        "hparams.key=${oc.env:HOME}",
        "model='${x}'",
        "experiment=../../other/evil",
        "experiment=/tmp/evil",
        "init_from=/tmp/evil.ckpt",
        "+x=~/y",
        "init_from=null,/tmp/x",
        "init_from=choice(/tmp/x)",
        "init_from=choice(null, '/tmp/x')",
        "init_from=[/tmp/x]",
        "+x={a:/tmp/x}",
        "hydra.searchpath=[file:///tmp]",
        "hydra.job_logging={}",
        "hydra.job.chdir=true",
        "hydra=x",
        "hydra.sweeper.conditional=os.system",
        "hydra.sweeper.storage=sqlite:///x",
        "hydra.callbacks.x=1",
        "hydra.sweeper.params={a:b}",
        "hydra.sweeper={a:b}",
        "hydra/launcher=../x",
        "hydra.launcher.preload=[antigravity]",
        "hydra.launcher.parameters.setup=reboot",
        "trust=[os]",
        "hydra.launcher.init.address=auto",
        "resume=x",
        "--config-dir=/tmp",
        "-m",
        "",
        "=",
        "a b=c",
        "a=\x1b",
    ],
)
def test_what_may_name_code_is_not_taken_from_the_folder_of_a_sweep(override: str, tmp_path: Path) -> None:
    overrides = {"hydra": [], "task": ["optim=sgd,adam", override]}
    OmegaConf.save({"hydra": {"overrides": overrides}}, tmp_path / "multirun.yaml")
    with pytest.raises(SweepError, match="add them to the command: ") as caught:
        overrides_to_resume(tmp_path, [])
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
    if "=" in override[1:] and not override.startswith("-"):
        assert override in overrides_to_resume(tmp_path, [override])


@pytest.mark.parametrize(
    "override",
    [
        "optim=sgd,adam",
        "optim.lr=tag(log,interval(1e-4,1e-1))",
        "seed=range(1,4)",
        "~callbacks.pictures",
        "+trainer.x=null",
        "++model.a=[1,2.5]",
        "experiment=sprint",
        "data.dir=/data",
        "loss@a.b=mse",
        "hydra/sweeper=optuna",
        "hydra/sweeper/pruner=none",
        "hydra.sweeper.n_trials=3",
        "hydra/launcher=pool",
        "hydra.sweeper.objectives={val/loss:minimize}",
        "hydra.launcher.n_jobs=4",
        "optim.name='a b'",
        "hydra.launcher.parameters.slurm_partition=gpu",
        "hydra.launcher.parameters.timeout_min=10",
    ],
)
def test_choices_and_values_are_taken_from_the_folder_of_a_sweep(override: str, tmp_path: Path) -> None:
    OmegaConf.save({"hydra": {"overrides": {"hydra": [], "task": [override]}}}, tmp_path / "multirun.yaml")
    assert override in overrides_to_resume(tmp_path, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hydra: &a {b: *a}", "it has YAML aliases"),
        ("hydra: {overrides: {hydra: [1], task: []}}", "it has no overrides"),
        ("hydra: 3", "it has no overrides"),
        ("[", "multirun.yaml cannot be read"),
    ],
)
def test_definition_that_is_none_is_refused_in_a_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text(text)
    with pytest.raises(SweepError, match=message) as caught:
        overrides_to_resume(tmp_path, [])
    assert "\n" not in str(caught.value)
