"""Images in memory as bytes, batches by one index operation, normalised on the device.

Legend for shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from mnist_cnn.data import sources
from mnist_cnn.errors import UserError

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), targets (B,)

# Gradients are not kept in evaluation, so a batch may be larger than in training. It is a constant,
# not a multiple of the training batch, so that an evaluation does not depend on the training's choices.
EVAL_BATCH_SIZE = 500


class ImagesInMemory(Dataset[Batch]):
    """Images (N, C, H, W) uint8 and targets (N,) int64, fetched a whole batch at a time."""

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images = images
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int | slice) -> Batch:
        return self.images[index], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the batch at `indices`; DataLoader calls this instead of one `__getitem__` an image."""
        rows = torch.tensor(indices)
        return self.images[rows], self.targets[rows]


def share_of_rank(length: int, rank: int, world_size: int) -> range:
    """Return the indices that `rank` evaluates: over all ranks every image once, none twice.

    torch's DistributedSampler repeats images until the ranks have equally many, which counts some twice.
    """
    return range(rank, length, world_size)


def stratified_split(targets: Tensor, val_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split the indices of `targets` (N,) in two, with each class in both by its share.

    Returns the training indices (N - val_size,) and the validation indices (val_size,), int64, ascending.
    The classes' shares are rounded by the largest remainder, so that they sum to `val_size`.
    """
    if not 0 <= val_size < len(targets):
        raise UserError(
            f"data.val_size={val_size} leaves no training images: there are {len(targets):,} in all. "
            f"Give a number from 0 to {len(targets) - 1:,}."
        )
    counts = torch.bincount(targets)
    shares = counts * val_size / len(targets)
    sizes = shares.floor().long()
    remainder_order = (shares - sizes).argsort(descending=True, stable=True)
    sizes[remainder_order[: val_size - int(sizes.sum())]] += 1

    generator = torch.Generator().manual_seed(seed)
    is_val = torch.zeros(len(targets), dtype=torch.bool)
    for label, size in enumerate(sizes.tolist()):
        of_class = torch.nonzero(targets == label).flatten()
        is_val[of_class[torch.randperm(len(of_class), generator=generator)[:size]]] = True
    return torch.nonzero(~is_val).flatten(), torch.nonzero(is_val).flatten()


class ImageData(L.LightningDataModule):
    """MNIST, or a data set of its form, as training, validation and test batches.

    Batches on the device are float32 images (B, in_channels, image_size, image_size), zero-padded in
    bytes and then normalised as (pixel / 255 - mean) / std, and int64 targets (B,).

    `val_size` images of the training set are kept for validation, the same ones for every `seed`, so
    that runs that differ in it are judged by the same images; `seed` and the epoch alone decide the
    order of the training images. `val_size=0` trains on all of them.
    """

    def __init__(
        self,
        name: Literal["mnist", "fashion_mnist"],
        dir: str,
        batch_size: int,
        val_size: int,
        mean: float,
        std: float,
        in_channels: int,
        num_classes: int,
        classes: Sequence[str],
        image_size: int = 28,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.name: str = name
        self.dir = dir
        self.batch_size = batch_size
        self.val_size = val_size
        self.mean = mean
        self.std = std
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.classes = list(classes)
        self.image_size = image_size
        self.seed = seed
        self.source = ""  # where the files came from, for people
        self.train: ImagesInMemory | None = None
        self.val: ImagesInMemory | None = None
        self.test: ImagesInMemory | None = None

    def prepare_data(self) -> None:
        """Fetch and verify the files; Lightning calls this in one process of a machine only."""
        self.source = sources.obtain(self.name, self.dir)

    def setup(self, stage: str | None = None) -> None:
        """Read the images into memory, split and padded; raises `UserError` where they do not fit."""
        if self.train is None:
            images, targets = self._read(train=True)
            train, val = stratified_split(targets, self.val_size, seed=0)
            self.train = ImagesInMemory(images[train], targets[train])
            self.val = ImagesInMemory(images[val], targets[val])
            self.test = ImagesInMemory(*self._read(train=False))

    def parts(self) -> dict[str, ImagesInMemory]:
        """Return the three parts by their names for people."""
        assert self.train is not None and self.val is not None and self.test is not None
        return {"train": self.train, "validation": self.val, "test": self.test}

    def _read(self, train: bool) -> Batch:
        images, targets = sources.read(self.name, self.dir, train=train)
        height, width = images.shape[-2:]
        across, down = self.image_size - width, self.image_size - height
        if across < 0 or down < 0:
            raise UserError(
                f"The network wants {self.image_size}x{self.image_size} images, "
                f"but those of {self.name} are {height}x{width}, which padding cannot mend."
            )
        left, top = across // 2, down // 2
        return F.pad(images, (left, across - left, top, down - top)), targets

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches; the order is a function of seed and epoch, also across ranks."""
        assert self.train is not None
        rank, world_size = self._rank()
        sampler = DistributedSampler[Batch](self.train, world_size, rank, seed=self.seed)
        # A DataLoader draws a seed for workers whenever it starts; its own generator keeps the default
        # one as it was seeded for the epoch.
        generator = torch.Generator()
        return DataLoader(
            self.train, self.batch_size, sampler=sampler, collate_fn=_as_is, generator=generator
        )

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The validation images in order; no loader at all where `val_size` is 0."""
        assert self.val is not None
        return self._evaluation(self.val) if len(self.val) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test images in order."""
        assert self.test is not None
        return self._evaluation(self.test)

    def _evaluation(self, dataset: ImagesInMemory) -> DataLoader[Batch]:
        sampler = share_of_rank(len(dataset), *self._rank())
        return DataLoader(dataset, EVAL_BATCH_SIZE, sampler=sampler, collate_fn=_as_is)

    def _rank(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise a whole batch on the device that it was moved to."""
        images, targets = batch
        return self.normalise(images), targets

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 images (B, C, H, W) into float32, channels last, by `mean` and `std`."""
        scaled = (images.float() / 255 - self.mean) / self.std
        return scaled.contiguous(memory_format=torch.channels_last)


def _as_is(batch: Any) -> Any:
    """Pass on what `ImagesInMemory.__getitems__` has already put together."""
    return batch
