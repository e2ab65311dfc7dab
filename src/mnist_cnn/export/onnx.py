"""ONNX: the network as a graph that onnxruntime and other programs execute."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnist_cnn.errors import UserError
from mnist_cnn.export.description import Description, needs_extra
from mnist_cnn.export.loaded import LoadedNetwork

if TYPE_CHECKING:
    from mnist_cnn.export.network import ByteNetwork


def write(network: "ByteNetwork", description: Description, path: Path) -> None:
    """Write the network as one ONNX file: images uint8 (B, C, S, S) -> logits float32 (B, K), any B.

    The description is in its metadata. Raises `UserError` where the extra `onnx` is not installed.
    """
    with needs_extra("onnx"):
        import onnx  # noqa: F401, torch needs both and would say so in other words
        import onnxscript  # noqa: F401

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


def load(path: Path) -> LoadedNetwork:
    """Return the network of a file that `write` has written; torch is not imported."""
    with needs_extra("onnx"):
        import onnxruntime
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    except Exception as error:  # the errors of onnxruntime have no common class of their own
        raise UserError(f"{path} cannot be read as an ONNX network.") from error
    description = Description.from_strings(session.get_modelmeta().custom_metadata_map, path)
    (images_input,) = session.get_inputs()

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        (logits,) = session.run(None, {images_input.name: images})
        return np.asarray(logits)

    return LoadedNetwork(description, run)
