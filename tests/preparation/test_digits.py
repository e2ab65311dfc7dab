"""One clean digit in MNIST's form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cnn.preparation.digits import dilate, resize, stroke_width, to_mnist_form
from tests.preparation.drawing import FIVE, ONE, SEVEN, ZERO, difference, draw

DIGITS = {"0": ZERO, "1": ONE, "5": FIVE, "7": SEVEN}


@pytest.mark.parametrize("name", DIGITS)
@pytest.mark.parametrize("size", [16, 28, 100, 700])
def test_digit_is_20_pixels_long_and_its_mass_is_centred(name: str, size: int) -> None:
    image = to_mnist_form(draw(DIGITS[name], size))
    assert image.shape == (28, 28)
    assert image.dtype == np.uint8
    rows, columns = np.nonzero(image)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    for index in (rows, columns):
        mass = image[rows, columns].astype(float)
        assert abs((index + 0.5) @ mass / mass.sum() - 14.5) <= 0.51
    assert image.max() == 255


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(0, 60)] * 4), st.sampled_from(list(DIGITS)))
def test_position_in_the_image_does_not_matter(margins: tuple[int, int, int, int], name: str) -> None:
    ink = draw(DIGITS[name], 60)
    top, bottom, left, right = margins
    moved = np.pad(ink, ((top, bottom), (left, right)))
    np.testing.assert_array_equal(to_mnist_form(moved), to_mnist_form(ink))


@settings(max_examples=15, deadline=None)
@given(st.integers(40, 400), st.sampled_from(["0", "5", "7"]))  # the width of a 1 is rounded to whole pixels
def test_size_of_the_image_hardly_matters(size: int, name: str) -> None:
    reference = to_mnist_form(draw(DIGITS[name], 280))
    assert difference(to_mnist_form(draw(DIGITS[name], size)), reference) < 0.3


def test_brightness_of_the_ink_does_not_matter() -> None:
    ink = draw(FIVE)
    np.testing.assert_array_equal(to_mnist_form(ink * 0.25), to_mnist_form(ink))


@pytest.mark.parametrize("width", [0.01, 0.03, 0.06])
def test_thin_strokes_become_as_wide_as_those_of_mnist(width: float) -> None:
    image = to_mnist_form(draw(FIVE, 280, width))
    assert 1.6 < stroke_width(image / np.float32(255)) < 2.6


def test_thick_strokes_become_thinner() -> None:
    thick = draw(SEVEN, 280, 0.26)
    before = 20 / 280 / 0.9 * stroke_width(thick)
    assert before > 4
    assert stroke_width(to_mnist_form(thick) / np.float32(255)) < before - 0.8


def test_line_without_width_or_height_and_single_pixel_are_kept() -> None:
    for shape in ((1, 50), (50, 1), (1, 1)):
        assert to_mnist_form(np.ones(shape, np.float32)).max() == 255


@pytest.mark.parametrize("size", [1, 3, 20, 37, 113])
def test_rounding_errors_do_not_move_a_symmetric_digit(size: int) -> None:
    random = np.random.default_rng(0)
    for _ in range(10):
        ink = (1 - random.uniform(0, 1e-6, (size, size))).astype(np.float32)
        rows, columns = np.nonzero(to_mnist_form(ink))
        assert (rows.min(), columns.min()) == (4, 4)


def test_image_without_ink_is_refused() -> None:
    for shape in ((20, 20), (0, 0)):
        with pytest.raises(ValueError, match="no ink"):
            to_mnist_form(np.zeros(shape, np.float32))


def test_resize_averages_areas_and_interpolates_lines() -> None:
    image = np.array([[0, 1, 2, 3, 4, 5]], np.float32)
    np.testing.assert_allclose(resize(image, 1, 3), [[0.5, 2.5, 4.5]])
    np.testing.assert_allclose(resize(image, 1, 4), [[1 / 3, 5 / 3, 10 / 3, 14 / 3]], rtol=1e-6)
    np.testing.assert_allclose(resize(image[:, :2], 1, 4), [[0, 0.25, 0.75, 1]])
    np.testing.assert_array_equal(resize(image, 1, 6), image)


def test_stroke_width_of_bars() -> None:
    bar = np.zeros((200, 60), np.float32)
    bar[10:190, 20:28] = 1
    assert stroke_width(bar) == pytest.approx(8, rel=0.06)
    ring = draw(ZERO, 300, 0.05)
    assert stroke_width(ring) == pytest.approx(15, rel=0.08)


def test_dilation_is_by_a_disk() -> None:
    image = np.zeros((7, 7), np.float32)
    image[3, 3] = 1
    y, x = np.mgrid[-3:4, -3:4]
    np.testing.assert_array_equal(dilate(image, 2.5), x**2 + y**2 <= 2.5**2)
