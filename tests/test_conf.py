"""Every file under conf/ composes, and its objects can be built."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from mnist_cnn.app.settings import TrainSettings
from mnist_cnn.schema import check
from tests.conftest import REPOSITORY
from tests.runs import compose_train, settings_of

CONF = REPOSITORY / "conf"
GROUPS = sorted(
    path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "loss_optim")
)
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
OPTIMIZERS = [path.stem for path in sorted((CONF / "optim").glob("*.yaml"))]


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes_into_valid_settings(option: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    directory = [f"data.dir={tmp_path}"] if option == "data=folder" else []
    check(settings_of(compose_train(option, *directory)), TrainSettings)


def test_hparams_follow_the_choices() -> None:
    config = compose_train("model=cnnnet", "optim=adam", "loss=mse", "optim.lr=0.5", "data.batch_size=7")
    hparams = config.hparams
    assert (hparams.model, hparams.optim, hparams.loss) == ("cnnnet", "adam", "mse")
    assert (hparams.lr, hparams.batch_size) == (0.5, 7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_is_built_with_the_learning_rate_of_the_command_line(name: str) -> None:
    optimizer = instantiate(compose_train(f"optim={name}", "optim.lr=0.125").optim)
    assert optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == 0.125


def test_defaults_are_those_of_the_tutorial_except_for_the_validation_split() -> None:
    default, tutorial = compose_train(), compose_train("experiment=tutorial")
    assert (default.data.val_size, tutorial.data.val_size) == (5000, 0)
    default.data.val_size = 0
    assert {key: default[key] for key in GROUPS if key in default} == {
        key: tutorial[key] for key in GROUPS if key in tutorial
    }


@pytest.mark.parametrize("path", sorted((CONF / "loss_optim").glob("*.yaml")), ids=lambda path: path.stem)
def test_value_for_two_choices_can_be_overridden(path: Path) -> None:
    loss, optim = path.stem.rsplit("_", 1)
    both = compose_train(f"loss={loss}", f"optim={optim}")
    assert both.optim.lr != compose_train("loss=ce", f"optim={optim}").optim.lr
    assert compose_train(f"loss={loss}", f"optim={optim}", "optim.lr=0.7").optim.lr == 0.7


@pytest.mark.parametrize("optim", OPTIMIZERS)
@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_handmade_loss_has_the_same_optimizer_as_the_library_loss(loss: str, optim: str) -> None:
    assert compose_train(f"loss={loss}", f"optim={optim}").optim == (
        compose_train(f"loss={loss}_handmade", f"optim={optim}").optim
    )
