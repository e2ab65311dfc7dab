"""Images in memory as bytes, batches by one index operation, normalized on the device.

Legend for shapes: B batch, C channels, H height, W width.
"""

import math
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from mnist_cnn.data.images import convert
from mnist_cnn.data.source import Source
from mnist_cnn.data.split import stratified_split
from mnist_cnn.errors import UserError
from mnist_cnn.preparation.grey_values import GreyValues
from mnist_cnn.preparation.prepare import Preparation

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), targets (B,)
Augmentation = Callable[[Tensor], Tensor]  # float32 images (B, C, H, W) in [0, 1] -> the same

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

    def __getitems__(self, indices: Sequence[int] | Tensor) -> Batch:
        """Return the batch at `indices`; DataLoader calls this instead of one `__getitem__` an image."""
        rows = torch.as_tensor(indices)
        return self.images.index_select(0, rows), self.targets.index_select(0, rows)


class TrainLoader(DataLoader[Batch]):
    """A DataLoader of whole batches from memory, which can start within an epoch.

    Fetching a batch takes a tenth of DataLoader's time; of the arguments only the data set, `batch_size` and
    `sampler` have an effect. A single image that is left over joins the batch before, because batch
    normalization cannot train on one. The next iteration leaves out the batches before `first`.
    """

    first = 0

    def __iter__(self) -> Any:
        # A generator, so that `first` is read when the first batch is asked for: Lightning makes the iterator
        # before it loads the state of a run.
        first, self.first = self.first, 0
        assert isinstance(self.dataset, ImagesInMemory) and self.batch_size is not None
        rows = torch.tensor(list(self.sampler))
        count = len(self)
        for index in range(first, count):
            end = len(rows) if index == count - 1 else (index + 1) * self.batch_size
            yield self.dataset.__getitems__(rows[index * self.batch_size : end])

    def __len__(self) -> int:
        assert self.batch_size is not None and isinstance(self.sampler, Sized)
        images = len(self.sampler)
        one_left_over = images > 1 and self.batch_size > 1 and images % self.batch_size == 1
        return math.ceil(images / self.batch_size) - one_left_over


def rank_indices(length: int, rank: int, world_size: int) -> range:
    """Return the indices that `rank` evaluates: over all ranks every image once, none twice.

    torch's DistributedSampler repeats images until the ranks have equally many, which counts some twice.
    """
    return range(rank, length, world_size)


class ImageData(L.LightningDataModule):
    """The images of a `source` as training, validation and test batches.

    Batches on the device are float32 images (B, in_channels, image_size, image_size), normalized as
    (pixel / 255 - mean) / std, and int64 targets (B,). `mean` and `std` are numbers, or lists with one for
    each channel. Images of another size or number of channels are converted when they are read, in bytes
    (see `images.convert`).

    `classes` names the classes, by default by their numbers; `num_classes` is by default the number of names.

    `prepare` is how image files become images (see `Preparation`), and `grey_values` are black and white of
    those with more than 8 bits; by default they are those of the files.

    `extra` is a source whose training images are added to those of `source`, after the validation images are
    kept apart. Its classes must be among those of the data.

    `val_size` images of the training set, or that fraction of them, are kept for validation. They are the
    same for every `seed`, so that runs that differ in it are judged by the same images. `val_size=0` trains
    on all of them. The order of the training images is a function of `seed`, epoch and rank.

    `augment` is applied to whole batches on the device in training, to float32 images
    (B, in_channels, image_size, image_size) in [0, 1] before they are normalized. It must draw its random
    numbers from torch's default generators.

    `setup` reads the images into `train`, `val` and `test`.
    """

    train: ImagesInMemory
    val: ImagesInMemory
    test: ImagesInMemory

    def __init__(
        self,
        source: Source,
        dir: str,
        batch_size: int,
        val_size: int | float,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        in_channels: int,
        image_size: int,
        num_classes: int | None,
        classes: Sequence[str] | None,
        prepare: Literal["resize", "digits"] = "resize",
        grey_values: Sequence[float] | None = None,
        seed: int = 0,
        augment: Augmentation | None = None,
        extra: Source | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.extra = extra
        self.name: str = type(source).__name__
        self.dir = Path(dir)
        self.batch_size = batch_size
        self.val_size = val_size
        self.in_channels = in_channels
        self.image_size = image_size
        self.seed = seed
        self.augment = augment
        if prepare not in ("resize", "digits"):
            raise UserError(f"data.prepare={prepare}: give resize or digits.")
        if in_channels not in (1, 3):
            raise UserError(f"data.in_channels={in_channels}: images have 1 channel (grey) or 3 (colour).")
        self.mean = _per_channel(mean, in_channels, "data.mean")
        self.std = _per_channel(std, in_channels, "data.std")
        if classes is None and num_classes is None:
            raise UserError(f"{self.name} does not name its classes: set data.num_classes or data.classes.")
        self.classes = [str(name) for name in (range(num_classes or 0) if classes is None else classes)]
        self.num_classes = len(self.classes)
        if num_classes not in (None, self.num_classes):
            raise UserError(
                f"data.num_classes={num_classes}, but there are {self.num_classes} class names: "
                f"{', '.join(self.classes)}. Set data.classes to as many names, or to null."
            )
        self.prepare = prepare
        self.grey_values = _black_and_white(grey_values) or source.grey_values(self.dir)
        self.source_label = ""  # where the files came from, for people

    def prepare_data(self) -> None:
        """Fetch and verify the files; Lightning calls this in one process of a machine only."""
        if self.source_label:  # verified before the training; Lightning calls this again for the test
            return
        self.source_label = self.source.fetch(self.dir)
        if self.extra is not None:
            self.source_label += f", and {self.extra.fetch(self.dir)} to train on"
        if self.grey_values is not None:
            self.source_label += ", grey values {:g} to {:g}".format(*self.grey_values)

    def setup(self, stage: str | None = None) -> None:
        """Read the images into memory and split them; raises `UserError` if they do not fit."""
        if not hasattr(self, "test"):
            self.source.preparation = Preparation(
                self.prepare, self.in_channels, self.image_size, self.grey_values
            )
            images, targets = self._read(self.source, train=True)
            apart = self.source.read_validation(self.dir) if self.val_size else None
            if apart is None:
                train, val = stratified_split(targets, self.val_size, seed=0, setting="data.val_size")
                self.train = ImagesInMemory(images[train], targets[train])
                self.val = ImagesInMemory(*_mixed(images[val], targets[val]))
            else:
                self.train = ImagesInMemory(images, targets)
                self.val = ImagesInMemory(*_mixed(*self._converted(self.source, *apart)))
            if self.extra is not None:
                images, targets = self._read(self.extra, train=True)
                self.train = ImagesInMemory(
                    torch.cat([self.train.images, images]), torch.cat([self.train.targets, targets])
                )
            self.test = ImagesInMemory(*_mixed(*self._read(self.source, train=False)))
        if self.trainer is not None:
            self._check_limits(self.trainer)
            if self.trainer.check_val_every_n_epoch is not None:
                self._check_validation(self.trainer)

    def _check_limits(self, trainer: L.Trainer) -> None:
        """Raise `UserError` if a rank would evaluate no images, though there are some."""
        evaluated = (
            ("val", self.val, trainer.limit_val_batches),
            ("test", self.test, trainer.limit_test_batches),
        )
        for name, images, limit in evaluated:
            if len(images) and len(images) < trainer.world_size:
                raise UserError(
                    f"{trainer.world_size} processes cannot share the images to evaluate, of which "
                    f"{name} has {len(images)}: use fewer devices."
                )
            batches = math.ceil(len(images) // trainer.world_size / EVAL_BATCH_SIZE)
            if isinstance(limit, float) and batches and 0 < limit * batches < 1:
                raise UserError(
                    f"trainer.limit_{name}_batches={limit} leaves none of {batches} batches: give 0, or a "
                    f"fraction of {1 / batches:.3g} or more."
                )

    def _check_validation(self, trainer: L.Trainer) -> None:
        """Raise `UserError` if an epoch does not end with a validation."""
        limit, interval = trainer.limit_train_batches, trainer.val_check_interval
        batches = len(self.train_dataloader())
        batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
        every = max(1, int(batches * interval)) if isinstance(interval, float) else interval
        if batches % every:
            raise UserError(
                f"trainer.val_check_interval={interval}: an epoch has {batches} batches, and its last "
                f"validation should be at its end. Choose a number of batches that divides {batches}."
            )

    def _read(self, source: Source, train: bool) -> Batch:
        return self._converted(source, *source.read(self.dir, train))

    def _converted(self, source: Source, images: Tensor, targets: Tensor) -> Batch:
        known = source.classes(self.dir)
        name = f"{'data.extra=' if source is self.extra else ''}{type(source).__name__}"
        _check_images(images, targets, name)
        if known is not None and known != self.classes:
            targets = self._by_name(targets, known, name)
        if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < self.num_classes:
            raise UserError(
                f"{name} has targets from {int(targets.min())} to {int(targets.max())}, "
                f"but data.num_classes={self.num_classes}. Targets begin with 0: subtract 1 from each if "
                f"none is 0, otherwise set data.num_classes={int(targets.max()) + 1}."
            )
        # as `Preparation` does with image files
        enlarge = self.prepare == "resize"
        return convert(images, self.in_channels, self.image_size, enlarge), targets

    def _by_name(self, targets: Tensor, known: Sequence[str], source: str) -> Tensor:
        """Return the targets (N,) by `self.classes` instead of by the classes that the source knows."""
        unknown = [name for name in known if name not in self.classes]
        if unknown:
            raise UserError(
                f"{source} holds the class {unknown[0]}, which is not among data.classes: "
                f"{', '.join(self.classes)}."
            )
        return torch.tensor([self.classes.index(name) for name in known])[targets]

    def describe_sizes(self) -> str:
        """Return how many images each part has."""
        return ", ".join(f"{len(part):,} {name}" for name, part in self.parts().items() if len(part))

    def describe_classes(self) -> str:
        """Return the names of the classes, of many the first and last, and how many images each has."""
        targets = torch.cat([part.targets for part in self.parts().values()])
        counts = torch.bincount(targets, minlength=self.num_classes)
        named = [f"{name} ({count:,})" for name, count in zip(self.classes, counts.tolist(), strict=True)]
        if len(named) > 7:
            named[4:-2] = ["…"]
        return f"{self.num_classes}: {', '.join(named)}"

    def parts(self) -> dict[str, ImagesInMemory]:
        """Return the training, validation and test images by name; call `setup` first."""
        return {"train": self.train, "validation": self.val, "test": self.test}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled batches; the order is a function of seed, epoch and rank."""
        rank, world_size = self._rank()
        sampler = DistributedSampler[Batch](self.train, world_size, rank, seed=self.seed)
        return TrainLoader(self.train, self.batch_size, sampler=sampler)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return the validation images in order; no loader if `val_size` is 0."""
        return self._evaluation_loader(self.val) if len(self.val) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test images in order."""
        return self._evaluation_loader(self.test)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test images in order."""
        return self.test_dataloader()

    def _evaluation_loader(self, dataset: ImagesInMemory) -> DataLoader[Batch]:
        sampler = rank_indices(len(dataset), *self._rank())
        # Lightning makes the loader again for predictions, from arguments by name.
        return DataLoader(dataset, batch_size=EVAL_BATCH_SIZE, sampler=sampler, collate_fn=_unchanged)

    def _rank(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalize a batch on the device that it was moved to; in training, augment it before."""
        images, targets = batch
        scaled = _scale(images)
        if self.augment is not None and self.trainer is not None and self.trainer.training:
            scaled = self.augment(scaled)
        return self._standardize(scaled), targets

    def normalize(self, images: Tensor) -> Tensor:
        """Return uint8 images (B, C, H, W) as float32, channels last, normalized by `mean` and `std`."""
        return self._standardize(_scale(images))

    def _standardize(self, images: Tensor) -> Tensor:
        # They are copied to the device of the first batch, and stay there.
        self.mean, self.std = self.mean.to(images.device), self.std.to(images.device)
        return images.sub(self.mean).div_(self.std)  # an augmentation may return a tensor that it keeps


def _scale(images: Tensor) -> Tensor:
    """Return uint8 images (B, C, H, W) as float32 in [0, 1], channels last."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def _mixed(images: Tensor, targets: Tensor) -> Batch:
    """Return images that lie class by class in another order, always the same; others as they are.

    Without this the first batches, which `trainer.limit_test_batches` takes, hold the first classes only.
    """
    if len(targets.unique_consecutive()) > len(targets.unique()):
        return images, targets
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    return images[order], targets[order]


def _per_channel(value: float | Sequence[float], channels: int, setting: str) -> Tensor:
    """Return a number as a tensor (), and a list as a tensor (channels, 1, 1), both float32."""
    if isinstance(value, int | float):
        return torch.tensor(float(value))
    if len(value) != channels:
        raise UserError(
            f"{setting}={list(value)} has {len(value)} values, but data.in_channels={channels}: "
            "give one number, or a list with one for each channel."
        )
    return torch.tensor(list(value), dtype=torch.float32).view(-1, 1, 1)


def _black_and_white(values: Sequence[float] | None) -> GreyValues | None:
    if values is None:
        return None
    if len(values) != 2 or not values[0] < values[1]:
        raise UserError(f"data.grey_values={list(values)}: give black and white, as in [0, 4095], or null.")
    return float(values[0]), float(values[1])


def _check_images(images: Tensor, targets: Tensor, name: str) -> None:
    """Raise `UserError` unless a source returned what it should."""
    images_fit = images.dim() == 4 and images.shape[1] in (1, 3) and images.dtype == torch.uint8
    if not images_fit or targets.shape != images.shape[:1] or targets.dtype != torch.int64:
        raise UserError(
            f"{name} gives images {images.dtype} {tuple(images.shape)} and targets {targets.dtype} "
            f"{tuple(targets.shape)}. Expected images torch.uint8 (N, C, H, W) with 1 or 3 channels and "
            "targets torch.int64 (N,)."
        )


def _unchanged(batch: Any) -> Any:
    """Return the batch as `ImagesInMemory.__getitems__` has made it."""
    return batch
