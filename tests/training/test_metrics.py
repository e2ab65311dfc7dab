"""Loss and accuracy of an epoch, gathered a list append a step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mnist_cnn.training.metrics import STEPS_AT_ONCE, EpochMetrics, NonFiniteLoss


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3 * STEPS_AT_ONCE), st.integers(0, 99))
def test_means_are_over_images_whatever_the_sizes_of_the_batches(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    metrics = EpochMetrics(num_classes=4)
    all_logits, all_targets = [], []
    for step, size in enumerate(sizes):
        logits = torch.randn(size, 4, generator=generator)
        targets = torch.randint(4, (size,), generator=generator)
        metrics.add(step, F.cross_entropy(logits, targets), logits, targets)
        all_logits.append(logits)
        all_targets.append(targets)
    logits, targets = torch.cat(all_logits), torch.cat(all_targets)
    means = metrics.compute()
    assert float(means["loss"]) == pytest.approx(float(F.cross_entropy(logits, targets)), rel=1e-5)
    assert float(means["acc"]) == pytest.approx(float((logits.argmax(1) == targets).float().mean()))


def test_an_epoch_knows_nothing_of_the_one_before() -> None:
    metrics = EpochMetrics(num_classes=2)
    for label in (0, 1):
        metrics.add(0, torch.tensor(float(label)), torch.tensor([[1.0, 0.0]]), torch.tensor([label]))
        means = metrics.compute()
        assert (float(means["loss"]), float(means["acc"])) == (label, 1 - label)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("at", [1, STEPS_AT_ONCE - 1, STEPS_AT_ONCE + 3])
def test_a_loss_that_is_not_finite_is_named_with_its_step(value: float, at: int) -> None:
    metrics = EpochMetrics(num_classes=2)
    logits, targets = torch.zeros(1, 2), torch.zeros(1, dtype=torch.long)

    def epoch() -> None:
        for step in range(2 * STEPS_AT_ONCE):
            metrics.add(step, torch.tensor(value if step >= at else 1.0), logits, targets)

    with pytest.raises(NonFiniteLoss, match=rf"became {value} at step {at}: .*optim\.lr"):
        epoch()
