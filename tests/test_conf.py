"""Every file under conf/ composes, and its objects can be built."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torchmetrics import Metric

from mnist_cnn.app.resumed import read_settings
from mnist_cnn.app.settings import TrainSettings
from mnist_cnn.data import ImageData, Source
from mnist_cnn.export.network import load_trained
from mnist_cnn.inference.predictor import Predictor
from mnist_cnn.schema import check
from mnist_cnn.training.building import build
from mnist_cnn.training.classifier import Classifier
from tests.conftest import REPOSITORY
from tests.runs import compose_train, settings_of

CONF = REPOSITORY / "conf"
GROUPS = sorted(
    path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "loss_optim")
)
OPTIMIZERS = [path.stem for path in sorted((CONF / "optim").glob("*.yaml"))]


def options(group: str) -> list[str]:
    return [f"{group}={path.stem}" for path in sorted((CONF / group).glob("*.yaml"))]


# These set others, so they are chosen alone. Of the other groups, each option is in one or more of TOGETHER.
ALONE = [[option] for group in ("debug", "experiment") for option in options(group)]
COMBINED = [options(group) for group in GROUPS if group not in ("debug", "experiment")]
TOGETHER = [[one[number % len(one)] for one in COMBINED] for number in range(max(map(len, COMBINED)))]
NESTED = [
    ["+loss.weight=[1,1,1,1,1,1,1,1,1,5]"],
    ["+loss.weight={_target_: torch.tensor, data: [1.0,1,1,1,1,1,1,1,1,5]}"],
    ["model=resnet18", "+model.norm_layer={_target_: torch.nn.BatchNorm2d, _partial_: true, momentum: 0.3}"],
    ["+metrics.f1={_target_: torchmetrics.F1Score, task: multiclass, num_classes: 10}"],
    ["data.classes=[0,1,2,3,4,5,6,7,8,9]"],
    ["data.classes=null"],
]


@pytest.mark.parametrize("choices", [*ALONE, *TOGETHER, *NESTED], ids=" ".join)
def test_any_choice_can_be_built_and_its_checkpoint_is_read_by_every_command(
    choices: list[str], tmp_path: Path
) -> None:
    for name in ("a", "b"):  # classes of data=folder
        (tmp_path / name).mkdir()
    config = compose_train(*choices, f"data.dir={tmp_path}", "optim.lr=0.125")
    settings = settings_of(config)
    check(settings, TrainSettings)
    # as train.py does
    data = instantiate(settings["data"], seed=0)
    settings["data"] |= {"classes": data.classes, "num_classes": data.num_classes}
    network, loss = (build(settings[name], nn.Module, (), name) for name in ("model", "loss"))
    metrics = {name: build(one, Metric, (), name) for name, one in settings["metrics"].items()}
    classifier = Classifier(network, loss, data.num_classes, metrics=metrics, config=settings).eval()
    assert instantiate(config.optim)(network.parameters()).param_groups[0]["lr"] == 0.125
    state = {"state_dict": classifier.state_dict(), "config": settings, "epoch": 0}
    torch.save(state, tmp_path / "best.ckpt")
    OmegaConf.save(settings, tmp_path / "resolved.yaml")

    size = getattr(network, "image_size", data.image_size)
    images = torch.randn(2, data.in_channels, size, size)
    targets = torch.tensor([0, 1])
    loaded = Classifier.load_from_checkpoint(tmp_path / "best.ckpt")  # evaluate.py
    with torch.inference_mode():
        assert torch.equal(loaded(images), classifier(images))
        assert torch.equal(loaded.loss(loaded(images), targets), loss(classifier(images), targets))
    assert list(loaded.test_metrics.scores) == list(classifier.test_metrics.scores)
    source = build(settings["data"]["source"], Source)  # type: ignore[type-abstract]
    assert build(settings["data"], ImageData, source=source, extra=None).classes == data.classes
    assert Predictor.load(tmp_path / "best.ckpt").classes == data.classes  # predict.py
    assert load_trained(tmp_path / "best.ckpt")[1].classes == data.classes  # export.py
    assert read_settings(tmp_path / "resolved.yaml", ())["model"] == settings["model"]  # resume=RUN


def test_hparams_follow_the_choices() -> None:
    config = compose_train("model=cnnnet", "optim=adam", "loss=mse", "optim.lr=0.5", "data.batch_size=7")
    hparams = config.hparams
    assert (hparams.model, hparams.optim, hparams.loss) == ("cnnnet", "adam", "mse")
    assert (hparams.lr, hparams.batch_size) == (0.5, 7)


def test_defaults_are_those_of_the_tutorial_except_for_the_validation_split() -> None:
    default, tutorial = compose_train(), compose_train("experiment=tutorial")
    assert (default.data.val_size, tutorial.data.val_size) == (5000, 0)
    default.data.val_size = 0
    assert {key: default[key] for key in GROUPS if key in default} == {
        key: tutorial[key] for key in GROUPS if key in tutorial
    }


def test_value_for_two_choices_can_be_overridden() -> None:
    assert compose_train("loss=mse").optim.lr != compose_train("loss=ce").optim.lr
    assert compose_train("loss=mse", "optim.lr=0.7").optim.lr == 0.7


def test_handmade_loss_has_the_same_optimizer_as_the_library_loss() -> None:
    rates = {path.stem: OmegaConf.load(path) for path in (CONF / "loss_optim").glob("*.yaml")}
    assert rates
    for optim in OPTIMIZERS:
        for loss in ("ce", "mse"):
            assert rates.get(f"{loss}_{optim}") == rates.get(f"{loss}_handmade_{optim}")
