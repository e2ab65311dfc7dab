"""The check that every network makes of the images it is given."""

from torch import Tensor

from mnist_cnn.errors import UserError


def check_images(images: Tensor, channels: int, size: int, name: str) -> None:
    """Raise `UserError` unless `images` has the shape (B, channels, size, size)."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (channels, size, size):
        raise UserError(
            f"{name} expects images of shape (B, {channels}, {size}, {size}), got {tuple(images.shape)}. "
            f"Pad or resize them to {size}x{size}, or set in_channels to their number of channels."
        )
