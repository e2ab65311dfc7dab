"""Digits found in images as people make them."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mnist_cnn.data import MNIST
from mnist_cnn.preparation.digits import to_mnist_form
from mnist_cnn.preparation.finding import NothingFound, find_digits
from mnist_cnn.preparation.prepare import prepare_file
from tests.preparation.drawing import (
    FIVE,
    FIVE_WITH_DETACHED_BAR,
    ONE,
    SEVEN,
    ZERO,
    Points,
    difference,
    draw,
)

ALIKE = 0.35  # a difference from which on one would see that something is missing or added


def on_paper(ink: NDArray[Any], noise: float = 0.015, darkness: float = 0.6) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    return (0.8 * (1 - darkness * ink) + noise * rng.normal(size=ink.shape)).clip(0, 1).astype(np.float32)


def prepared(grey: NDArray[Any]) -> NDArray[Any]:
    images, _ = find_digits(grey.astype(np.float32))
    assert images.shape == (1, 1, 28, 28)
    assert images.dtype == np.uint8
    result: NDArray[Any] = images[0, 0]
    return result


def test_images_of_mnist_pass_through_unchanged_also_inverted(mnist: Path) -> None:
    images = MNIST().read(mnist, train=False)[0][:1000, 0].numpy()
    out = [prepared(image / np.float32(255)) for image in images]
    inverted = [prepared(1 - image / np.float32(255)) for image in images]
    same = [np.array_equal(a, b) for a, b in zip(images, out, strict=True)]
    assert np.mean(same) > 0.99
    np.testing.assert_array_equal(out, inverted)
    assert max(difference(a, b) for a, b in zip(images, out, strict=True)) < ALIKE


@settings(max_examples=12, deadline=None)
@given(st.tuples(*[st.integers(0, 200)] * 4), st.booleans())
def test_polarity_and_position_do_not_matter(margins: tuple[int, int, int, int], light: bool) -> None:
    top, bottom, left, right = margins
    canvas = np.pad(draw(FIVE), ((top, bottom), (left, right)))
    image = prepared(canvas if light else 1 - canvas)
    assert difference(image, to_mnist_form(draw(FIVE))) < 0.05


@pytest.mark.parametrize("strokes", [FIVE, SEVEN, ZERO, ONE])
@pytest.mark.parametrize("size", [16, 40, 150])
def test_scan_that_the_digit_fills_is_read_in_both_polarities(strokes: list[Points], size: int) -> None:
    ink = draw(strokes, size, 0.13)
    rows, columns = np.nonzero(ink > 0.3)
    tight = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    if strokes is ONE:
        tight = np.pad(tight, ((0, 0), (size // 4, size // 4)))
    expected = to_mnist_form(ink)
    for grey in (tight, 1 - tight, 0.1 + 0.5 * tight):
        assert difference(prepared(grey), expected) < ALIKE


def test_photograph_with_uneven_light_and_a_shadow() -> None:
    ink = np.pad(draw(FIVE, 120, 0.07), ((60, 140), (90, 180)))
    y, x = np.mgrid[0 : ink.shape[0], 0 : ink.shape[1]] / 320
    light = (1 - 0.5 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)) * np.where(x + 0.3 * y < 0.6, 0.6, 1)
    image = prepared(on_paper(ink) * ndimage.gaussian_filter(light, 2))
    assert difference(image, to_mnist_form(draw(FIVE, 120, 0.07))) < ALIKE


def test_steep_light_at_the_edge_does_not_change_the_polarity() -> None:
    ink = np.pad(draw(FIVE, 90, 0.07), ((170, 60), (250, 60)))
    y, x = np.mgrid[0 : ink.shape[0], 0 : ink.shape[1]] / 400
    light = 1 - 0.45 / (1 + np.exp((y - 0.9 * x) / 0.004))
    image = prepared(on_paper(ink, darkness=0.45) * light * (1 - 0.5 * (x - 0.4) ** 2))
    assert difference(image, to_mnist_form(draw(FIVE, 90, 0.07))) < ALIKE


def test_thick_stroke_is_no_ruled_line() -> None:
    ink = ndimage.gaussian_filter(np.pad(draw(ONE, 230, 0.08), 12), 2)
    image = prepared(on_paper(ink))
    assert difference(image, to_mnist_form(draw(ONE, 230, 0.08))) < 2 * ALIKE
    assert np.ptp(np.nonzero(image)[0]) + 1 == 20


def test_digit_of_several_parts_that_touches_the_edges_is_kept_whole() -> None:
    bowl = [(0.1, 0.6), (0.5, 0.5), (0.9, 0.7), (0.9, 0.97), (0.1, 0.97), (0.1, 0.6)]
    ink = draw([[(0.45, 0.05), (0.3, 0.3)], bowl], 16, 0.1)  # a 6 with a gap
    image = prepared(ink)
    assert difference(image, to_mnist_form(ink)) < ALIKE


@pytest.mark.parametrize("squared", [False, True])
def test_ruled_lines_are_removed(squared: bool) -> None:
    ink = np.pad(draw(FIVE, 160, 0.08), 80)
    y, x = np.mgrid[0 : ink.shape[0], 0 : ink.shape[1]]
    lines = ((y + 0.03 * x) % 45 < 2) | (squared & ((x - 0.03 * y) % 45 < 2))
    image = prepared(on_paper(ink) * (1 - 0.3 * lines))
    assert difference(image, to_mnist_form(draw(FIVE, 160, 0.08))) < ALIKE


def test_single_digit_is_the_only_one() -> None:
    ink = np.pad(draw(FIVE_WITH_DETACHED_BAR, 100, 0.08), 60)
    for _, others in (find_digits(on_paper(ink)), find_digits(to_mnist_form(ink) / np.float32(255))):
        assert others == 0


def test_thin_faint_scan_off_centre() -> None:
    ink = np.zeros((28, 28), np.float32)
    ink[8:27, 1:20] = draw(FIVE, 19, 0.06)
    image = prepared(on_paper(ink, noise=0.008, darkness=0.2))
    assert difference(image, to_mnist_form(draw(FIVE, 200, 0.06))) < 0.6
    assert image.max() == 255


def test_detached_bar_belongs_to_the_digit_and_specks_do_not() -> None:
    ink = np.pad(draw(FIVE_WITH_DETACHED_BAR, 200, 0.08), 100)
    expected = to_mnist_form(ink)
    for row, column in ((20, 30), (380, 350), (150, 90), (310, 200)):
        ink[row : row + 4, column : column + 4] = 1
    assert difference(prepared(on_paper(ink)), expected) < ALIKE


def test_page_edge_and_table_are_not_the_digit() -> None:
    page = np.pad(np.ones((300, 300)), 60)
    ink = np.pad(draw(FIVE, 100, 0.08), 160)
    image = prepared(on_paper(ink) * (0.25 + 0.75 * page))
    assert difference(image, to_mnist_form(draw(FIVE, 100, 0.08))) < ALIKE


@pytest.mark.parametrize("angle", [-7, 4])
def test_sheet_that_lies_turned_on_a_dark_noisy_table_is_not_the_digit(angle: float) -> None:
    page = np.pad(ndimage.rotate(np.ones((240, 240)), angle, order=1).clip(0, 1), 30)
    ink = np.zeros(page.shape, np.float32)
    ink[100:190, 120:210] = draw(FIVE, 90, 0.07)
    image = prepared(on_paper(ink, noise=0.02, darkness=0.5) * (0.25 + 0.75 * page))
    assert difference(image, to_mnist_form(draw(FIVE, 90, 0.07))) < ALIKE


def test_digits_are_split_left_to_right_and_line_by_line() -> None:
    lines = [[FIVE_WITH_DETACHED_BAR, ONE, ZERO], [SEVEN, FIVE, ONE]]
    ink = np.vstack([np.hstack([draw(strokes, 90, 0.08) for strokes in line]) for line in lines])
    ink = np.pad(ink, 30)
    images, others = find_digits(on_paper(ink), split=True)
    assert (images.shape, others) == ((6, 1, 28, 28), 0)
    images_of_one, others = find_digits(on_paper(ink))
    assert (images_of_one.shape, others) == ((1, 1, 28, 28), 5)
    for image, strokes in zip(images[:, 0], [s for line in lines for s in line], strict=True):
        assert difference(image, to_mnist_form(draw(strokes, 90, 0.08))) < ALIKE


def page_of_marks(lines: int) -> NDArray[Any]:
    return 1 - np.tile(np.pad(np.ones((4, 3), np.float32), 4), (lines, 40))


@pytest.mark.timeout(5)
def test_many_marks_are_counted_in_little_time() -> None:
    assert find_digits(page_of_marks(lines=40))[1] == 40 * 40 - 1


@pytest.mark.parametrize("split", [False, True])
def test_more_marks_than_could_be_digits_are_refused(split: bool) -> None:
    with pytest.raises(NothingFound, match="more than 2,000 marks"):
        find_digits(page_of_marks(lines=51), split)


@pytest.mark.parametrize("shape", [(1, 1), (28, 28), (300, 200)])
@pytest.mark.parametrize("noise", [0, 0.02])
def test_empty_page_holds_nothing(shape: tuple[int, int], noise: float) -> None:
    with pytest.raises(NothingFound):
        find_digits(on_paper(np.zeros(shape), noise))


@pytest.mark.parametrize("shape", [(112, 1), (7, 200), (1, 400), (5, 1200)])
def test_very_thin_image_holds_nothing(shape: tuple[int, int]) -> None:
    with pytest.raises(NothingFound, match="no digit found"):
        find_digits(on_paper(np.random.default_rng(0).random(shape), noise=0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60), st.booleans())
def test_any_image_gives_digits_or_nothing(seed: int, height: int, width: int, split: bool) -> None:
    grey = np.random.default_rng(seed).choice([0, 0.2, 0.9, 1], size=(height, width)).astype(np.float32)
    try:
        images, others = find_digits(grey, split)
    except NothingFound:
        return
    assert images.shape[1:] == (1, 28, 28)
    assert others >= 0
    assert images.max((1, 2, 3)).min() > 0


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("gap", [4, 12, 20])
def test_dash_before_a_digit_does_not_join_it(gap: int, split: bool) -> None:
    one = draw([[(0.5, 0.1), (0.5, 0.9)]], 150, 0.08)
    ink = np.pad(one, 60)
    left = int(np.nonzero(ink)[1].min()) - gap
    ink[130:141, left - 45 : left] = 1
    images, _ = find_digits(on_paper(ink), split)
    assert difference(images[0, 0], to_mnist_form(one)) < ALIKE
    assert len(images) == 1


# --- Empty paper ---------------------------------------------------------------------------------


def empty_page(seed: int) -> Image.Image:
    """Return a photograph or a scan of empty paper: a gradient, a vignette, grain, a fold, noise."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(100, 500, 2))
    y, x = np.mgrid[0:height, 0:width]
    down, across = y / height - 0.5, x / width - 0.5
    page = np.full((height, width), rng.uniform(0.4, 1))
    angle = rng.uniform(0, 2 * np.pi)
    page *= 1 + rng.choice([0, rng.uniform(0, 0.4)]) * (np.cos(angle) * across + np.sin(angle) * down)
    page *= 1 - rng.choice([0, rng.uniform(0, 0.8)]) * (across**2 + down**2)
    grain = ndimage.gaussian_filter(rng.normal(size=page.shape), rng.uniform(0.5, 3))
    page *= 1 + rng.choice([0, rng.uniform(0, 0.03)]) * grain / grain.std()
    distance = np.cos(angle) * across * width + np.sin(angle) * down * height
    page *= 1 - rng.choice([0, rng.uniform(0, 0.15)]) * np.exp(-0.5 * (distance / rng.uniform(1, 6)) ** 2)
    page += rng.choice([0, 0.01, 0.02]) * rng.normal(size=page.shape)
    return Image.fromarray(np.rint(page.clip(0, 1) * 255).astype(np.uint8))


def test_nothing_is_found_on_empty_paper(tmp_path: Path) -> None:
    found = []
    for seed in range(60):
        file = tmp_path / f"{seed}.{'jpg' if seed % 4 else 'png'}"
        empty_page(seed).save(file, **({"quality": 50 + 15 * (seed % 4)} if seed % 4 else {}))
        with suppress(NothingFound):
            prepare_file(file)
            found.append(seed)
    assert len(found) <= 1


@pytest.mark.parametrize("quality", [50, 85, 95])
@pytest.mark.parametrize("gradient", [0.1, 0.3, 0.4])
def test_nothing_is_found_in_a_soft_gradient(gradient: float, quality: int, tmp_path: Path) -> None:
    across = np.mgrid[0:300, 0:400][1] / 400
    page = (168 * (1 - gradient / 2 + gradient * across)[..., None] * np.ones(3)).astype(np.uint8)
    Image.fromarray(page).save(tmp_path / "blank.jpg", quality=quality)
    with pytest.raises(NothingFound, match="no digit found"):
        prepare_file(tmp_path / "blank.jpg")
