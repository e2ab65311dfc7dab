"""Errors in the forward pass of a network or a loss, such as of layers whose sizes do not match."""

import traceback
from pathlib import Path

import torch
from torch import Tensor, nn

from mnist_cnn.errors import UserError, one_line
from mnist_cnn.files import shown_path
from mnist_cnn.training.launch import is_of_connection

ERRORS = (RuntimeError, ValueError, TypeError, IndexError)  # of torch, for tensors that do not fit
_LIBRARY = Path(torch.__file__).parent


def explain(error: Exception, module: nn.Module, *inputs: Tensor) -> None:
    """Raise a `UserError` that names the module, the shapes of its `inputs`, and the failing line.

    It returns if `error` is not of the module, but of the connection to another rank.
    """
    if is_of_connection(error):
        return
    shapes = " and ".join(str(tuple(tensor.shape)) for tensor in inputs)
    message = f"{type(module).__name__} fails with inputs of shape {shapes}:\n{one_line(error)}"
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is the caller of the module
    own = [frame for frame in frames if not Path(frame.filename).is_relative_to(_LIBRARY)]
    if own:
        path = shown_path(Path(own[-1].filename))
        message += f"\n{path}:{own[-1].lineno}, in {own[-1].name}:\n    {own[-1].line}"
    message += "\nCheck the sizes of the layers; HYDRA_FULL_ERROR=1 shows the traceback."
    raise UserError(message) from error
