"""Settings from the folder of a run, which is not trusted, and what a resumed run may change."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mnist_cnn.app.resumed import changes_of, read_settings
from mnist_cnn.errors import UserError
from tests.conftest import Command
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


def read(folder: Path, settings: Settings, *trusted: str) -> Settings:
    file = folder / "resolved.yaml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    return read_settings(file, trusted)


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
        ("callbacks.evil", "mnist_cnn.data.download.with_torchvision"),
        ("callbacks.evil", "torch.nn.modules.module.torch.load"),
        ("augment.transforms", "torch.nn.functional.relu"),
        ("optim", "torch.optim.Adam.__init__"),
        ("metrics.one", ["torch.load"]),
    ],
)
def test_untrusted_class_is_not_built(key: str, target: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names .*trust=\[PACKAGE\]"):
        read(tmp_path, changed(key, {"_target_": target, "_partial_": True}))


def test_class_in_a_list_is_not_built(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names 'torch\.load'"):
        read(tmp_path, changed("augment", {"transforms": [[{"_target_": "torch.load"}]]}))


def test_untrusted_scheduler_is_not_imported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names 'antigravity'"):
        read(tmp_path, changed("scheduler.scheduler", "antigravity"))


def test_environment_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="interpolation"):
        read(tmp_path, changed("hparams", {"key": "${oc.env:HOME}"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objective: 1\nx: '" + "${f:" * 1_000 + "}" * 1_000 + "'", "interpolation"),
        ("a: [", "cannot be read"),
        ("a: &a [*a]", "cannot be read"),
        ("3", "not the settings of a run"),
        ("[1]", "not the settings of a run"),
        ("", "not the settings of a run"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_file_that_is_no_plain_settings_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_settings(tmp_path / "resolved.yaml", [])
    assert "\n" not in str(caught.value)


def test_package_named_by_the_user_is_trusted_and_the_folder_names_none(tmp_path: Path) -> None:
    own = changed("model", {"_target_": "my_package.nets.Net"}) | {"trust": ["my_package", "other"]}
    with pytest.raises(UserError, match="my_package"):
        read(tmp_path, own)
    with pytest.raises(UserError, match="my_package"):
        read(tmp_path, own, "my_pack")
    assert read(tmp_path, own, "my_package")["model"] == {"_target_": "my_package.nets.Net"}


def test_settings_that_a_resumed_run_would_change_are_shown_with_both_values() -> None:
    saved = {
        "optim": {"lr": 0.01},
        "seed": 42,
        "model": {"x": 1},
        "hparams": {"model": "simple"},
        "trainer": {"max_epochs": 3, "devices": 2},
    }
    composed = copy.deepcopy(saved)
    composed |= {"optim": {"lr": 0.5}, "seed": 3, "model": {"x": 2}, "new": 1}
    composed["trainer"] = {"max_epochs": 9, "devices": 1}
    typed = ["optim.lr=0.5", "seed=3", "model=cnnnet", "+new=1", "~loss", "trainer.devices=1"]
    with pytest.raises(UserError) as caught:
        changes_of(saved | {"loss": {}}, composed, [*typed, "trainer.max_epochs=9"])
    message = str(caught.value)
    assert "optim.lr cannot be changed from 0.01 to 0.5; seed cannot be changed from 42 to 3; " in message
    assert "model cannot be changed from simple to cnnnet; new cannot be changed to 1; " in message
    assert "loss cannot be changed to nothing; trainer.devices cannot be changed from 2 to 1. " in message
    changes = changes_of(saved, composed, ["trainer.max_epochs=9", "hydra.job.chdir=true"])
    assert changes == {"trainer.max_epochs": 9, "hparams.max_epochs": 9}


def test_setting_that_is_typed_again_is_no_change() -> None:
    settings = {"optim": {"lr": 0.01}, "hparams": {"optim": "sgd"}}
    assert changes_of(settings, settings, ["optim.lr=0.01", "optim=sgd", "experiment=sprint"]) == {}


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
