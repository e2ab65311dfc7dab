"""The mean squared error against one-hot targets."""

import pytest
import torch

from mnist_cnn.training.losses import OneHotMSELoss


def test_mse_is_the_mean_over_batch_and_classes() -> None:
    outputs = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, 3.0]])
    loss = OneHotMSELoss()(outputs, torch.tensor([0, 1]))
    # (0.5 - 1)² + 0 + 0 + 0 + (0 - 1)² + 3², over 2 x 3 values
    assert float(loss) == pytest.approx((0.25 + 1 + 9) / 6)


def test_mse_of_one_hot_outputs_is_zero() -> None:
    assert float(OneHotMSELoss()(torch.eye(4), torch.arange(4))) == 0


def test_mse_has_the_dtype_of_the_outputs() -> None:
    assert OneHotMSELoss()(torch.eye(4, dtype=torch.float64), torch.arange(4)).dtype == torch.float64
