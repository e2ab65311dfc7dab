"""The page as a file: its graph, its size, what it refuses. tests/browser has it in a browser."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mnist_cnn.errors import UserError
from mnist_cnn.export import html
from mnist_cnn.export.network import load_trained
from tests.export.checkpoint import save


def page_network(ckpt: Path) -> html.PageNetwork:
    network, description = load_trained(ckpt)
    shape = (2, description.in_channels, description.image_size, description.image_size)
    images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    return html.page_network(network, description, "run", images)


def test_graph_names_the_layers_and_their_shapes(tmp_path: Path) -> None:
    graph = page_network(save(tmp_path, "simple")).graph
    layers = [(operation["kind"], operation["name"], operation["shape"]) for operation in graph["operations"]]
    assert layers == [
        ("conv2d", "conv1", [32, 28, 28]),
        ("max_pool2d", "", [32, 14, 14]),
        ("relu", "", [32, 14, 14]),
        ("conv2d", "conv2", [64, 14, 14]),
        ("max_pool2d", "", [64, 7, 7]),
        ("relu", "", [64, 7, 7]),
        ("identity", "", [3136]),
        ("linear", "fc1", [128]),
        ("relu", "", [128]),
        ("linear", "fc2", [10]),
    ]


def test_weights_have_16_bits_only_if_the_logits_stay_the_same(tmp_path: Path) -> None:
    small = page_network(save(tmp_path / "small", "simple"))
    assert small.bits == 16 and small.change <= 5e-4
    network = load_trained(save(tmp_path, "simple"))[0].network
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(10)
    large = page_network(save(tmp_path / "large", "simple", network=network))
    assert large.bits == 32 and large.change > 5e-4
    for saved, limit in ((small, 1_250_000), (large, 2_500_000)):
        assert len(html.render([saved])) < limit
        numbers = np.frombuffer(base64.b64decode(saved.to_json()["weights"]), f"<f{saved.bits // 8}")
        assert len(numbers) == 421_642


def test_residual_network_is_traced(tmp_path: Path) -> None:
    saved = page_network(save(tmp_path, "resnet18"))
    kinds = [operation["kind"] for operation in saved.graph["operations"]]
    assert kinds.count("conv2d") == kinds.count("batch_norm") == 20
    assert kinds.count("add") == 8
    assert saved.to_json()["std"] == [0.5, 0.25, 0.125]


def test_missing_operation_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"MobileNet.*hardswish.*format=onnx|mobilenet.*hardswish.*format=onnx"
    ):
        page_network(save(tmp_path, "mobilenet"))


class Function(nn.Module):
    """A network that computes a function of the images."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def change_through_another_shape(x: Tensor) -> Tensor:
    y = x + x
    flat = y.flatten(1)
    torch.relu_(y)
    return flat


@pytest.mark.parametrize(
    ("network", "part"),
    [
        (Function(change_through_another_shape), "the in-place operation relu_.default on a value"),
        (Function(lambda x: x + 1), "add.Tensor with a number or a weight"),
        (Function(lambda x: x + torch.max_pool2d(x, 28)), "add.Tensor with inputs of different shapes"),
        (Function(lambda x: x.view(28, 28)), "view.default that does not keep the batch dimension"),
        (nn.Conv2d(1, 2, 3, dilation=2), r"conv2d.default with dilation=\[2, 2\]"),
        (nn.MaxPool2d(2, dilation=2), "dilation"),
        (nn.AvgPool2d(2, ceil_mode=True), "ceil_mode=True"),
        (nn.AvgPool2d(2, count_include_pad=False, padding=1), "count_include_pad=False"),
    ],
)
def test_unsupported_arguments_are_named(network: nn.Module, part: str, tmp_path: Path) -> None:
    description = load_trained(save(tmp_path, "simple"))[1]
    with pytest.raises(UserError, match=part):
        html.trace(network.eval(), description)


def test_images_smaller_than_a_drawing_are_refused(tmp_path: Path) -> None:
    network, description = load_trained(save(tmp_path, "simple"))
    with pytest.raises(UserError, match="16x16"):
        html.page_network(
            network, description.model_copy(update={"image_size": 16}), "", np.zeros(0, np.uint8)
        )


def test_policy_allows_what_is_in_the_page_and_nothing_else(tmp_path: Path) -> None:
    names = ["</script><b>", "<!--", "classes"]
    page = html.render([page_network(save(tmp_path, "cnnnet", classes=names))])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    directives = dict(part.split(" ", 1) for part in policy[1].split("; "))
    assert directives["default-src"] == "'none'"
    assert "unsafe" not in policy[1]
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        contents = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in contents]
        assert directives[directive].split() == [f"'sha256-{digest}'" for digest in hashes]
    data = re.search(r'<script type="application/json" id="networks">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])[0]["classes"] == names
    assert not re.search(r'(src|href)="(?!data:)', page)
