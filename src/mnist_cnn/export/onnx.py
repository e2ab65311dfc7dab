"""ONNX: the network as a graph that onnxruntime and other programs execute."""

import functools
import importlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnist_cnn.errors import UserError, needs_extra
from mnist_cnn.export.exported import Description, ExportedNetwork, Images, Logits

if TYPE_CHECKING:
    from mnist_cnn.export.network import ByteNetwork

MAX_MEMORY = 4_000_000_000  # bytes, for a batch of images
MAX_SECONDS = 120  # for a batch of images


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

    The file may come from someone else, and its graph may ask for any amount of memory and time: its `run`
    raises `UserError` if it takes more than `MAX_MEMORY` or `MAX_SECONDS`.
    """
    with needs_extra("onnx", "format=onnx"):
        import onnxruntime
    if not path.is_file():  # to open a pipe can block, and a device may never end
        raise UserError(f"{path} is not a regular file.")
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # it raises errors, so it need not print them
        limit_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        session = onnxruntime.InferenceSession(
            path.read_bytes(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["ConstantFolding"],  # it would run parts of the graph without the limits
        )
        (images_input,) = session.get_inputs()
        strings = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # the errors of onnxruntime have no common class
        raise UserError(f"{path} cannot be read as an ONNX network.") from error
    description = Description.from_strings(strings, path)

    def run(images: Images) -> Logits:
        limits = onnxruntime.RunOptions()
        limits.log_severity_level = 4
        timer = threading.Timer(MAX_SECONDS, setattr, (limits, "terminate", True))
        timer.start()
        try:
            (logits,) = session.run(None, {images_input.name: images}, limits)
            return np.asarray(logits, np.float32)
        except Exception as error:
            raise UserError(
                f"{path} failed to run or exceeded the limits of {MAX_MEMORY / 1e9:g} GB and "
                f"{MAX_SECONDS} s. Export it again: python export.py ckpt=PATH format=onnx"
            ) from error
        finally:
            timer.cancel()

    return ExportedNetwork(description, run)


@functools.cache
def limit_memory() -> None:
    """Limit the memory of all sessions of this process that use the allocator of its environment."""
    import onnxruntime

    onnxruntime.create_and_register_allocator(
        onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        ),
        onnxruntime.OrtArenaCfg({"max_mem": MAX_MEMORY, "arena_extend_strategy": 1}),
    )
