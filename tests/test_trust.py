"""Untrusted run folders: what their settings name is not built, and not resolved."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from mnist_cnn import command_line, commands
from mnist_cnn.errors import UserError
from tests.conftest import REPOSITORY, Command
from tests.runs import SMOKE, only_run

Settings = dict[str, Any]

SETTINGS: Settings = {
    "objective": {"metric": "val/acc", "mode": "max"},
    "model": {"_target_": "mnist_cnn.models.CnnNet"},
    "optim": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
    "scheduler": {
        "_target_": "mnist_cnn.training.schedule.Schedule",
        "scheduler": "torch.optim.lr_scheduler.StepLR",
        "step_size": 3,
    },
    "callbacks": {"stop": {"_target_": "lightning.pytorch.callbacks.EarlyStopping"}},
}


def folder_of(path: Path, text: str) -> Path:
    (path / ".hydra").mkdir(parents=True)
    (path / ".hydra" / "resolved.yaml").write_text(text)
    return path


def resume(path: Path, settings: Settings, *arguments: str) -> list[str]:
    # JSON is YAML
    return command_line.for_hydra([f"resume={folder_of(path / 'run', json.dumps(settings))}", *arguments])


def changed(key: str, value: Any) -> Settings:
    settings = OmegaConf.create(copy.deepcopy(SETTINGS))
    OmegaConf.update(settings, key, value)
    container = OmegaConf.to_container(settings, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("model", "torch.load"),
        ("loss", "numpy.load"),
        ("callbacks.evil", "setuptools._distutils.spawn.spawn"),
        ("callbacks.evil", "mnist_cnn.data.idx.subprocess.run"),
        ("callbacks.evil", "mnist_cnn.data.published.read_file"),
        ("callbacks.evil", "torch.nn.modules.module.torch.load"),
        ("augment.transforms", "torch.nn.functional.relu"),
        ("optim", "torch.optim.Adam.__init__"),
        ("metrics.one", ["torch.load"]),
    ],
)
def test_untrusted_class_is_not_built(key: str, target: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names .*trust=\[PACKAGE\]"):
        resume(tmp_path, changed(key, {"_target_": target, "_partial_": True}))


def test_class_in_a_list_is_not_built(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names 'torch\.load'"):
        resume(tmp_path, changed("augment", {"transforms": [[{"_target_": "torch.load"}]]}))


def test_untrusted_scheduler_is_not_imported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names 'antigravity'"):
        resume(tmp_path, changed("scheduler.scheduler", "antigravity"))


def test_environment_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="interpolation"):
        resume(tmp_path, changed("hparams", {"key": "${oc.env:HOME}"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [1, 2]\nb: &b [*a, *a]\nc: [*b, *b]\n", "alias"),
        ("# @package hydra\nobjective: {}\n", "starts with a comment"),
        ("defaults: [evil]\nobjective: {}\n", "not the settings of a run"),
        ("objective: {}\nx: " + "y" * 1_000_000, "larger than"),
        ("[" * 20_000, "more than 50 levels"),
        ("x: '" + "${f:" * 1_000 + "}" * 1_000 + "'", "cannot be read"),
        ("? " * 20_000, "more than 50 levels"),
        ("- " * 20_000, "more than 50 levels"),
        ("a: [", "cannot be read"),
        ("3", "cannot be read"),
        ("[1]", "not the settings of a run"),
        ("", "earlier version"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be read"),
        ("hydra: {job_logging: {version: 1, handlers: {x: {(): os.getcwd}}}}", "section `hydra`"),
        ("hydra: {callbacks: {x: {_target_: torch.load}}}", "section `hydra`"),
    ],
)
def test_file_that_is_no_plain_settings_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        command_line.for_hydra([f"resume={folder_of(tmp_path / 'run', text)}"])
    assert "\n" not in str(caught.value)


def test_package_named_by_the_user_is_trusted_and_the_folder_names_none(tmp_path: Path) -> None:
    own = changed("model", {"_target_": "my_package.nets.Net"}) | {"trust": ["my_package", "other"]}
    with pytest.raises(UserError, match="my_package"):
        resume(tmp_path / "a", own)
    with pytest.raises(UserError, match="my_package"):
        resume(tmp_path / "b", own, "trust=[my_pack]")
    assert resume(tmp_path / "c", own, "trust=[my_package]")[-1] == "++trust=['my_package']"
    with pytest.raises(UserError, match="not a module name"):
        resume(tmp_path / "d", own, "trust=[my-package]")


def experiments() -> list[str]:
    groups = ("data", "augment", "model", "loss", "optim", "scheduler", "metrics", "callbacks", "logger")
    return [
        f"{group}={file.stem}" for group in groups for file in sorted((REPOSITORY / "conf" / group).iterdir())
    ]


@pytest.mark.parametrize("choice", experiments())
def test_every_choice_of_this_repository_can_be_resumed(choice: str, tmp_path: Path) -> None:
    commands.register_resolvers()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config = compose("train", overrides=[choice], return_hydra_config=True)
    if "mlflow" in config.logger:
        # otherwise from the folder of a running job
        config.logger.mlflow.update({"tracking_uri": "sqlite:///runs.db", "artifact_location": None})
    del config.hydra, config.hparams
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)
    resume(tmp_path, {str(key): value for key, value in settings.items()})


def test_run_with_a_class_of_a_trusted_package_is_resumed(
    train: Command, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_package.py").write_text("from lightning import Callback\nclass Mine(Callback): pass\n")
    mine = "+callbacks.mine._target_=my_package.Mine"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    train(*SMOKE, mine)
    run = only_run(tmp_path)
    refused = command("train.py", f"resume={run}")
    assert refused.returncode == 1
    assert "names 'my_package.Mine'" in refused.stderr
    train(f"resume={run}", "trust=[my_package]", "trainer.max_epochs=2")
    assert os.path.getsize(run / "metrics.json") > 0
