"""The arguments of the layers: sizes, padding, and dtypes under autocast."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]  # vertical, horizontal
Size = int | tuple[int, ...]  # one number for both directions, or a pair


def as_pair(size: Size) -> Pair:
    """Return `size` as (vertical, horizontal)."""
    if isinstance(size, int):
        return size, size
    vertical, horizontal = size
    return vertical, horizontal


def pad(x: Tensor, padding: Pair) -> Tensor:
    """Add `padding` rows and columns of zeros on each side of x (B, C, H, W)."""
    vertical, horizontal = padding
    return F.pad(x, (horizontal, horizontal, vertical, vertical))


def cast_for_autocast(*tensors: Any, to: torch.dtype | None = None) -> tuple[Any, ...]:
    """Under autocast, cast to the dtype that torch's own layer uses: that of autocast, or `to`.

    Returns the tensors unchanged without autocast; None and other dtypes, such as float64, stay as they are.
    The cast comes before the autograd function, so that its forward and backward passes see a single dtype.
    The backward pass of the cast returns the gradient of a float32 parameter in float32.
    """
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = to or torch.get_autocast_dtype(device)
    castable = (torch.float32, torch.float16, torch.bfloat16)
    return tuple(t.to(dtype) if t is not None and t.dtype in castable else t for t in tensors)
