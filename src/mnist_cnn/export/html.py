"""HTML: a page to draw on, with the networks in it; it needs neither a server nor a network connection.

The page computes the networks in JavaScript, operation by operation of the graph that torch.export traces.
"""

import base64
import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from mnist_cnn.errors import UserError
from mnist_cnn.export.check import TOLERANCE
from mnist_cnn.export.description import Description
from mnist_cnn.export.network import ByteNetwork, runner

SIZE = 28  # pixels of a side of a drawn digit (page/prepare.js)
SCRIPTS = ("prepare.js", "network.js", "draw.js")


@dataclass(frozen=True)
class Operation:
    """An operation that page/network.js computes.

    `inputs`, `weights` and `settings` are names of arguments; `pairs` those settings that are a number for
    both directions or one for each. `fixed` are arguments for which only one value is supported.
    """

    kind: str
    inputs: tuple[str, ...] = ("self",)
    weights: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)


_WINDOW = ("kernel_size", "stride", "padding")

OPERATIONS = {
    "conv2d.default": Operation(
        "conv2d",
        inputs=("input",),
        weights=("weight", "bias"),
        pairs=("stride", "padding"),
        fixed={"dilation": [1, 1], "groups": 1},
    ),
    "linear.default": Operation("linear", inputs=("input",), weights=("weight", "bias")),
    "batch_norm.default": Operation(
        "batch_norm",
        inputs=("input",),
        weights=("weight", "bias", "running_mean", "running_var"),
        settings=("eps",),
        fixed={"training": False},
    ),
    "max_pool2d.default": Operation("max_pool2d", pairs=_WINDOW, fixed={"dilation": [1, 1]}),
    "avg_pool2d.default": Operation(
        "avg_pool2d",
        pairs=_WINDOW,
        fixed={"ceil_mode": False, "count_include_pad": True, "divisor_override": None},
    ),
    "adaptive_avg_pool2d.default": Operation("adaptive_avg_pool2d"),
    "relu.default": Operation("relu"),
    "relu_.default": Operation("relu"),
    "tanh.default": Operation("tanh"),
    "sigmoid.default": Operation("sigmoid"),
    "add.Tensor": Operation("add", inputs=("self", "other"), fixed={"alpha": 1}),
    "add_.Tensor": Operation("add", inputs=("self", "other"), fixed={"alpha": 1}),
    "flatten.using_ints": Operation("identity"),
    "view.default": Operation("identity"),
    "reshape.default": Operation("identity"),
    "dropout.default": Operation("identity", inputs=("input",), fixed={"train": False}),
}


@dataclass(frozen=True)
class PageNetwork:
    """A network as the page has it: its operations, and the numbers of all weights one after another.

    The weights are written with `bits` bits; `change` is the largest absolute change of a logit with
    16-bit weights.
    """

    name: str
    description: Description
    graph: dict[str, Any]
    weights: NDArray[np.float32]
    bits: int
    change: float

    def to_json(self) -> dict[str, Any]:
        """Return the argument of `loadNetwork` in page/network.js."""
        d = self.description
        channels = range(d.in_channels)
        numbers = self.weights.astype("<f2" if self.bits == 16 else "<f4")
        return self.graph | {
            "name": d.network_name,
            "run": self.name,
            "parameters": d.parameters,
            "trainedOn": d.data,
            "epochs": d.epochs,
            "testAccuracy": d.metrics.get("test/acc"),
            "classes": d.classes,
            "givesProbabilities": d.gives_probabilities,
            "inputShape": [d.in_channels, d.image_size, d.image_size],
            "mean": [d.mean[i] if isinstance(d.mean, list) else d.mean for i in channels],
            "std": [d.std[i] if isinstance(d.std, list) else d.std for i in channels],
            "bits": self.bits,
            "weights": base64.b64encode(numbers.tobytes()).decode(),
        }


def page_network(
    network: ByteNetwork, description: Description, name: str, images: NDArray[np.uint8]
) -> PageNetwork:
    """Return the network for the page, with weights of 16 bits if the logits of `images` stay the same.

    They stay the same if none changes by more than half of the tolerance of `check.compare`, which leaves the
    other half to the arithmetic of the page. Raises `UserError` for operations that the page does not have.
    """
    if description.image_size < SIZE:
        raise UserError(
            f"{description.network_name} takes images of {description.image_size}x{description.image_size} "
            f"pixels, but digits are drawn for {SIZE}x{SIZE} or more. Use format=onnx."
        )
    graph, weights = trace(network.network, description)
    change = float(np.abs(runner(network)(images) - runner(rounded(network))(images)).max())
    return PageNetwork(name, description, graph, weights, 16 if change <= TOLERANCE / 2 else 32, change)


def rounded(network: ByteNetwork) -> ByteNetwork:
    """Return a copy of the network with weights that float16 can represent."""
    copied = copy.deepcopy(network)
    for weight in copied.network.state_dict().values():
        weight.copy_(weight.half() if weight.is_floating_point() else weight)
    return copied


def write(networks: Sequence[PageNetwork], path: Path) -> None:
    """Write the page with these networks as one file."""
    path.write_text(render(networks), encoding="utf-8")


def render(networks: Sequence[PageNetwork]) -> str:
    """Return the page with its style, its scripts and its data in it.

    The security policy names the scripts and the style by their hashes, so that nothing else runs, and
    allows no connection.
    """
    page = files("mnist_cnn.export") / "page"
    scripts = [(page / name).read_text(encoding="utf-8") for name in SCRIPTS]
    style = (page / "style.css").read_text(encoding="utf-8")
    # Names of classes are the user's text: "<" would end the script element.
    data = json.dumps([network.to_json() for network in networks]).replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": policy,
        "STYLE": f"<style>{style}</style>",
        "DATA": f'<script type="application/json" id="networks">{data}</script>',
        "SCRIPTS": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    text = (page / "index.html").read_text(encoding="utf-8")
    for name, part in parts.items():
        before, after = text.split(f"<!-- {name} -->")
        text = before + part + after
    return text


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def trace(network: nn.Module, description: Description) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Return the graph of the network for the page and all its weights as one array.

    Raises `UserError` that names the first operation that the page does not have.
    """
    size = description.image_size
    example = torch.zeros(1, description.in_channels, size, size)
    program = torch.export.export(network, (example,))
    graph = _Graph(description.network_name, program)
    operations = [graph.read(node) for node in program.graph.nodes if node.op == "call_function"]
    (images,), (logits,) = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    saved = {"input": images, "output": logits, "operations": operations}
    return saved, np.concatenate([weight.numpy().ravel() for weight in graph.weights])


class _Graph:
    """Reads the nodes of a traced network one after another, and collects their weights."""

    def __init__(self, network_name: str, program: ExportedProgram) -> None:
        self.network_name = network_name
        self.state = program.state_dict
        signature = program.graph_signature
        self.fixed_inputs = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self.weights: list[Tensor] = []

    def read(self, node: Node) -> dict[str, Any]:
        """Return the operation of a node as page/network.js takes it; raises `UserError` for other ones."""
        target = str(node.target).removeprefix("aten.")
        operation = OPERATIONS.get(target)
        if operation is None:
            raise self._unsupported(f"operation {target}")
        arguments = _arguments(node)
        for name, value in operation.fixed.items():
            if arguments[name] != value:
                raise self._unsupported(f"operation {target} with {name}={arguments[name]}")
        inputs = [arguments[name] for name in operation.inputs]
        shapes = [
            _shape(one) for one in inputs if isinstance(one, Node) and one.name not in self.fixed_inputs
        ]
        batch, *shape = _shape(node)
        if len(shapes) != len(inputs):
            raise self._unsupported(f"operation {target} with a number or a weight as an input")
        if batch != 1:
            raise self._unsupported(f"operation {target} that does not keep the batch dimension")
        if operation.kind == "add" and len(set(shapes)) > 1:
            raise self._unsupported(f"operation {target} with inputs of different shapes")
        if _is_in_place(target) and len(inputs[0].users) > 1:
            raise self._unsupported(f"in-place operation {target} on a value that is used again")

        names = {
            name: self.fixed_inputs[arguments[name].name] for name in operation.weights if arguments[name]
        }
        settings = {name: arguments[name] for name in operation.settings}
        settings |= {name: _pair(arguments[name]) for name in operation.pairs}
        if operation.kind == "conv2d":
            settings["kernel_size"] = list(self.state[names["weight"]].shape[2:])
        elif "stride" in settings:
            settings["stride"] = settings["stride"] or settings["kernel_size"]
        return {
            "kind": operation.kind,
            "name": names["weight"].removesuffix(".weight") if "weight" in names else "",
            "output": node.name,
            "inputs": [one.name for one in inputs],
            "shape": shape,
            "weights": {name: self._place(names.get(name)) for name in operation.weights},
            "settings": settings,
        }

    def _place(self, name: str | None) -> list[int] | None:
        """Add a tensor to `weights`; return its offset and length in them, or None where there is none."""
        if name is None:
            return None
        offset = sum(weight.numel() for weight in self.weights)
        self.weights.append(self.state[name].detach())
        return [offset, self.weights[-1].numel()]

    def _unsupported(self, what: str) -> UserError:
        return UserError(
            f"{self.network_name} has the {what}, which the page does not have. "
            "Use format=onnx for this network."
        )


def _arguments(node: Node) -> dict[str, Any]:
    """Return all arguments of a node by name, with the defaults of its operation."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = {argument.name: value for argument, value in zip(schema, node.args, strict=False)}
    return {argument.name: argument.default_value for argument in schema} | given | node.kwargs


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _is_in_place(target: str) -> bool:
    return target.partition(".")[0].endswith("_")


def _pair(value: Any) -> list[int]:
    """Return a number or a list as a list of two; an empty one stays empty."""
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * 2 if len(numbers) == 1 else numbers
