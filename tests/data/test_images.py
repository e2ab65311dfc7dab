"""Images brought to the channels and the size of a network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_cnn.data import images as module
from mnist_cnn.data.images import convert
from mnist_cnn.preparation.prepare import Preparation


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_convert_leaves_fitting_images_alone() -> None:
    images = noise(3, 1, 28, 28)
    assert convert(images, channels=1, size=28) is images


def test_convert_pads_smaller_images_with_zeros() -> None:
    images = noise(3, 1, 28, 27)
    padded = convert(images, channels=1, size=32)
    assert padded.shape == (3, 1, 32, 32)
    assert torch.equal(padded[:, :, 2:30, 2:29], images)
    assert int(padded.sum()) == int(images.sum())


@pytest.mark.parametrize("shape", [(28, 28), (20, 40), (64, 64)])
def test_convert_that_enlarges_gives_what_a_file_of_the_image_gives(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    pixels = np.add.outer(4 * np.arange(shape[0]), 3 * np.arange(shape[1])).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = Preparation("resize", channels=1, size=32).read(tmp_path / "a.png").images
    converted = convert(torch.from_numpy(pixels)[None, None], 1, 32, enlarge=True).numpy()
    assert np.abs(converted.astype(int) - read.astype(int))[..., 2:30, 2:30].mean() < 2


def test_convert_repeats_grey_to_three_channels() -> None:
    images = noise(3, 1, 28, 28)
    assert torch.equal(convert(images, channels=3, size=28), images.repeat(1, 3, 1, 1))


def test_convert_reduces_colour_to_luma() -> None:
    images = noise(3, 3, 28, 28)
    luma = convert(images, channels=1, size=28)
    expected = [Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L") for image in images]
    assert luma.shape == (3, 1, 28, 28) and luma.dtype == torch.uint8
    assert np.abs(luma[:, 0].numpy().astype(int) - np.stack(expected).astype(int)).max() <= 1


def test_convert_resizes_larger_images_with_antialiasing() -> None:
    stripes = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 200  # without antialiasing: 0 or 200
    resized = convert(stripes, channels=1, size=16)
    assert resized.shape == (1, 1, 16, 16)
    assert (resized.float() - 100).abs().max() < 20


def test_convert_keeps_proportions_of_larger_images() -> None:
    resized = convert(torch.full((1, 3, 64, 32), 255, dtype=torch.uint8), channels=3, size=32)
    assert resized.shape == (1, 3, 32, 32)
    assert int(resized[..., 9:23].min()) == 255
    assert int(resized[..., :7].max()) == int(resized[..., 25:].max()) == 0


def test_convert_in_chunks_equals_convert_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(10, 3, 40, 40)
    at_once = convert(images, channels=1, size=32)
    monkeypatch.setattr(module, "CHUNK", 4)
    assert torch.equal(convert(images, channels=1, size=32), at_once)
