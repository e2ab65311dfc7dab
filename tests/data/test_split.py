"""Stratified splits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mnist_cnn.data.split import stratified_split
from mnist_cnn.errors import UserError


def split(targets: Tensor, size: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    return stratified_split(targets, size, seed, setting="data.val_size")


@given(
    targets=st.lists(st.integers(0, 4), min_size=2, max_size=200).map(torch.tensor),
    share=st.floats(0, 0.99),
    seed=st.integers(0, 3),
)
def test_split_is_a_partition_with_each_class_in_proportion(targets: Tensor, share: float, seed: int) -> None:
    size = int(share * len(targets))
    train, val = split(targets, size, seed)
    assert len(val) == size
    assert torch.cat([train, val]).sort().values.tolist() == list(range(len(targets)))
    for label in targets.unique():
        exact = float((targets == label).sum()) * size / len(targets)
        assert abs(int((targets[val] == label).sum()) - exact) < 1


def test_split_is_a_function_of_its_seed() -> None:
    targets = torch.arange(1000) % 10
    first, again, other = (split(targets, 100, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(("size", "expected"), [(0.25, 10), (0.0, 0), (0, 0), (1, 1), (0.001, 1)])
def test_split_takes_a_number_or_a_fraction(size: float, expected: int) -> None:
    train, val = split(torch.arange(40) % 4, size)
    assert (len(train), len(val)) == (40 - expected, expected)


@pytest.mark.parametrize("size", [10, 11, -1, 1.0])
def test_split_refuses_to_leave_no_training_images(size: float) -> None:
    with pytest.raises(UserError, match=rf"data\.val_size={size} leaves no training images: there are 10"):
        split(torch.zeros(10, dtype=torch.long), size)
