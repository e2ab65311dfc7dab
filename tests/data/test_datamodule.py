"""Reading a source into memory, the order of the images, and batches on the device."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mnist_cnn.data import ImageData, Source
from mnist_cnn.data.datamodule import ImagesInMemory, rank_indices
from mnist_cnn.data.strokes import EuropeanDigits
from mnist_cnn.errors import UserError
from tests.conftest import make_data


class Noise(Source):
    """A source of one's own: images of noise, three classes in turn."""

    def __init__(self, *shape: int, names: list[str] | None = None) -> None:
        self.shape = shape or (1, 28, 28)
        self.names = names
        self.images_dtype, self.targets_dtype = torch.uint8, torch.int64

    def fetch(self, directory: Path) -> str:
        return f"noise in {directory}"

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        count = 60 if train else 12
        generator = torch.Generator().manual_seed(int(train))
        images = torch.randint(256, (count, *self.shape), generator=generator, dtype=torch.uint8)
        return images.to(self.images_dtype), (torch.arange(count) % 3).to(self.targets_dtype)

    def classes(self, directory: Path) -> list[str] | None:
        return self.names


def make_noise_data(source: Source | None = None, **changed: Any) -> ImageData:
    settings = {"dir": "nowhere", "batch_size": 16, "val_size": 0.1, "mean": 0.5, "std": 0.5}
    settings |= {"in_channels": 1, "image_size": 28, "num_classes": 3, "classes": None}
    return ImageData(source or Noise(), **(settings | changed))


def ready(data: ImageData) -> ImageData:
    data.prepare_data()
    data.setup()
    return data


# --- Reading -------------------------------------------------------------------------------------


def test_mnist_is_split_and_padded_with_zeros(mnist: Path) -> None:
    data = ready(make_data(mnist, val_size=5000, image_size=32))
    train, val, test = data.parts().values()
    assert (len(train), len(val), len(test)) == (55_000, 5_000, 10_000)
    assert train.images.shape[1:] == (1, 32, 32)
    assert train.images.dtype == torch.uint8
    assert int(train.images[:, :, :2].max()) == 0
    assert int(train.images[:, :, 2:-2, 2:-2].max()) == 255
    # 60,000 images hold 5,421 (of "5") to 6,742 (of "1") of a class
    assert torch.bincount(val.targets).tolist() == [494, 562, 496, 511, 487, 452, 493, 522, 487, 496]
    assert data.source_label.endswith("(checksums verified)")


def test_mnist_tests_no_training_image(mnist: Path) -> None:
    parts = ready(make_data(mnist, val_size=0)).parts()
    assert len(parts["train"]) == 60_000
    seen = {bytes(image) for image in parts["train"].images.numpy()}
    assert [image for image in parts["test"].images.numpy() if bytes(image) in seen] == []


def test_without_validation_there_is_no_loader() -> None:
    data = ready(make_noise_data(val_size=0))
    assert not data.val
    assert len(data.parts()["train"]) == 60
    assert data.val_dataloader() == []


def test_extra_images_are_trained_on_by_the_names_of_their_classes() -> None:
    plain = ready(make_noise_data(classes=["0", "7", "1"]))
    data = ready(make_noise_data(classes=["0", "7", "1"], extra=EuropeanDigits(count=5)))
    assert [len(part) for part in data.parts().values()] == [54 + 10, 6, 12]
    assert data.train.targets[54:].tolist() == 5 * [2] + 5 * [1]
    assert torch.equal(data.train.images[:54], plain.train.images)
    assert torch.equal(data.val.images, plain.val.images)
    assert data.source_label == "noise in nowhere, and 5 drawn ones and sevens each to train on"


def test_extra_images_of_another_class_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"data\.extra=EuropeanDigits holds the class 1, which is not among data\.classes"
    ):
        make_noise_data(classes=["0", "7", "2"], extra=EuropeanDigits(count=5)).setup()


@pytest.mark.parametrize("shape", [(1, 20, 24), (3, 32, 32), (1, 28, 28)])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_source_of_any_shape_is_converted(shape: tuple[int, int, int], in_channels: int) -> None:
    data = ready(make_noise_data(Noise(*shape), in_channels=in_channels, image_size=28))
    assert [len(part) for part in data.parts().values()] == [54, 6, 12]
    for part in data.parts().values():
        assert part.images.shape[1:] == (in_channels, 28, 28)
        assert part.images.dtype == torch.uint8
        assert part.targets.dtype == torch.int64
    assert (data.name, data.source_label) == ("Noise", "noise in nowhere")


@pytest.mark.parametrize(
    ("shape", "images", "targets"),
    [
        ((28, 28), torch.uint8, torch.int64),
        ((2, 28, 28), torch.uint8, torch.int64),
        ((1, 28, 28), torch.float32, torch.int64),
        ((1, 28, 28), torch.uint8, torch.uint8),
    ],
)
def test_source_with_a_wrong_shape_or_dtype_is_refused(
    shape: tuple[int, ...], images: torch.dtype, targets: torch.dtype
) -> None:
    source = Noise(*shape)
    source.images_dtype, source.targets_dtype = images, targets
    with pytest.raises(UserError, match=r"Noise gives images .* Expected images torch\.uint8 \(N, C, H, W\)"):
        make_noise_data(source).setup()


def test_in_channels_other_than_1_and_3_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.in_channels=2: images have 1 channel"):
        make_noise_data(in_channels=2)


class Sorted(Noise):
    """Images of noise, class by class."""

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        images, targets = super().read(directory, train)
        return images, targets.sort().values

    def read_validation(self, directory: Path) -> tuple[Tensor, Tensor] | None:
        return self.read(directory, train=False) if self.names else None


@pytest.mark.parametrize("names", [None, ["0", "1", "2"]])
def test_evaluation_images_that_lie_class_by_class_are_mixed(names: list[str] | None) -> None:
    source = Sorted(names=names)
    data, again = (ready(make_noise_data(source, val_size=0.2)).parts() for _ in range(2))
    images, targets = source.read(Path(), train=False)
    for part in ("validation", "test"):
        found = data[part].targets
        assert len(found[:4].unique()) > 1
        assert torch.equal(found.sort().values, targets)
        assert torch.equal(found, again[part].targets)
    labels = {bytes(image.numpy()): int(label) for image, label in zip(images, targets, strict=True)}
    assert [labels[bytes(image.numpy())] for image in data["test"].images] == data["test"].targets.tolist()


def test_other_evaluation_images_stay_in_their_order() -> None:
    data = ready(make_noise_data()).parts()
    assert torch.equal(data["test"].images, Noise().read(Path(), train=False)[0])


# --- Classes -------------------------------------------------------------------------------------


def test_classes_are_named_by_settings_or_number() -> None:
    assert make_noise_data().classes == ["0", "1", "2"]
    assert make_noise_data(classes=["a", "b", "c"], num_classes=None).num_classes == 3


def test_unknown_number_of_classes_is_refused() -> None:
    with pytest.raises(UserError, match=r"set data\.num_classes or data\.classes"):
        make_noise_data(num_classes=None)


def test_different_numbers_of_classes_and_names_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.num_classes=5, but there are 2 class names: a, b"):
        make_noise_data(num_classes=5, classes=["a", "b"])


def test_targets_out_of_range_are_refused() -> None:
    message = r"Noise has targets from 0 to 2, but data\.num_classes=2.*subtract 1 .*set data\.num_classes=3"
    with pytest.raises(UserError, match=message):
        make_noise_data(num_classes=2).setup()


def test_targets_follow_the_class_names() -> None:
    data = ready(make_noise_data(Noise(names=["a", "b", "c"]), num_classes=4, classes=["c", "b", "x", "a"]))
    assert data.parts()["test"].targets.tolist() == [3, 1, 0] * 4


def test_class_without_a_name_is_refused() -> None:
    data = make_noise_data(Noise(names=["a", "b", "c"]), classes=["a", "b", "d"])
    with pytest.raises(UserError, match=r"holds the class c, which is not among data\.classes: a, b, d"):
        data.setup()


# --- Batches -------------------------------------------------------------------------------------


@given(st.integers(0, 50), st.integers(1, 7))
def test_rank_indices_cover_every_image_once(length: int, world_size: int) -> None:
    shares = [rank_indices(length, rank, world_size) for rank in range(world_size)]
    assert sorted(index for share in shares for index in share) == list(range(length))


def test_batch_from_memory_equals_its_single_images() -> None:
    images = torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1).expand(10, 1, 28, 28)
    dataset = ImagesInMemory(images, torch.arange(10))
    batch, targets = dataset.__getitems__([7, 2, 2])
    assert targets.tolist() == [7, 2, 2]
    assert torch.equal(batch, torch.stack([dataset[i][0] for i in (7, 2, 2)]))


def order(data: ImageData, epoch: int) -> list[int]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(loader.sampler)


def test_training_order_is_a_function_of_seed_and_epoch(small_data: ImageData) -> None:
    first = order(small_data, epoch=0)
    assert sorted(first) == list(range(96))
    torch.manual_seed(1)
    assert first == order(small_data, epoch=0) != order(small_data, epoch=1)
    small_data.seed = 1
    assert order(small_data, epoch=0) != first


def test_epoch_drops_no_image(small_data: ImageData) -> None:
    small_data.batch_size = 20
    assert [len(targets) for _, targets in small_data.train_dataloader()] == [20, 20, 20, 20, 16]
    assert sum(len(targets) for _, targets in small_data.test_dataloader()) == 37


@pytest.mark.parametrize(
    ("size", "sizes"), [(19, [19, 19, 19, 19, 20]), (95, [96]), (97, [96]), (1, [1] * 96)]
)
def test_single_image_left_over_joins_the_batch_before(
    size: int, sizes: list[int], small_data: ImageData
) -> None:
    small_data.batch_size = size
    loader = small_data.train_dataloader()
    assert [len(targets) for _, targets in loader] == sizes
    assert len(loader) == len(sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_check_interval": 5}, "divides 12"),
        ({"val_check_interval": 0.5, "limit_train_batches": 5}, "an epoch has 5 batches"),
        ({"val_check_interval": 13}, "divides 12"),
    ],
)
def test_epoch_that_would_not_end_with_a_validation_is_refused(
    options: dict[str, Any], message: str, small_data: ImageData
) -> None:
    small_data.batch_size = 8
    small_data.trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **options
    )
    with pytest.raises(UserError, match=message):
        small_data.setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"limit_test_batches": 0.4},
            "limit_test_batches=0.4 leaves none of 1 batches: give 0, or a fraction",
        ),
        ({"limit_val_batches": 0.9}, "limit_val_batches=0.9 leaves none of 1"),
        ({"devices": 33, "strategy": "ddp"}, "33 processes cannot share .* val has 32: use fewer devices"),
    ],
)
def test_limits_that_leave_no_images_to_evaluate_are_refused(
    options: dict[str, Any], message: str, small_data: ImageData
) -> None:
    small_data.trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **options
    )
    with pytest.raises(UserError, match=message):
        small_data.setup()


def test_batches_are_normalized_and_channels_last(small_data: ImageData) -> None:
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 1, 28, 28)
    images, targets = small_data.on_after_batch_transfer((pixels, torch.arange(3)), 0)
    assert images.dtype == torch.float32
    assert images[:, 0, 5, 5].tolist() == pytest.approx([-1.0, 1.0, -0.6])
    assert images[:2, 0, 5, 5].tolist() == [-1.0, 1.0]
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert targets.tolist() == [0, 1, 2]


def test_channels_are_normalized_one_by_one() -> None:
    data = make_noise_data(in_channels=3, mean=[0.0, 0.5, 1.0], std=[1.0, 0.5, 0.25])
    images = data.normalize(torch.full((2, 3, 4, 4), 255, dtype=torch.uint8))
    assert images[1, :, 2, 2].tolist() == [1.0, 1.0, 0.0]
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("setting", "channels"), [("mean", 1), ("std", 3)])
def test_mean_and_std_of_another_length_are_refused(setting: str, channels: int) -> None:
    with pytest.raises(
        UserError, match=rf"data\.{setting}=\[0\.5, 0\.5\] has 2 values, .*in_channels={channels}"
    ):
        make_noise_data(in_channels=channels, **{setting: [0.5, 0.5]})


# --- Augmentation --------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_augmentation_is_applied_in_training_only(training: bool, small_data: ImageData) -> None:
    def shift_right(images: Tensor) -> Tensor:
        """It gets images from 0 to 1, and what it shifts in is background."""
        assert (float(images.min()), float(images.max())) == (0.0, 1.0)
        return nn.functional.pad(images, (2, 0))[..., :28]

    small_data.augment = shift_right
    small_data.trainer = Mock(training=training)
    batch = small_data.train[:32]
    images, _ = small_data.on_after_batch_transfer(batch, 0)
    expected = nn.functional.pad(batch[0], (2, 0))[..., :28] if training else batch[0]
    assert torch.equal(images, small_data.normalize(expected))
