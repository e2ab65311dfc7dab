"""Loss, accuracy and further metrics of an epoch."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torchmetrics.classification import MulticlassF1Score
from torchmetrics.functional.classification import multiclass_f1_score

from mnist_cnn.errors import UserError
from mnist_cnn.training.metrics import STEPS_PER_UPDATE, EpochMetrics, NonFiniteLoss


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3 * STEPS_PER_UPDATE), st.integers(0, 99))
def test_metrics_are_over_images_whatever_the_batch_sizes(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    metrics = EpochMetrics(4, {"f1": MulticlassF1Score(4)})
    all_logits, all_targets = [], []
    for step, size in enumerate(sizes):
        logits = torch.randn(size, 4, generator=generator)
        targets = torch.randint(4, (size,), generator=generator)
        metrics.add(step, F.cross_entropy(logits, targets), logits, targets)
        all_logits.append(logits)
        all_targets.append(targets)
    logits, targets = torch.cat(all_logits), torch.cat(all_targets)
    values = metrics.compute()
    assert float(values["loss"]) == pytest.approx(float(F.cross_entropy(logits, targets)), rel=1e-5)
    assert float(values["acc"]) == pytest.approx(float((logits.argmax(1) == targets).float().mean()))
    assert float(values["f1"]) == pytest.approx(float(multiclass_f1_score(logits, targets, 4)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_loss_is_not_rounded_to_the_precision_of_the_network(dtype: torch.dtype) -> None:
    metrics = EpochMetrics(num_classes=2).to(dtype)  # as Lightning does with trainer.precision=bf16-true
    for loss in (0.123456, 0.2):
        metrics.add(0, torch.tensor(loss), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert float(metrics.compute()["loss"]) == pytest.approx(0.161728, rel=1e-6)


def test_epochs_are_independent() -> None:
    metrics = EpochMetrics(num_classes=2)
    for label in (0, 1):
        metrics.add(0, torch.tensor(float(label)), torch.tensor([[1.0, 0.0]]), torch.tensor([label]))
        values = metrics.compute()
        assert (float(values["loss"]), float(values["acc"])) == (label, 1 - label)


def test_values_so_far_are_those_of_an_unfinished_epoch() -> None:
    metrics = EpochMetrics(num_classes=2)
    assert math.isnan(metrics.so_far()[0])
    for step in range(STEPS_PER_UPDATE):
        label = torch.tensor([int(step == 0)])
        metrics.add(step, torch.tensor(0.5), torch.tensor([[1.0, 0.0]]), label)
    assert metrics.so_far() == pytest.approx((0.5, 1 - 1 / STEPS_PER_UPDATE))
    assert float(metrics.compute()["loss"]) == 0.5


def test_metric_with_a_value_per_class_is_refused() -> None:
    metrics = EpochMetrics(3, {"f1": MulticlassF1Score(3, average="none")})
    metrics.add(0, torch.tensor(1.0), torch.eye(3), torch.arange(3))
    with pytest.raises(UserError, match=r"metrics\.f1 gives 3 numbers"):
        metrics.compute()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("first", [1, STEPS_PER_UPDATE - 1, STEPS_PER_UPDATE + 3])
def test_non_finite_loss_is_reported_with_its_step(value: float, first: int) -> None:
    metrics = EpochMetrics(num_classes=2)
    logits, targets = torch.zeros(1, 2), torch.zeros(1, dtype=torch.long)

    def epoch() -> None:
        for step in range(2 * STEPS_PER_UPDATE):
            metrics.add(step, torch.tensor(value if step >= first else 1.0), logits, targets)

    with pytest.raises(NonFiniteLoss, match=rf"is {value} at step {first}: .*optim\.lr"):
        epoch()
