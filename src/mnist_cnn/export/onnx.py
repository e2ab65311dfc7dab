"""ONNX: the network as a graph that onnxruntime and other programs execute."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnist_cnn.errors import UserError, needs_extra
from mnist_cnn.export.exported import Description, ExportedNetwork, Images, Logits

if TYPE_CHECKING:
    from mnist_cnn.export.network import ByteNetwork


def write(network: "ByteNetwork", description: Description, path: Path) -> None:
    """Write the network as one ONNX file: images uint8 (B, C, S, S) to logits float32 (B, K), for any B.

    The description is in its metadata. Raises `UserError` if the extra `onnx` is not installed.
    """
    with needs_extra("onnx", "format=onnx"):
        for package in ("onnx", "onnxscript", "onnxruntime"):
            importlib.import_module(package)
    import torch

    from mnist_cnn.export.torch_export import trace

    program = torch.onnx.export(
        trace(network, description),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: "batch"}},
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(description.to_strings())
    program.save(path, external_data=False)


def load(path: Path) -> ExportedNetwork:
    """Return the network of a file that `write` has written; torch is not imported.

    Raises `UserError` for other files, and from `run` if the network does not take the images.
    """
    with needs_extra("onnx", "format=onnx"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it raises errors, so it need not print them
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        (images_input,) = session.get_inputs()
        strings = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # the errors of onnxruntime have no common class
        raise UserError(f"{path} cannot be read as an ONNX network.") from error
    description = Description.from_strings(strings, path)

    def run(images: Images) -> Logits:
        try:
            (logits,) = session.run(None, {images_input.name: images})
        except Exception as error:
            raise UserError(
                f"{path} failed to run. Export it again: python export.py ckpt=PATH format=onnx"
            ) from error
        return np.asarray(logits, np.float32)

    return ExportedNetwork(description, run)
