"""A small ONNX file of a stranger, made in no time: export.py takes seconds."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mnist_cnn.export.exported import Description


def onnx_network() -> bytes:
    """Return an ONNX network of a few operations with the metadata of export.py."""
    description = Description(
        model={"_target_": "mnist_cnn.models.CnnNet"},
        parameters=90,
        classes=list("0123456789"),
        in_channels=1,
        image_size=28,
        mean=0.5,
        std=0.5,
        prepare="digits",
        grey_values=None,
        gives_probabilities=True,
        data="MNIST",
        loss="",
        seed=0,
        epochs=1,
        metrics={},
        mnist_cnn_version="0",
    )
    weights = {
        "kernel": np.ones((1, 1, 5, 5), np.float32),
        "matrix": np.ones((196, 10), np.float32),
        "shape": np.array([-1, 196]),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["a"], to=TensorProto.FLOAT),
            helper.make_node("Conv", ["a", "kernel"], ["b"], pads=[2, 2, 2, 2]),
            helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Reshape", ["c", "shape"], ["d"]),
            helper.make_node("MatMul", ["d", "matrix"], ["logits"]),
        ],
        "network",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, description.to_strings())
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
