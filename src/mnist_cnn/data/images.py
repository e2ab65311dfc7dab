"""Images in bytes brought to the channels and the size that a network takes."""

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 1000  # images converted at a time, so that the intermediate floats take little memory

# Of red, green and blue, in thousandths (ITU-R 601, as in Pillow).
LUMA_WEIGHTS = (299, 587, 114)


def convert(images: Tensor, channels: int, size: int) -> Tensor:
    """Return uint8 images (N, C, H, W) as (N, channels, size, size), C and channels being 1 or 3.

    Grey is repeated to three channels, colour is reduced to luma. Images that fit into the size are padded
    with zeros on all sides; larger ones are padded to a square and resized with antialiasing.
    """
    if images.shape[1:] == (channels, size, size):
        return images
    return torch.cat([_resized(_recoloured(part, channels), size) for part in images.split(CHUNK)])


def _recoloured(images: Tensor, channels: int) -> Tensor:
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    weights = torch.tensor(LUMA_WEIGHTS).view(3, 1, 1)
    luma = (images * weights).sum(1, keepdim=True)  # int64, so that the result is exact
    return ((luma + 500) // 1000).to(torch.uint8)


def _resized(images: Tensor, size: int) -> Tensor:
    largest = max(images.shape[-2:])
    if largest <= size:
        return _padded(images, size)
    return F.interpolate(_padded(images, largest), (size, size), mode="bilinear", antialias=True)


def _padded(images: Tensor, size: int) -> Tensor:
    height, width = images.shape[-2:]
    across, down = size - width, size - height
    left, top = across // 2, down // 2
    return F.pad(images, (left, across - left, top, down - top))
