"""Types and bounds of the settings."""

from copy import deepcopy
from typing import Any

import pytest

from mnist_cnn.app.settings import TrainSettings, direction, has_validation
from mnist_cnn.errors import UserError
from mnist_cnn.schema import check

STOP = "lightning.pytorch.callbacks.EarlyStopping"
F1 = {"_target_": "torchmetrics.F1Score", "task": "multiclass", "num_classes": 10}

VALID: dict[str, Any] = {
    "seed": 0,
    "objective": {"metric": "val/acc", "mode": "max"},
    "sweep": {"resume": None, "fail_fast": False},
    "data": {"dir": "data", "batch_size": 64, "val_size": 10, "num_classes": 10, "std": 0.5},
    "augment": {},
    "model": {"num_classes": 10},
    "loss": {},
    "optim": {"lr": 0.01, "momentum": 0.9, "betas": [0.9, 0.999]},
    "scheduler": {},
    "metrics": {"f1": F1},
    "callbacks": {"early_stopping": {"_target_": STOP, "monitor": "val/loss"}},
    "logger": {},
    "trainer": {
        "max_epochs": 1,
        "accelerator": "auto",
        "devices": 1,
        "precision": "auto",
        "limit_val_batches": None,
    },
}


def with_value(key: str, value: object) -> dict[str, Any]:
    settings = deepcopy(VALID)
    section, _, name = key.rpartition(".")
    (settings[section] if section else settings)[name] = value
    return settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**32 - 1),
        ("optim.lr", 1),
        ("optim.setting_of_another_optimizer", "any"),
        ("data.std", [0.5, 0.4, 0.3]),
        ("trainer.devices", "auto"),
        ("trainer.devices", [0, 1]),
        ("trainer.limit_train_batches", 10),
        ("trainer.limit_train_batches", 0.1),
        ("trainer.limit_test_batches", 0),
        ("objective.metric", "val/f1"),
        ("objective", {"metric": "train/loss", "mode": "min"}),
        ("trainer.val_check_interval", 0.5),
        ("trainer.max_time", "00:00:01:00"),
        ("trainer", VALID["trainer"] | {"max_steps": 9}),
        ("scheduler", {"_target_": "a.Schedule", "T_max": "auto"}),
    ],
)
def test_valid_value_passes(key: str, value: object) -> None:
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
        ("optim.betas", [0.9, 1.5]),
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
        ("trainer.limit_train_batches", 0),
        ("trainer.max_steps", 0),
        ("trainer.max_time", 60),
        ("trainer.val_check_interval", 0),
        ("trainer.fast_dev_run", 0.5),
        ("trainer.benchmark", "yes"),
        ("trainer.profiler", ["simple"]),
        ("trainer.gradient_clip_algorithm", 3),
        ("objective.mode", "maximize"),
        ("objective.metric", "test/acc"),
        ("objective.metric", "val/recall"),
        ("callbacks.early_stopping", 5),
    ],
)
def test_invalid_value_is_named_with_its_key(key: str, value: object) -> None:
    with pytest.raises(UserError) as caught:
        check(with_value(key, value), TrainSettings)
    assert str(caught.value).startswith(f"{key}={value}: it should be ")
    assert "\n" not in str(caught.value)


def test_all_invalid_values_are_reported_together() -> None:
    settings = with_value("optim.lr", -1)
    settings["data"]["batch_size"] = 0
    with pytest.raises(UserError) as caught:
        check(settings, TrainSettings)
    assert len(str(caught.value).splitlines()) == 2


def test_missing_setting_is_named() -> None:
    settings = {key: value for key, value in VALID.items() if key != "callbacks"}
    with pytest.raises(UserError, match=r"^callbacks is missing: set callbacks=VALUE\.$"):
        check(settings, TrainSettings)


@pytest.mark.parametrize(
    ("section", "value", "named"),
    [
        ("objective", {"metric": "val/loss", "mode": "max"}, "objective.mode=min"),
        ("objective", {"metric": "val/acc", "mode": "min"}, "objective.mode=max"),
        ("objective", {"metric": "val/f1", "mode": "min"}, "objective.mode=max"),
        (
            "scheduler",
            {"_target_": "a.B", "monitor": "val/acc"},
            "scheduler.mode=max",
        ),  # the scheduler's default is min
        ("scheduler", {"_target_": "a.B", "monitor": "train/loss", "mode": "max"}, "scheduler.mode=min"),
        (
            "callbacks",
            {"stop": {"_target_": STOP, "monitor": "val/loss", "mode": "max"}},
            "callbacks.stop.mode=min",
        ),
        ("callbacks", {"stop": {"_target_": STOP, "monitor": "val/acc"}}, "callbacks.stop.mode=max"),
    ],
)
def test_mode_that_prefers_the_worst_epoch_is_refused(
    section: str, value: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError, match=rf"would prefer the worst epoch: set {named}\.$"):
        check(with_value(section, value), TrainSettings)


@pytest.mark.parametrize(
    ("section", "value", "answer"),
    [
        ("augment", {"degrees": 5}, "augment has settings but no _target_: choose an option, augment=NAME"),
        ("metrics", {"f1": {"average": "macro"}}, r"choose it, too, as in metrics=\[f1\]"),
        ("optim", {"_target_": "a.B", "lr": 0.1}, "add the line _partial_: true"),
        ("loss", {"_target_": "a.B", "reduction": "sum"}, "loss.reduction=sum: the loss should be the mean"),
        ("data", VALID["data"] | {"image_size": 64}, "image_size=64 has no effect.*set model.image_size=64"),
    ],
)
def test_setting_without_an_effect_is_answered_with_what_to_write(
    section: str, value: dict[str, Any], answer: str
) -> None:
    settings = with_value(section, value)
    settings["model"]["image_size"] = 32
    with pytest.raises(UserError, match=answer):
        check(settings, TrainSettings)


@pytest.mark.parametrize(
    ("metric", "best"),
    [("val/loss", "min"), ("train/acc", "max"), ("val/f1", "max"), ("val/error", "min"), ("val/mean", None)],
)
def test_best_value_follows_from_the_metric(metric: str, best: str | None) -> None:
    metrics = {
        "f1": F1,
        "error": {"_target_": "torchmetrics.classification.MulticlassCalibrationError", "num_classes": 10},
        "mean": {"_target_": "torchmetrics.MeanMetric"},
    }
    assert direction(metric, metrics) == best


def test_metric_without_a_direction_needs_a_mode() -> None:
    settings = with_value("objective", {"metric": "val/mean", "mode": None})
    settings["metrics"] = {"mean": {"_target_": "torchmetrics.MeanMetric"}}
    with pytest.raises(UserError, match=r"Add objective\.mode=max or objective\.mode=min\.$"):
        check(settings, TrainSettings)
    settings["objective"]["mode"] = "min"
    check(settings, TrainSettings)


@pytest.mark.parametrize(
    ("target", "instead"),
    [
        ("lightning.pytorch.callbacks.StochasticWeightAveraging", "callbacks=ema"),
        ("lightning.pytorch.callbacks.BatchSizeFinder", "-m data.batch_size=64,128,256"),
        ("lightning.pytorch.callbacks.lr_finder.LearningRateFinder", r"-m optim\.lr="),
    ],
)
def test_callback_without_an_effect_is_refused_with_what_has_one(target: str, instead: str) -> None:
    with pytest.raises(UserError, match=rf"^callbacks\.one: \w+ cannot be used in train\.py: .*{instead}"):
        check(with_value("callbacks", {"one": {"_target_": target}}), TrainSettings)
    check(with_value("callbacks", {"one": {"_target_": target.replace("lightning", "mine")}}), TrainSettings)


def test_callback_of_another_package_needs_no_mode() -> None:
    own = {"own": {"_target_": "my_package.GoodEnough", "monitor": "val/acc"}}
    check(with_value("callbacks", own), TrainSettings)


@pytest.mark.parametrize("setting", ["data.val_size", "trainer.limit_val_batches"])
@pytest.mark.parametrize(
    ("section", "value", "owner"),
    [
        ("scheduler", {"_target_": "a.B", "monitor": "val/loss"}, "scheduler"),
        (
            "callbacks",
            {"stop": {"_target_": STOP, "monitor": "val/loss"}},
            "callbacks.stop",
        ),
    ],
)
def test_monitoring_validation_without_validation_images_is_refused(
    section: str, value: dict[str, Any], owner: str, setting: str
) -> None:
    settings = with_value(section, value)
    check(settings, TrainSettings)
    part, _, name = setting.partition(".")
    settings[part][name] = 0
    with pytest.raises(UserError, match=rf"{setting}=0 .* {owner}\.monitor=val/loss .*=train/loss"):
        check(settings, TrainSettings)


def test_monitoring_a_metric_that_is_not_measured_is_refused() -> None:
    with pytest.raises(UserError, match=r"scheduler\.monitor=val/recall: .* one of loss, acc, f1"):
        check(with_value("scheduler", {"monitor": "val/recall"}), TrainSettings)


@pytest.mark.parametrize("name", ["limit_train_batches", "limit_val_batches"])
def test_two_limits_of_the_same_batches_are_refused(name: str) -> None:
    settings = with_value("trainer.overfit_batches", 3)
    check(settings, TrainSettings)
    settings["trainer"][name] = 2
    with pytest.raises(UserError, match=rf"leave out trainer\.{name}"):
        check(settings, TrainSettings)


@pytest.mark.parametrize("name", ["min_epochs", "min_steps"])
def test_least_and_largest_length_of_a_run_contradict(name: str) -> None:
    settings = with_value("trainer.max_steps", 3)
    settings["trainer"][name] = 5
    with pytest.raises(UserError, match=f"max_steps=3 and trainer.{name} contradict each other"):
        check(settings, TrainSettings)


@pytest.mark.parametrize("name", ["acc", "loss"])
def test_metric_with_the_name_of_a_basic_one_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"metrics\.{name}: {name} is measured in any case"):
        check(with_value(f"metrics.{name}", F1), TrainSettings)


@pytest.mark.parametrize("setting", [("val_check_interval", 0.5), ("check_val_every_n_epoch", 2)])
def test_early_stopping_by_training_looks_at_complete_epochs(setting: tuple[str, object]) -> None:
    settings = with_value("callbacks.early_stopping", {"_target_": STOP, "monitor": "train/loss"})
    check(settings, TrainSettings)
    settings["trainer"] |= [setting]
    with pytest.raises(UserError, match=r"add \+callbacks\.early_stopping\.check_on_train_epoch_end=true"):
        check(settings, TrainSettings)
    settings["callbacks"]["early_stopping"]["check_on_train_epoch_end"] = True
    check(settings, TrainSettings)


def test_callback_that_was_not_chosen_is_answered_with_what_to_write() -> None:
    with pytest.raises(UserError, match=r"callbacks\.pictures has .*callbacks=\[early_stopping,pictures\]"):
        check(with_value("callbacks.pictures", {"every_n_epochs": 2}), TrainSettings)


@pytest.mark.parametrize(("key", "value"), [("data.val_size", 0), ("trainer.limit_val_batches", 0)])
def test_run_has_no_validation_without_images_or_batches(key: str, value: int) -> None:
    assert has_validation(VALID)
    assert not has_validation(with_value(key, value))
