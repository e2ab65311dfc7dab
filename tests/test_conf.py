"""Every file under conf/ composes, and its objects can be built."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from mnist_cnn.commands import register_resolvers, to_dict
from mnist_cnn.settings import TrainSettings, check
from tests.conftest import REPOSITORY

CONF = REPOSITORY / "conf"
GROUPS = sorted(
    path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "loss_optim")
)
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
OPTIMIZERS = [path.stem for path in sorted((CONF / "optim").glob("*.yaml"))]


def composed(*overrides: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
    return config


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes_into_valid_settings(option: str) -> None:
    config = composed(option)
    settings = to_dict(DictConfig({key: config[key] for key in config if key != "hydra"}, flags={}))
    if option != "data=folder":  # which needs data.dir
        check(settings, TrainSettings)


def test_hparams_follow_the_choices() -> None:
    config = composed("model=cnnnet", "optim=adam", "loss=mse", "optim.lr=0.5", "data.batch_size=7")
    hparams = config.hparams
    assert (hparams.model, hparams.optim, hparams.loss) == ("cnnnet", "adam", "mse")
    assert (hparams.lr, hparams.batch_size) == (0.5, 7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_is_built_with_the_learning_rate_of_the_command_line(name: str) -> None:
    optimizer = instantiate(composed(f"optim={name}", "optim.lr=0.125").optim)
    assert optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == 0.125


def test_defaults_are_those_of_the_tutorial_except_for_the_validation_split() -> None:
    default, tutorial = composed(), composed("experiment=tutorial")
    assert (default.data.val_size, tutorial.data.val_size) == (5000, 0)
    default.data.val_size = 0
    assert {key: default[key] for key in GROUPS if key in default} == {
        key: tutorial[key] for key in GROUPS if key in tutorial
    }


@pytest.mark.parametrize("path", sorted((CONF / "loss_optim").glob("*.yaml")), ids=lambda path: path.stem)
def test_value_for_two_choices_can_be_overridden(path: Path) -> None:
    loss, optim = path.stem.rsplit("_", 1)
    both = composed(f"loss={loss}", f"optim={optim}")
    assert both.optim.lr != composed("loss=ce", f"optim={optim}").optim.lr
    assert composed(f"loss={loss}", f"optim={optim}", "optim.lr=0.7").optim.lr == 0.7


@pytest.mark.parametrize("optim", OPTIMIZERS)
@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_handmade_loss_has_the_same_optimizer_as_the_library_loss(loss: str, optim: str) -> None:
    assert composed(f"loss={loss}", f"optim={optim}").optim == (
        composed(f"loss={loss}_handmade", f"optim={optim}").optim
    )
