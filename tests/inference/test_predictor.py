"""The network of a checkpoint applied to files, in the form that it was trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_cnn.data.images import convert
from mnist_cnn.inference.digits import to_mnist_form
from mnist_cnn.inference.predictor import Predictor
from mnist_cnn.training.checkpoints import load_classifier
from tests.conftest import make_data
from tests.inference.checkpoint import write_checkpoint
from tests.inference.drawing import FIVE, ONE, draw


@pytest.mark.parametrize(
    ("model", "channels", "size", "given"),
    [("SimpleCNN", 1, 28, (1, 28)), ("CnnNet", 1, 32, (1, 32)), ("CnnNet", 3, 32, (3, 32))],
)
def test_scores_are_those_of_the_network_on_normalized_images(
    model: str, channels: int, size: int, given: tuple[int, int], tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path / "a.ckpt", model, channels)
    images = torch.randint(256, (7, 1, 28, 28), dtype=torch.uint8)
    scores = Predictor.load(path).scores(images)
    classifier = load_classifier(path)
    normalized = make_data(image_size=size).normalize(convert(images, *given))
    with torch.no_grad():
        expected = classifier(normalized).softmax(1)
    torch.testing.assert_close(scores, expected)


def test_outputs_of_a_regression_are_not_made_probabilities(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a.ckpt", loss="mnist_cnn.training.losses.OneHotMSELoss")
    scores = Predictor.load(path).scores(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    assert not torch.allclose(scores.sum(1), torch.ones(2))


def test_files_are_read_in_order_and_errors_belong_to_their_file(tmp_path: Path) -> None:
    for name, strokes in (("1.png", ONE), ("5.png", FIVE)):
        Image.fromarray(np.rint(255 * draw(strokes)).astype(np.uint8)).save(tmp_path / name)
    (tmp_path / "none.png").write_text("no image")
    files = [tmp_path / name for name in ("5.png", "none.png", "1.png")]
    predictor = Predictor.load(write_checkpoint(tmp_path / "a.ckpt"))
    five, none, one = predictor.read(files)
    np.testing.assert_allclose(five.digits[0, 0], to_mnist_form(draw(FIVE)), atol=1)  # the file has 8 bits
    torch.testing.assert_close(one.scores, predictor.scores(torch.from_numpy(one.digits)))
    assert none.error is not None and "not an image" in none.error
    assert len(none.digits) == len(none.scores) == 0
    assert five.error is None
    assert predictor.read([]) == []
