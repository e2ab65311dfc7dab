"""Types and bounds of the settings."""

from copy import deepcopy
from typing import Any

import pytest

from mnist_cnn.errors import UserError
from mnist_cnn.settings import TrainSettings, check

GOOD: dict[str, Any] = {
    "seed": 0,
    "sweep": {"resume": None, "fail_fast": False},
    "data": {"dir": "data", "batch_size": 64, "val_size": 0, "std": 0.5},
    "optim": {"lr": 0.01, "momentum": 0.9, "betas": [0.9, 0.999]},
    "scheduler": {},
    "callbacks": {"early_stopping": {"monitor": "train/loss"}},
    "trainer": {"max_epochs": 1, "accelerator": "auto", "devices": 1, "precision": "auto"},
}


def with_value(key: str, value: object) -> dict[str, Any]:
    settings = deepcopy(GOOD)
    section, _, name = key.rpartition(".")
    (settings[section] if section else settings)[name] = value
    return settings


def test_good_settings_pass() -> None:
    check(GOOD, TrainSettings)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.lr", 1),
        ("seed", 2**32 - 1),
        ("trainer.devices", "auto"),
        ("trainer.devices", [0, 1]),
        ("trainer.limit_train_batches", 10),
        ("trainer.limit_train_batches", 0.1),
        ("optim.something_of_another_optimizer", "fine"),
    ],
)
def test_what_a_setting_may_be_passes(key: str, value: object) -> None:
    check(with_value(key, value), TrainSettings)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.lr", "fast"),
        ("optim.lr", -1),
        ("optim.lr", 0),
        ("optim.lr", float("nan")),
        ("optim.lr", float("inf")),
        ("optim.lr", True),
        ("optim.momentum", 1.0),
        ("optim.weight_decay", -0.1),
        ("data.batch_size", 0),
        ("data.batch_size", 2.5),
        ("data.val_size", -1),
        ("data.std", 0),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", None),
        ("trainer.max_epochs", 0),
        ("trainer.max_epochs", "3"),
        ("trainer.devices", 1.5),
        ("trainer.limit_train_batches", 1.5),
        ("trainer.limit_train_batches", -3),
    ],
)
def test_a_wrong_value_is_named_with_its_key(key: str, value: object) -> None:
    with pytest.raises(UserError) as caught:
        check(with_value(key, value), TrainSettings)
    assert str(caught.value).startswith(f"{key}={value}: it should be ")
    assert "\n" not in str(caught.value)


def test_every_wrong_value_is_told_at_once() -> None:
    settings = with_value("optim.lr", -1)
    settings["data"]["batch_size"] = 0
    with pytest.raises(UserError) as caught:
        check(settings, TrainSettings)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("section", "value", "who"),
    [
        ("scheduler", {"monitor": "val/loss"}, "scheduler"),
        ("callbacks", {"stop": {"monitor": "val/loss"}}, "callbacks.stop"),
    ],
)
def test_watching_a_validation_that_there_is_not_is_refused(
    section: str, value: dict[str, Any], who: str
) -> None:
    with pytest.raises(UserError, match=rf"data\.val_size=0 .* {who}\.monitor=val/loss .* train/loss"):
        check(with_value(section, value), TrainSettings)
    check(with_value(section, value) | {"data": GOOD["data"] | {"val_size": 1}}, TrainSettings)


def test_a_value_in_a_list_is_named() -> None:
    with pytest.raises(UserError, match=r"optim\.betas=\[0\.9, 1\.5\]: it should be less than 1"):
        check(with_value("optim.betas", [0.9, 1.5]), TrainSettings)
