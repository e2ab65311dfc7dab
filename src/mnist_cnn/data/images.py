"""Images in bytes brought to the channels and the size that a network takes."""

import torch
from torch import Tensor
from torchvision.transforms import functional as F

CHUNK = 1000  # images converted at a time, so that the intermediate floats take little memory


def convert(images: Tensor, channels: int, size: int, enlarge: bool = False) -> Tensor:
    """Return uint8 images (N, C, H, W) as (N, channels, size, size), C and channels being 1 or 3.

    Grey is repeated to three channels, colour is reduced to luma. Images that fit into the size are padded
    with zeros on all sides; larger ones, and with `enlarge` all, are padded to a square and resized with
    antialiasing.
    """
    if images.shape[1:] == (channels, size, size):
        return images
    return torch.cat([_converted(part, channels, size, enlarge) for part in images.split(CHUNK)])


def _converted(images: Tensor, channels: int, size: int, enlarge: bool) -> Tensor:
    if images.shape[1] != channels:
        images = F.rgb_to_grayscale(images) if channels == 1 else images.expand(-1, 3, -1, -1)
    side = max(0 if enlarge else size, *images.shape[-2:])
    square = F.center_crop(images, [side, side])  # pads with zeros
    method = F.InterpolationMode.BICUBIC if enlarge else F.InterpolationMode.BILINEAR
    resized: Tensor = F.resize(square, [size, size], method)
    return resized
