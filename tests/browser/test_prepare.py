"""The page brings a drawing to the form of MNIST's as predict.py does."""

import base64
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from mnist_cnn.preparation import digits
from tests.browser.conftest import Browser

pytestmark = pytest.mark.xdist_group("browser")

DRAWINGS, DOTS = 60, 40
GREY_LEVELS = 3  # of 255: Python computes in float32, JavaScript in float64


def random_ink(seed: int) -> np.ndarray:
    """Return a drawing of one to three strokes, uint8 (H, W), of random size, width and blur."""
    random = np.random.default_rng(seed)
    height, width = random.integers(40, 300, 2)
    image = Image.new("L", (int(width), int(height)))
    pen = ImageDraw.Draw(image)
    for _ in range(random.integers(1, 4)):
        points = np.cumsum(random.normal(0, 0.15, (random.integers(3, 8), 2)), axis=0) + random.uniform(
            0.2, 0.8, 2
        )
        places = [(float(x * width), float(y * height)) for x, y in points.clip(0.02, 0.98)]
        thickness = int(random.integers(1, 40))
        pen.line(places, fill=int(random.integers(60, 256)), width=thickness, joint="curve")
        x, y = places[0]
        pen.ellipse((x - thickness / 2, y - thickness / 2, x + thickness / 2, y + thickness / 2), fill=255)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(float(random.uniform(0, 2)))))


def dot(seed: int) -> np.ndarray:
    """Return a dot, uint8 (H, W), of random place, size and blur: its centre is between two pixels."""
    random = np.random.default_rng(seed)
    diameter = int(random.integers(1, 60))
    left, top = random.integers(10, 100, 2).tolist()
    image = Image.new("L", (200, 180))
    ImageDraw.Draw(image).ellipse((left, top, left + diameter, top + diameter), fill=255)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(float(random.uniform(0, 2)))))


@pytest.fixture
def prepare(browser: Browser, tmp_path: Path) -> Callable[[np.ndarray], np.ndarray | None]:
    """Return the page's function for a drawing, uint8 (H, W)."""
    source = (files("mnist_cnn.export") / "page" / "prepare.js").read_text()
    (tmp_path / "page.html").write_text(f"<script>{source}</script>")
    browser.open((tmp_path / "page.html").as_uri())
    script = """
      const [height, width, text] = arguments;
      const ink = newImage(height, width);
      ink.data = Float32Array.from(atob(text), (letter) => letter.charCodeAt(0) / 255);
      const digit = toMnistForm(ink);
      return digit && Array.from(digit);
    """

    def run(ink: np.ndarray) -> np.ndarray | None:
        digit = browser.run(script, *ink.shape, base64.b64encode(ink.tobytes()).decode())
        return digit and np.reshape(digit, (28, 28))

    return run


def test_drawings_become_the_same_images_as_in_python(prepare: Callable) -> None:
    drawings = [*map(random_ink, range(DRAWINGS)), *map(dot, range(DOTS))]
    for number, ink in enumerate(drawings):
        expected = digits.to_mnist_form(ink.astype(np.float32) / 255)
        difference = np.abs(prepare(ink) - expected.astype(int))
        assert difference.max() <= GREY_LEVELS, (number, int(difference.max()))


def test_a_drawing_without_ink_is_none(prepare: Callable) -> None:
    assert prepare(np.zeros((10, 20), np.uint8)) is None
