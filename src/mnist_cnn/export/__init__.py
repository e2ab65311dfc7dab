"""Trained networks in files that other programs read: ONNX, torch.export, safetensors, an HTML page."""

from pathlib import Path

from mnist_cnn.errors import UserError
from mnist_cnn.export.exported import ExportedNetwork

__all__ = ["ExportedNetwork", "load_network"]


def load_network(path: Path) -> ExportedNetwork:
    """Return the network of a file that export.py has written as ONNX or safetensors.

    For ONNX, torch is not imported. Raises `UserError` for other files, and also for those of torch.export:
    they can contain code that runs when they are loaded.
    """
    if path.suffix == ".onnx":
        from mnist_cnn.export import onnx

        return onnx.load(path)
    if path.suffix == ".safetensors":
        from mnist_cnn.export import safetensors

        return safetensors.load(path)
    raise UserError(
        f"{path} is not a network to load: give a checkpoint (.ckpt), or a file that export.py wrote "
        "with format=onnx or format=safetensors."
    )
