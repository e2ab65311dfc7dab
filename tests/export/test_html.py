"""The page as a file: its graph, its size, what it refuses. tests/browser has it in a browser."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mnist_cnn.errors import UserError
from mnist_cnn.export import html
from mnist_cnn.export.network import load_trained
from tests.export.checkpoint import save


def saved_network(ckpt: Path) -> dict[str, Any]:
    return html.save_network(*load_trained(ckpt), "run")


def test_layers_have_names_and_shapes_in_the_order_of_the_tutorial(tmp_path: Path) -> None:
    operations = saved_network(save(tmp_path, "simple"))["operations"]
    assert [(operation["kind"], operation["name"], operation["shape"]) for operation in operations] == [
        ("conv2d", "conv1", [32, 28, 28]),
        ("relu", "", [32, 28, 28]),
        ("max_pool2d", "", [32, 14, 14]),
        ("conv2d", "conv2", [64, 14, 14]),
        ("relu", "", [64, 14, 14]),
        ("max_pool2d", "", [64, 7, 7]),
        ("flatten", "", [3136]),
        ("linear", "fc1", [128]),
        ("relu", "", [128]),
        ("linear", "fc2", [10]),
    ]


def test_pooling_of_the_images_stays_before_relu(tmp_path: Path) -> None:
    description = load_trained(save(tmp_path, "simple"))[1]
    network = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(196, 10))
    operations = html.trace(network, description)["operations"]
    assert [operation["kind"] for operation in operations] == ["max_pool2d", "relu", "flatten", "linear"]


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
        (nn.Hardswish(), r"hardswish.default, which the page does not have. Use format=onnx"),
        (Function(change_through_another_shape), "relu_.default in place on a value"),
        (Function(lambda x: x + 1), "add.Tensor with a number or a weight"),
        (Function(lambda x: x + torch.max_pool2d(x, 28)), "add.Tensor with inputs of different shapes"),
        (Function(lambda x: x.view(28, 28)), "view.default that does not keep the batch dimension"),
        (nn.Conv2d(1, 2, 3, dilation=2), r"conv2d.default with dilation=\[2, 2\]"),
        (nn.MaxPool2d(2, dilation=2), "dilation"),
        (nn.AvgPool2d(2, ceil_mode=True), "ceil_mode=True"),
        (nn.AvgPool2d(2, count_include_pad=False, padding=1), "count_include_pad=False"),
    ],
)
def test_unsupported_operation_or_argument_is_named(network: nn.Module, part: str, tmp_path: Path) -> None:
    description = load_trained(save(tmp_path, "simple"))[1]
    with pytest.raises(UserError, match=part):
        html.trace(network.eval(), description)


def test_images_smaller_than_a_drawing_are_refused(tmp_path: Path) -> None:
    network, description = load_trained(save(tmp_path, "simple"))
    small = description.model_copy(update={"image_size": 16})
    with pytest.raises(UserError, match="16x16"):
        html.save_network(network, small, "")


def test_network_for_images_prepared_in_another_way_is_refused(tmp_path: Path) -> None:
    network, description = load_trained(save(tmp_path, "simple", prepare="resize"))
    with pytest.raises(
        UserError, match=r"data\.prepare=resize, but the page prepares what is drawn as digits"
    ):
        html.save_network(network, description, "")


def test_policy_allows_what_is_in_the_page_and_nothing_else(tmp_path: Path) -> None:
    names = ["</script><b>", "<!--", "classes"]
    page = html.render([saved_network(save(tmp_path, "cnnnet", classes=names))])
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
    assert json.loads(data[1])[0]["about"]["classes"] == names
    assert not re.search(r'(src|href)="(?!data:)', page)
