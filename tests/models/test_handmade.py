"""Handmade layers: gradcheck, comparison with torch.nn.functional, the tutorial's examples, autocast."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from mnist_cnn.models import CnnNet, SimpleCNN, handmade


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_equal(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *tensors: Tensor) -> None:
    """Compare the outputs, and the gradients of all float tensors for a random δ, to 1e-10."""
    results = []
    for function in (ours, theirs):
        inputs = [t.clone().requires_grad_(t.is_floating_point()) for t in tensors]
        output = function(*inputs)
        differentiable = [t for t in inputs if t.requires_grad]
        gradients = torch.autograd.grad(output, differentiable, random(*output.shape, seed=9))
        assert all(g.shape == t.shape for g, t in zip(gradients, differentiable, strict=True))
        results.append((output, *gradients))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


# --- gradcheck -----------------------------------------------------------------------------------

LAYERS = {
    "conv2d": (lambda a, w, b: handmade.conv2d(a, w, b), [(2, 3, 5, 4), (4, 3, 3, 2), (4,)]),
    "conv2d, stride 2 and 3, padding 1 and 2": (
        lambda a, w, b: handmade.conv2d(a, w, b, (2, 3), (1, 2)),
        [(2, 2, 6, 7), (3, 2, 3, 2), (3,)],
    ),
    "conv2d, many kernels": (lambda a, w: handmade.conv2d(a, w), [(1, 2, 3, 4), (12, 2, 2, 2)]),
    "linear": (lambda a, w, b: handmade.linear(a, w, b), [(3, 5), (4, 5), (4,)]),
    "linear, no bias": (lambda a, w: handmade.linear(a, w), [(3, 5), (4, 5)]),
    "relu": (handmade.relu, [(3, 4, 2)]),
    "max_pool2d": (lambda a: handmade.max_pool2d(a, 2), [(2, 3, 4, 5)]),
    "max_pool2d, overlapping": (lambda a: handmade.max_pool2d(a, 3, 2), [(2, 2, 6, 7)]),
    "avg_pool2d": (lambda a: handmade.avg_pool2d(a, 2), [(2, 3, 4, 5)]),
    "avg_pool2d, overlapping": (lambda a: handmade.avg_pool2d(a, (3, 2), (2, 1)), [(2, 2, 6, 7)]),
    "cross_entropy": (lambda z: handmade.cross_entropy(z, torch.tensor([2, 0, 3])), [(3, 4)]),
    "cross_entropy, smoothed": (lambda z: handmade.cross_entropy(z, torch.tensor([2, 0]), 0.1), [(2, 4)]),
    "mse_loss": (handmade.mse_loss, [(3, 4), (3, 4)]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_match_finite_differences(name):
    function, shapes = LAYERS[name]
    inputs = [random(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)  # the backward passes are differentiable as well


# --- Comparison with torch.nn.functional ---------------------------------------------------------

pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
paddings = st.tuples(st.integers(0, 3), st.integers(0, 3))
image_shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
formats = st.sampled_from([torch.contiguous_format, torch.channels_last])


@given(image_shapes, st.integers(1, 12), pairs, pairs, paddings, st.booleans(), formats)
def test_conv2d_matches_torch(shape, kernels, window, stride, padding, with_bias, memory_format):
    assume(all(n + 2 * pad >= p for n, pad, p in zip(shape[2:], padding, window, strict=True)))
    image = random(*shape).contiguous(memory_format=memory_format)
    weight = random(kernels, shape[1], *window, seed=1)
    bias = [random(kernels, seed=2)] if with_bias else []
    assert_equal(
        lambda a, w, *b: handmade.conv2d(a, w, *b, stride=stride, padding=padding),
        lambda a, w, *b: F.conv2d(a, w, *b, stride=stride, padding=padding),
        image,
        weight,
        *bias,
    )


@given(image_shapes, pairs, st.none() | pairs, formats, st.booleans())
def test_pooling_matches_torch(shape, window, stride, memory_format, with_ties):
    assume(all(n >= p for n, p in zip(shape[2:], window, strict=True)))
    image = random(*shape).contiguous(memory_format=memory_format)
    if with_ties:
        image = image.round()  # small integers: windows with several equal maxima
    for ours, theirs in ((handmade.max_pool2d, F.max_pool2d), (handmade.avg_pool2d, F.avg_pool2d)):
        assert_equal(
            lambda a, ours=ours: ours(a, window, stride),
            lambda a, theirs=theirs: theirs(a, window, stride),
            image,
        )


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_linear_and_relu_match_torch(batch, features, outputs, with_bias):
    tensors = [random(batch, features), random(outputs, features, seed=1), random(outputs, seed=2)]
    tensors = tensors if with_bias else tensors[:2]
    assert_equal(handmade.linear, F.linear, *tensors)
    assert_equal(handmade.relu, F.relu, random(batch, features, outputs).round())  # includes zeros


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.0, 0.1, 1.0]), st.sampled_from([1.0, 1e3]))
def test_losses_match_torch(batch, classes, smoothing, scale):
    outputs = random(batch, classes) * scale
    targets = torch.arange(batch) % classes
    assert_equal(
        lambda z, t: handmade.CrossEntropyLoss(label_smoothing=smoothing)(z, t),
        lambda z, t: F.cross_entropy(z, t, label_smoothing=smoothing),
        outputs,
        targets,
    )
    assert_equal(
        handmade.OneHotMSELoss(),
        lambda z, t: F.mse_loss(z, F.one_hot(t, classes).double()),
        outputs,
        targets,
    )


def test_modules_match_torch():
    """Each module has the state dict and the output of torch's module of the same name."""
    image = random(2, 3, 7, 7)
    for name, arguments in {"Conv2d": (3, 5, (3, 2), 2, 1), "Linear": (7, 4)}.items():
        ours, theirs = getattr(handmade, name)(*arguments), getattr(nn, name)(*arguments)
        ours.load_state_dict(theirs.state_dict())
        x = image[0, 0] if name == "Linear" else image
        torch.testing.assert_close(ours.double()(x), theirs.double()(x), rtol=1e-10, atol=1e-10)
    # code that searches a network for layers finds these too
    assert isinstance(handmade.Conv2d(1, 1, 3), nn.Conv2d)
    assert isinstance(handmade.Linear(1, 1), nn.Linear)
    assert isinstance(handmade.CrossEntropyLoss(), nn.CrossEntropyLoss)


def test_window_that_does_not_fit_raises():
    with pytest.raises(ValueError, match="does not fit"):
        handmade.max_pool2d(random(1, 1, 2, 2), 3)


def test_cross_entropy_of_large_logits_does_not_overflow():
    logits = torch.tensor([[1000.0, 0.0], [-1000.0, 0.0]], requires_grad=True)
    loss = handmade.cross_entropy(logits, torch.tensor([1, 1]))
    loss.backward()
    assert loss.item() == 500
    assert logits.grad.tolist() == [[0.5, -0.5], [0, 0]]


# --- The tutorial's worked examples --------------------------------------------------------------

DELTA = torch.tensor([[[[2.0, 8.0], [4.0, 6.0]]]], dtype=torch.float64)  # section 2.2.1


def test_pooling_examples():
    """The maxima are at the top left, bottom right, top right and bottom left of their windows."""
    by_max = [[2, 0, 0, 0], [0, 0, 0, 8], [0, 4, 0, 0], [0, 0, 6, 0]]
    by_average = [[0.5, 0.5, 2, 2], [0.5, 0.5, 2, 2], [1, 1, 1.5, 1.5], [1, 1, 1.5, 1.5]]
    argmax = torch.tensor([[[[0, 3], [1, 2]]]])
    assert handmade.upsample_max(DELTA, argmax, (4, 4), (2, 2), (2, 2))[0, 0].tolist() == by_max
    assert handmade.upsample_average(DELTA, (4, 4), (2, 2), (2, 2))[0, 0].tolist() == by_average
    for pool, expected in ((handmade.max_pool2d, by_max), (handmade.avg_pool2d, by_average)):
        image = torch.tensor(by_max, dtype=torch.float64)[None, None].requires_grad_()
        pool(image, 2).backward(DELTA)
        assert image.grad[0, 0].tolist() == expected


def test_convolution_delta_example():
    """Section 2.2.2: a 3 x 3 image, a 2 x 2 kernel, and the nine gradients written out."""
    a, w, d = random(3, 3, seed=1), random(2, 2, seed=2), random(2, 2, seed=3)
    (w11, w12), (w21, w22) = w.tolist()
    (d11, d12), (d21, d22) = d.tolist()
    image = a[None, None].requires_grad_()
    z = handmade.conv2d(image, w[None, None])
    assert z[0, 0, 0, 1].item() == pytest.approx(
        (a[0, 1] * w11 + a[0, 2] * w12 + a[1, 1] * w21 + a[1, 2] * w22).item()
    )
    z.backward(d[None, None])
    expected = [
        [d11 * w11, d11 * w12 + d12 * w11, d12 * w12],
        [d11 * w21 + d21 * w11, d11 * w22 + d12 * w21 + d21 * w12 + d22 * w11, d12 * w22 + d22 * w12],
        [d21 * w21, d21 * w22 + d22 * w21, d22 * w22],
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(image.grad[0, 0], expected)

    # the tutorial's figure: δ padded with zeros, correlated with the rotated kernel
    padded = torch.zeros(4, 4, dtype=torch.float64)
    rotated = torch.tensor([[w22, w21], [w12, w11]], dtype=torch.float64)
    padded[1:3, 1:3] = d
    assert torch.equal(handmade.rot180(w[None, None])[0, 0], rotated)
    torch.testing.assert_close(handmade.correlate(padded[None, None], rotated[None, None])[0, 0], expected)


def test_kernel_gradient_example():
    """Section 2.2.3: a 4 x 4 image, a 3 x 3 kernel, a 2 x 2 δ, and nine sums of four products."""
    a, d = random(4, 4, seed=1), random(2, 2, seed=2)
    (d11, d12), (d21, d22) = d
    expected = torch.stack(
        [
            a[p, q] * d11 + a[p, q + 1] * d12 + a[p + 1, q] * d21 + a[p + 1, q + 1] * d22
            for p in range(3)
            for q in range(3)
        ]
    ).view(3, 3)
    weight, bias = random(1, 1, 3, 3).requires_grad_(), random(1).requires_grad_()
    handmade.conv2d(a[None, None], weight, bias).backward(d[None, None])
    torch.testing.assert_close(weight.grad[0, 0], expected)
    torch.testing.assert_close(bias.grad[0], d.sum())
    torch.testing.assert_close(handmade.correlate(a[None, None], d[None, None])[0, 0], expected)


# --- In the networks -----------------------------------------------------------------------------


@pytest.mark.parametrize("network", [CnnNet, SimpleCNN])
def test_autocast_matches_torch(network):
    """bf16 autocast gives bf16 logits and float32 gradients, with rounding errors no larger than torch's."""
    torch.manual_seed(0)
    exact, library, ours = network(), network(), network(layers="handmade")
    images = torch.randn(32, 1, exact.image_size, exact.image_size)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.arange(32) % 10
    F.cross_entropy(exact(images), targets).backward()
    errors = []
    for net, criterion in ((library, nn.CrossEntropyLoss()), (ours, handmade.CrossEntropyLoss())):
        net.load_state_dict(exact.state_dict())
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(images)
            loss = criterion(logits, targets)
        assert (logits.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
        loss.backward()
        assert all(parameter.grad.dtype == torch.float32 for parameter in net.parameters())
        pairs = zip(net.parameters(), exact.parameters(), strict=True)
        errors.append([((p.grad - q.grad).norm() / q.grad.norm()).item() for p, q in pairs])
    for library_error, our_error in zip(*errors, strict=True):
        assert our_error < 1.5 * library_error
