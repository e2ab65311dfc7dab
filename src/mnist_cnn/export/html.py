"""HTML: a page to draw on, with the networks in it; it needs neither a server nor a connection.

The page computes the networks in JavaScript, operation by operation of the graph that torch.export traces.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from typing import Any

import jinja2
import torch
from torch import nn
from torch.fx import Node

from mnist_cnn.errors import UserError
from mnist_cnn.export.exported import Description
from mnist_cnn.export.network import ByteNetwork

SIZE = 28  # pixels of a side of a drawn digit, as in page/prepare.js
SCRIPTS = ("prepare.js", "network.js", "draw.js")

# The operations of page/network.js, with the arguments for which it supports only one value.
OPERATIONS: dict[str, dict[str, Any]] = {
    "conv2d.default": {"dilation": [1, 1], "groups": 1},
    "linear.default": {},
    "batch_norm.default": {"training": False},
    "max_pool2d.default": {"dilation": [1, 1]},
    "avg_pool2d.default": {"ceil_mode": False, "count_include_pad": True, "divisor_override": None},
    "adaptive_avg_pool2d.default": {},
    "relu.default": {},
    "tanh.default": {},
    "sigmoid.default": {},
    "add.Tensor": {"alpha": 1},
    "flatten.using_ints": {},
    "view.default": {},
    "reshape.default": {},
    "dropout.default": {"train": False},
}


def save_network(network: ByteNetwork, description: Description, run: str) -> dict[str, Any]:
    """Return what the page needs of the network of a run, as plain values: the argument of its `loadNetwork`.

    Raises `UserError` for networks that the page cannot compute.
    """
    if description.image_size < SIZE:
        raise UserError(
            f"{description.network_name} takes images of {description.image_size}x{description.image_size} "
            f"pixels, but the page needs networks for {SIZE}x{SIZE} or more. Use format=onnx."
        )
    if description.prepare != "digits":
        raise UserError(
            f"{description.network_name} was trained on images prepared with data.prepare="
            f"{description.prepare}, but the page prepares what is drawn as digits in the form of MNIST's. "
            "Use format=onnx, or train with data.prepare=digits."
        )
    about = json.loads(description.model_dump_json())  # NaN, which is not JSON, becomes null
    saved = trace(network.network, description)
    return saved | {"name": description.network_name, "run": run, "about": about}


def trace(network: nn.Module, description: Description) -> dict[str, Any]:
    """Return the operations of the network, and its weights as float32 numbers in base64."""
    size = description.image_size
    program = torch.export.export(network, (torch.zeros(1, description.in_channels, size, size),))
    signature = program.graph_signature
    places, count = {}, 0  # the offset and length of each weight among all numbers
    for name, weight in program.state_dict.items():
        places[name] = [count, weight.numel()]
        count += weight.numel()
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    weights = {node: name for node, name in names.items() if name in places}
    operations = []
    for node in program.graph.nodes:
        if node.op == "call_function":
            arguments = node.normalized_arguments(program.graph_module, normalize_to_only_use_kwargs=True)
            operation = read_operation(node, arguments.kwargs if arguments else {}, weights, description)
            operation["weights"] = {key: places.get(name) for key, name in operation["weights"].items()}
            operations.append(operation)
    put_relu_before_pooling(operations)
    (images,), (logits,) = signature.user_inputs, signature.user_outputs
    numbers = torch.cat([weight.detach().float().flatten() for weight in program.state_dict.values()])
    encoded = base64.b64encode(numbers.numpy().astype("<f4").tobytes()).decode()
    return {"input": images, "output": logits, "operations": operations, "weights": encoded}


def read_operation(
    node: Node, arguments: Mapping[str, Any], weights: Mapping[str, str], description: Description
) -> dict[str, Any]:
    """Return the operation of a node as page/network.js takes it, with its weights by name.

    `weights` are the names of the network's weights by their nodes. Raises `UserError` if the page does not
    have this operation, or not with these arguments.
    """
    target = str(node.target).removeprefix("aten.")
    kind, _, overload = target.partition(".")
    in_place, kind = kind.endswith("_"), kind.removesuffix("_")

    def unsupported(with_what: str = "") -> UserError:
        return UserError(
            f"{description.network_name} has the operation {target}{with_what}, which the page does not "
            "have. Use format=onnx for this network."
        )

    if f"{kind}.{overload}" not in OPERATIONS:
        raise unsupported()
    for name, value in OPERATIONS[f"{kind}.{overload}"].items():
        if arguments[name] != value:
            raise unsupported(f" with {name}={arguments[name]}")
    nodes = {name: value for name, value in arguments.items() if isinstance(value, Node)}
    inputs = [value for value in nodes.values() if value.name not in weights]
    own_weights = {name: weights[value.name] for name, value in nodes.items() if value.name in weights}
    batch, *shape = shape_of(node)
    if len(inputs) != (2 if kind == "add" else 1):
        raise unsupported(" with a number or a weight as an input")
    if batch != 1:
        raise unsupported(" that does not keep the batch dimension")
    if kind == "add" and shape_of(inputs[0]) != shape_of(inputs[1]):
        raise unsupported(" with inputs of different shapes")
    if in_place and len(inputs[0].users) > 1:
        raise unsupported(" in place on a value that is used again")
    settings = {name: value for name, value in arguments.items() if name not in nodes}
    if kind == "conv2d":
        settings["kernel_size"] = shape_of(nodes["weight"])[2:]
    return {
        "kind": kind,
        "name": own_weights.get("weight", "").removesuffix(".weight"),
        "output": node.name,
        "inputs": [value.name for value in inputs],
        "shape": shape,
        "weights": own_weights,
        "settings": settings,
    }


def shape_of(node: Node) -> list[int]:
    """Return the shape of the value of a node, with the batch dimension."""
    return list(node.meta["val"].shape)


def put_relu_before_pooling(operations: list[dict[str, Any]]) -> None:
    """Exchange each max pooling with the ReLU that follows it: the tutorial's order, with the same values."""
    shapes = {operation["output"]: operation["shape"] for operation in operations}
    for index, (pool, relu) in enumerate(pairwise(operations)):
        before, users = pool["inputs"][0], [one for one in operations if pool["output"] in one["inputs"]]
        if pool["kind"] == "max_pool2d" and relu["kind"] == "relu" and users == [relu] and before in shapes:
            name, pool["output"] = pool["output"], relu["output"]
            operations[index] = relu | {"inputs": [before], "output": name, "shape": shapes[before]}
            operations[index + 1] = pool | {"inputs": [name]}


def render(networks: Sequence[Mapping[str, Any]]) -> str:
    """Return the page with its style, its scripts and the networks of `save_network` in it.

    The security policy names the scripts and the style by their hashes, so that nothing else runs, and
    allows no connection.
    """
    page = files("mnist_cnn.export") / "page"
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["hash"] = hash_source
    template = environment.from_string((page / "index.html").read_text(encoding="utf-8"))
    return template.render(
        networks=networks,
        style=(page / "style.css").read_text(encoding="utf-8"),
        scripts=[(page / name).read_text(encoding="utf-8") for name in SCRIPTS],
    )


def hash_source(content: str) -> str:
    """Return the hash of a script or style as a source of a security policy."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
