from pathlib import Path

import pytest
import torch

from mnist_cnn.errors import UserError
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.ensembles import load_ensemble
from tests.inference.checkpoint import write_checkpoint

IMAGES = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_single_checkpoint_without_shifts_is_the_network_itself(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(
        load_ensemble([path], shifts=False)(IMAGES), Classifier.load_from_checkpoint(path)(IMAGES)
    )


@torch.no_grad()
def test_probabilities_of_the_checkpoints_are_averaged(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a.ckpt")
    ensemble = load_ensemble([path, path], shifts=False)
    torch.testing.assert_close(
        ensemble(IMAGES).softmax(1), Classifier.load_from_checkpoint(path)(IMAGES).softmax(1)
    )
    assert ensemble.network.image_size == 28
    shifted = load_ensemble([path], shifts=True)
    assert not torch.allclose(shifted(IMAGES).softmax(1), ensemble(IMAGES).softmax(1), atol=1e-6)


def test_probabilities_and_other_outputs_are_not_averaged(tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "b.ckpt", loss="torch.nn.MSELoss")
    with pytest.raises(UserError, match=r"b\.ckpt cannot be averaged with .*loss=mse"):
        load_ensemble([write_checkpoint(tmp_path / "a.ckpt"), other], shifts=False)


def test_checkpoints_for_other_images_are_not_averaged(tmp_path: Path) -> None:
    paths = [write_checkpoint(tmp_path / "a.ckpt"), write_checkpoint(tmp_path / "b.ckpt", channels=3)]
    with pytest.raises(UserError, match=r"b\.ckpt cannot be averaged with"):
        load_ensemble(paths, shifts=False)
