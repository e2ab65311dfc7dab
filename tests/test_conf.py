"""Every file under conf/ composes, alone and in its group, and makes what it says."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from mnist_cnn.commands import plain
from mnist_cnn.settings import TrainSettings, check
from tests.conftest import REPOSITORY

CONF = REPOSITORY / "conf"
CHOICES = ("data", "augment", "model", "loss", "optim", "scheduler", "trainer", "callbacks", "logger")
GROUPS = (*CHOICES, "experiment")
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


def composed(*overrides: str, name: str = "train") -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(name, overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
    return config


def test_no_group_is_left_out_of_the_tests() -> None:
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == {*GROUPS, "hydra", "loss_optim"}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_composes_into_good_settings(option: str) -> None:
    config = composed(option)
    settings = plain(DictConfig({key: config[key] for key in config if key != "hydra"}, flags={}))
    check(settings, TrainSettings)


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_a_file_is_yaml_that_says_what_it_is(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_what_the_hparams_tab_shows_follows_the_choices() -> None:
    config = composed("model=cnnnet", "optim=adam", "loss=mse", "optim.lr=0.5", "data.batch_size=7")
    assert dict(config.hparams) == {
        "model": "cnnnet",
        "optim": "adam",
        "loss": "mse",
        "scheduler": "none",
        "data": "mnist",
        "lr": 0.5,
        "batch_size": 7,
        "max_epochs": 25,
        "seed": 42,
    }


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("sgd", torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": False}),
        ("nesterov", torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
        ("adam", torch.optim.Adam, {"lr": 0.001, "weight_decay": 0.0}),
        ("adamw", torch.optim.AdamW, {"lr": 0.001, "weight_decay": 0.01}),
        ("rmsprop", torch.optim.RMSprop, {"lr": 0.001, "alpha": 0.99}),
    ],
)
def test_an_optimizer_is_what_its_name_says(name: str, kind: type, options: dict[str, Any]) -> None:
    optimizer = instantiate(composed(f"optim={name}").optim)([torch.nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is kind
    assert {key: optimizer.defaults[key] for key in options} == options


@pytest.mark.parametrize("name", ["onecycle", "cosine", "step", "plateau"])
def test_a_schedule_brings_the_learning_rate_down(name: str) -> None:
    config = composed(f"scheduler={name}", "trainer.max_epochs=20").scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    options = {k: v for k, v in config.items() if k not in ("interval", "monitor", "total_steps")}
    length = {"total_steps": 20} if config.get("total_steps") == "auto" else {}
    scheduler = instantiate(options)(optimizer, **length)
    for _ in range(19):
        optimizer.step()
        scheduler.step(1.0) if name == "plateau" else scheduler.step()
    assert optimizer.param_groups[0]["lr"] < 0.005


def test_the_defaults_are_the_tutorials_but_for_the_validation_split() -> None:
    default, tutorial = composed(), composed("experiment=tutorial")
    assert (default.data.val_size, tutorial.data.val_size) == (5000, 0)
    for config in (default, tutorial):
        config.data.val_size = 0
        assert config.model._target_ == "mnist_cnn.models.SimpleCNN"
        assert config.loss._target_ == "torch.nn.CrossEntropyLoss"
        assert (config.optim._target_, config.optim.lr, config.optim.momentum) == (
            "torch.optim.SGD",
            0.01,
            0.9,
        )
        assert (config.data.batch_size, config.data.mean, config.data.std) == (64, 0.5, 0.5)
        assert config.trainer.max_epochs == 25
    assert {key: default[key] for key in CHOICES} == {key: tutorial[key] for key in CHOICES}


def test_lenet_mse_is_the_tutorials_third_section() -> None:
    config = composed("experiment=lenet_mse")
    assert (config.hparams.model, config.hparams.loss, config.hparams.optim) == ("cnnnet", "mse", "sgd")


@pytest.mark.parametrize("path", sorted((CONF / "loss_optim").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_value_for_two_choices_together_gives_way_to_the_command_line(path: Path) -> None:
    loss, optim = path.stem.rsplit("_", 1)
    together = composed(f"loss={loss}", f"optim={optim}")
    assert together.optim.lr == yaml.safe_load(path.read_text())["lr"]
    assert together.optim.lr != composed("loss=ce", f"optim={optim}").optim.lr
    assert composed(f"loss={loss}", f"optim={optim}", "optim.lr=0.7").optim.lr == 0.7


@pytest.mark.parametrize("optim", ["sgd", "nesterov", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_a_handmade_loss_is_trained_like_the_librarys(loss: str, optim: str) -> None:
    assert composed(f"loss={loss}", f"optim={optim}").optim == (
        composed(f"loss={loss}_handmade", f"optim={optim}").optim
    )
