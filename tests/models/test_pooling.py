"""Max pooling against the library's."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mnist_cnn.models.pooling import max_pool2d

CHANNELS = st.sampled_from([1, 2, 6, 15, 16, 31, 32, 33, 64])


def images(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Return images of few different values, so that many windows have equal ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, shape, generator=generator).to(dtype)


def values_and_gradient(pool: object, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = pool(x, 2)  # type: ignore[operator]
    (gradient,) = torch.autograd.grad(y, x, torch.arange(1.0, y.numel() + 1).view_as(y).to(x.dtype))
    return y.detach(), gradient


@pytest.fixture(scope="module")
def nan_in_empty_memory() -> Iterator[None]:
    """Fill new tensors with NaN, so that what is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("nan_in_empty_memory")
@given(
    count=st.integers(0, 3),
    channels=CHANNELS,
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    channels_last=st.booleans(),
    seed=st.integers(0, 100),
)
def test_values_and_gradients_are_those_of_the_library(
    count: int, channels: int, height: int, width: int, dtype: torch.dtype, channels_last: bool, seed: int
) -> None:
    x = images((count, channels, height, width), dtype, seed)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    assert_equal(values_and_gradient(max_pool2d, x), values_and_gradient(F.max_pool2d, x))


def assert_equal(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert torch.equal(one, other)


@pytest.mark.parametrize("channels", [6, 32])
def test_own_computation_is_used_in_training_alone(channels: int) -> None:
    x = images((2, channels, 4, 4), torch.bfloat16, 0).requires_grad_()
    assert "MaxPool2x2" in type(max_pool2d(x, 2).grad_fn).__name__
    with torch.no_grad():
        assert max_pool2d(x, 2).grad_fn is None
    assert "MaxPool2DWithIndices" in type(max_pool2d(x, 4).grad_fn).__name__


@pytest.mark.filterwarnings("ignore:`torch.jit.trace")  # TensorBoard's graphs come from it
def test_graphs_hold_the_operation_of_the_library() -> None:
    class Pool(torch.nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return max_pool2d(super().forward(x), 2)

    network, x = Pool(1, 6, 1), torch.rand(1, 1, 4, 4)
    assert "aten::max_pool2d" in str(torch.jit.trace(network, x).inlined_graph)
    operations = [node.target for node in torch.export.export(network, (x,)).graph.nodes]
    assert torch.ops.aten.max_pool2d.default in operations


def test_nan_stays_nan() -> None:
    x = torch.full((1, 32, 2, 2), 1.0).requires_grad_()
    y = max_pool2d(x * torch.tensor([1.0, float("nan")]), 2)
    assert y.isnan().all()
