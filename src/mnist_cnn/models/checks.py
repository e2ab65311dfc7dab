"""Checks of the image size that every network makes."""

from torch import Tensor

from mnist_cnn.errors import UserError


def check_image_size(size: int, smallest: int, name: str) -> None:
    """Raise `UserError` if images of `size` x `size` pixels are too small for the network."""
    if size < smallest:
        raise UserError(
            f"model.image_size={size} is too small: the convolutions and poolings of {name} need at least "
            f"{smallest}x{smallest} pixels. Set model.image_size to {smallest} or more."
        )


def check_images(images: Tensor, channels: int, size: int, name: str) -> None:
    """Raise `UserError` unless `images` has the shape (B, channels, size, size)."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (channels, size, size):
        raise UserError(
            f"{name} expects images of shape (B, {channels}, {size}, {size}), got {tuple(images.shape)}. "
            "Set model.in_channels and model.image_size to match the images, or convert the images."
        )
