from pathlib import Path

import pytest
import torch

from mnist_cnn.data.corruptions import CORRUPTIONS, CorruptedMNIST
from mnist_cnn.data.idx import MNIST


@pytest.fixture(scope="module")
def digits(mnist: Path) -> torch.Tensor:
    return MNIST().read(mnist, train=True)[0][:50].float() / 255


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_changes_each_image_by_its_generator_alone(name, digits):
    def corrupted(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)  # must not matter
        return CORRUPTIONS[name](digits, torch.Generator().manual_seed(1))

    first = corrupted(0)
    assert first.shape == digits.shape
    assert first.dtype == torch.float32
    assert torch.equal(first, corrupted(5))
    assert (first - digits).abs().amax((1, 2, 3)).min() > 0.2


def test_parts_are_the_test_images_clean_and_corrupted(monkeypatch):
    images, targets = torch.randint(256, (5, 1, 28, 28), dtype=torch.uint8), torch.arange(5)
    monkeypatch.setattr(MNIST, "read", lambda self, directory, train: (images, targets))
    source = CorruptedMNIST()
    corrupted, repeated = source.read(Path(), train=False)
    assert source.parts == ["clean", *CORRUPTIONS]
    assert len(source.parts) == 16
    assert corrupted.shape == (80, 1, 28, 28)
    assert corrupted.dtype == torch.uint8
    assert torch.equal(corrupted[:5], images)
    assert torch.equal(repeated, targets.repeat(16))
    assert torch.equal(source.read(Path(), train=True)[0], images)
