"""The split, the order of the images, and what a batch is."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mnist_cnn.data import ImageData
from mnist_cnn.data.datamodule import ImagesInMemory, share_of_rank, stratified_split
from mnist_cnn.errors import UserError
from tests.conftest import make_data


@given(
    targets=st.lists(st.integers(0, 4), min_size=2, max_size=200).map(torch.tensor),
    share=st.floats(0, 0.99),
    seed=st.integers(0, 3),
)
def test_the_split_is_a_partition_with_each_class_in_proportion(
    targets: Tensor, share: float, seed: int
) -> None:
    val_size = int(share * len(targets))
    train, val = stratified_split(targets, val_size, seed)
    assert len(val) == val_size
    assert torch.cat([train, val]).sort().values.tolist() == list(range(len(targets)))
    for label in targets.unique():
        exact = float((targets == label).sum()) * val_size / len(targets)
        assert abs(int((targets[val] == label).sum()) - exact) < 1


def test_the_split_is_a_function_of_its_seed() -> None:
    targets = torch.arange(1000) % 10
    first, again, other = (stratified_split(targets, 100, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_a_validation_split_of_everything_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.val_size=10 leaves no training images"):
        stratified_split(torch.zeros(10, dtype=torch.long), 10, seed=0)


@given(st.integers(0, 50), st.integers(1, 7))
def test_the_ranks_evaluate_every_image_once(length: int, world_size: int) -> None:
    shares = [share_of_rank(length, rank, world_size) for rank in range(world_size)]
    assert sorted(index for share in shares for index in share) == list(range(length))


def test_a_batch_from_memory_is_what_its_images_are_one_by_one() -> None:
    images = torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1).expand(10, 1, 28, 28)
    dataset = ImagesInMemory(images, torch.arange(10))
    batch, targets = dataset.__getitems__([7, 2, 2])
    assert targets.tolist() == [7, 2, 2]
    assert torch.equal(batch, torch.stack([dataset[i][0] for i in (7, 2, 2)]))


def order(data: ImageData, epoch: int) -> list[int]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(loader.sampler)


def test_the_order_of_the_images_is_a_function_of_seed_and_epoch(small_data: ImageData) -> None:
    first = order(small_data, epoch=0)
    assert sorted(first) == list(range(96))
    assert first == order(small_data, epoch=0) != order(small_data, epoch=1)
    small_data.seed = 1
    assert order(small_data, epoch=0) != first


def test_an_epoch_drops_no_image(small_data: ImageData) -> None:
    small_data.batch_size = 20
    assert [len(targets) for _, targets in small_data.train_dataloader()] == [20, 20, 20, 20, 16]
    assert sum(len(targets) for _, targets in small_data.test_dataloader()) == 37


def test_pixels_are_scaled_to_minus_one_and_one_and_channels_come_last(small_data: ImageData) -> None:
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 1, 28, 28)
    images, targets = small_data.on_after_batch_transfer((pixels, torch.arange(3)), 0)
    assert images.dtype == torch.float32
    assert images[:, 0, 5, 5].tolist() == pytest.approx([-1.0, 1.0, -0.6])
    assert images.expand(3, 2, 28, 28).shape == (3, 2, 28, 28)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert targets.tolist() == [0, 1, 2]


def test_mnist_is_split_and_padded_with_black(mnist: Path) -> None:
    data = make_data(mnist, val_size=5000, image_size=32)
    data.prepare_data()
    data.setup()
    train, val, test = data.parts().values()
    assert (len(train), len(val), len(test)) == (55_000, 5_000, 10_000)
    assert train.images.shape[1:] == (1, 32, 32)
    assert train.images.dtype == torch.uint8
    assert int(train.images[:, :, :2].max()) == 0
    assert int(train.images[:, :, 2:-2, 2:-2].max()) == 255
    # 60,000 images hold 5,421 (of "5") to 6,742 (of "1") of a class
    assert torch.bincount(val.targets).tolist() == [494, 562, 496, 511, 487, 452, 493, 522, 487, 496]


def test_no_validation_leaves_all_images_and_no_loader(mnist: Path) -> None:
    data = make_data(mnist, val_size=0)
    data.setup()
    assert len(data.parts()["train"]) == 60_000
    assert data.val_dataloader() == []


def test_no_test_image_is_trained_on(mnist: Path) -> None:
    data = make_data(mnist, val_size=0)
    data.setup()
    parts = data.parts()
    seen = {bytes(image) for image in parts["train"].images.numpy()}
    shared = [image for image in parts["test"].images.numpy() if bytes(image) in seen]
    assert shared == []


def test_a_network_for_smaller_images_is_refused(mnist: Path) -> None:
    with pytest.raises(UserError, match="wants 20x20 images, but those of mnist are 28x28"):
        make_data(mnist, image_size=20).setup()
