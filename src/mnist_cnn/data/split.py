"""Stratified splits: a share of the images with each class in proportion."""

import torch
from torch import Tensor

from mnist_cnn.errors import UserError


def stratified_split(targets: Tensor, size: int | float, seed: int, setting: str) -> tuple[Tensor, Tensor]:
    """Split the indices of `targets` (N,) in two, with each class in both in proportion.

    `size` is the size of the second part: a number of images, or a fraction of them if it is a float.
    Returns the indices of the first part and of the second, int64, ascending. The sizes of the classes are
    rounded by the largest remainder, so that they sum to the whole. Raises `UserError`, which names
    `setting`, if nothing is left for the first part.
    """
    total = len(targets)
    # at least one image for a fraction of few
    count = max(1, round(size * total)) if isinstance(size, float) and size > 0 else int(size)
    if not 0 <= count < total:
        raise UserError(
            f"{setting}={size} leaves no training images: there are {total:,} in all. "
            f"Give a number of images from 0 to {total - 1:,}, or a fraction below 1."
        )
    counts = torch.bincount(targets)
    shares = counts * count / total
    sizes = shares.floor().long()
    remainder_order = (shares - sizes).argsort(descending=True, stable=True)
    sizes[remainder_order[: count - int(sizes.sum())]] += 1

    generator = torch.Generator().manual_seed(seed)
    in_second = torch.zeros(total, dtype=torch.bool)
    for label, class_size in enumerate(sizes.tolist()):
        of_class = torch.nonzero(targets == label).flatten()
        in_second[of_class[torch.randperm(len(of_class), generator=generator)[:class_size]]] = True
    return torch.nonzero(~in_second).flatten(), torch.nonzero(in_second).flatten()
