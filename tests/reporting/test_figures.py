"""The texts, order, colours and scales of the figures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import Tensor

from mnist_cnn.reporting import figures

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]


def digits(count: int, channels: int = 1) -> Tensor:
    return torch.rand(count, channels, 28, 28, generator=torch.Generator().manual_seed(0))


def captions(figure: Figure) -> list[Text]:
    return [text for text in figure.axes[0].texts if text.get_text().startswith("Label: ")]


def titles(figure: Figure) -> list[str]:
    return [caption.get_text() for caption in captions(figure)]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def labels(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def cut_off(figure: Figure) -> list[str]:
    """Return the titles and captions that extend beyond the edges of the figure."""
    figures.to_image(figure)
    width, height = figure.canvas.get_width_height()
    found = []
    for text in [axes.title for axes in figure.axes] + [text for axes in figure.axes for text in axes.texts]:
        box = text.get_window_extent()
        if text.get_text() and not (box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height):
            found.append(text.get_text())
    return found


# --- predictions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confidence", "classes", "are_probabilities", "expected"),
    [
        (0.998, None, True, "Label: 0\nPred: 4\n99.80%"),
        (1.07, CLASSES, False, "Label: T-shirt/top\nPred: Coat\n1.070"),
    ],
)
def test_captions_show_label_prediction_and_score(
    confidence: float, classes: list[str] | None, are_probabilities: bool, expected: str
) -> None:
    scores, label, guess = torch.tensor([confidence]), torch.tensor([0]), torch.tensor([4])
    for draw in (figures.predictions, figures.most_wrong):
        figure = draw(digits(1), label, guess, scores, classes, are_probabilities)
        assert titles(figure) == [expected]
        assert len(figure.axes[0].images) == 1
        assert cut_off(figure) == []


def test_wrong_predictions_have_colour_and_frame() -> None:
    figure = figures.predictions(digits(3), torch.tensor([1, 2, 3]), torch.tensor([1, 5, 3]), torch.ones(3))
    coloured = [same_color(caption.get_color(), figures.VERMILION) for caption in captions(figure)]
    assert coloured == [False, True, False]
    [frame] = figure.axes[0].patches
    left, right, bottom, top = figure.axes[0].images[1].get_extent()
    corners = figure.axes[0].transData.transform([(left, bottom), (right, top)])
    assert frame.get_extents().get_points() == pytest.approx(corners)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_use_their_range_and_colours_are_scaled(dtype: torch.dtype, channels: int) -> None:
    images = (100 * digits(1, channels) - (5 if dtype.is_floating_point else 0)).to(dtype)
    [image] = figures.predictions(images, torch.tensor([1]), torch.tensor([1]), torch.ones(1)).axes[0].images
    if channels == 1:
        assert image.get_clim() == (float(images.min()), float(images.max()))
    else:
        shown = image.get_array()
        assert (shown.shape, float(shown.min()), float(shown.max())) == ((28, 28, 3), 0, 1)


@pytest.mark.parametrize(("count", "classes"), [(1, None), (1, CLASSES), (6, None), (13, CLASSES)])
def test_captions_are_not_cut_off(count: int, classes: list[str] | None) -> None:
    numbers = torch.arange(count) % 5
    figure = figures.predictions(digits(count), numbers, numbers, torch.ones(count), classes)
    assert cut_off(figure) == []


# --- most wrong ----------------------------------------------------------------------------------


def test_most_confident_errors_come_first() -> None:
    targets = torch.tensor([0, 1, 2, 3, 4])
    predicted = torch.tensor([9, 1, 8, 3, 7])
    confidence = torch.tensor([0.5, 0.99, 0.9, 0.98, 0.7])
    images = torch.arange(5).reshape(5, 1, 1, 1).expand(5, 1, 28, 28)
    figure = figures.most_wrong(images, targets, predicted, confidence)
    expected = ["Label: 2\nPred: 8\n90.00%", "Label: 4\nPred: 7\n70.00%", "Label: 0\nPred: 9\n50.00%"]
    assert titles(figure) == expected
    assert [image.get_array()[0, 0] for image in figure.axes[0].images] == [2, 4, 0]
    assert texts(figure.axes[0])[0] == "3 errors in 5 images, most confident first"
    figure = figures.most_wrong(images, targets, predicted, confidence, limit=2)
    assert titles(figure) == expected[:2]
    assert texts(figure.axes[0])[0] == "The 2 most confident of 3 errors in 5 images"


# --- confusion matrix ----------------------------------------------------------------------------


def test_confusion_matrix_shows_exact_counts_and_names() -> None:
    counts = torch.tensor([[978, 2, 0], [1, 1134, 0], [0, 4, 1028]])
    figure = figures.confusion_matrix(counts, CLASSES[:3])
    axes = figure.axes[0]
    assert texts(axes) == ["978", "2", "0", "1", "1134", "0", "0", "4", "1028"]
    assert figure.get_suptitle() == "Accuracy 99.78%: 7 errors in 3,147 images"
    assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES[:3]
    assert labels(axes) == ["T-shirt/top  99.80%", "Trouser  99.91%", "Pullover  99.61%"]


def test_confusion_matrix_colour_is_share_of_errors() -> None:
    image = figures.confusion_matrix(torch.tensor([[90, 10], [1, 99]])).axes[0].images[0]
    share = image.get_array()
    assert share.mask.tolist() == [[True, False], [False, True]]
    assert (share[0, 1], share[1, 0]) == (10, 1)
    assert image.get_clim() == (0, 10)


@pytest.mark.parametrize("size", [30, 31, 300])
def test_confusion_matrix_of_many_classes_keeps_its_size(size: int) -> None:
    classes = [f"class {k}" for k in range(size)]
    figure = figures.confusion_matrix(torch.eye(size, dtype=torch.int64), classes)
    axes = figure.axes[0]
    assert figures.to_image(figure).shape == (1728, 1776, 3)
    named = [label.get_text() for label in axes.get_xticklabels()]
    assert named == [classes[int(place)] for place in axes.get_xticks()]
    assert named[0] == "class 0"
    assert 16 <= len(named) <= 30
    assert len(axes.texts) == (30 * 30 if size == 30 else 0)


def test_dollar_signs_in_class_names_are_no_formulas() -> None:
    classes = [r"$\frac$", "$", "US$_AU$"]
    targets, predicted = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    for figure in (
        figures.predictions(digits(3), targets, predicted, torch.ones(3), classes),
        figures.most_wrong(digits(3), targets, predicted, torch.ones(3), classes),
        figures.confusion_matrix(torch.eye(3, dtype=torch.int64), classes),
    ):
        figures.to_image(figure)
        named = [text for text in figure.findobj(Text) if "$" in text.get_text()]
        assert named
        assert not any(text.get_parse_math() for text in named)


# --- kernels and feature maps --------------------------------------------------------------------


def test_kernels_share_a_symmetric_scale() -> None:
    weight = torch.full((6, 1, 5, 5), 0.1)
    weight[3, 0, 2, 2] = -0.4
    tiles, scale = figures.kernels(torch.nn.Parameter(weight)).axes
    [image] = tiles.images
    assert image.get_clim() == pytest.approx((-0.4, 0.4))
    assert scale.get_ylim() == pytest.approx((-0.4, 0.4))
    assert tiles.get_title() == "6 kernels, 5×5"


def test_kernels_with_three_inputs_are_colour_images() -> None:
    weight = torch.zeros(1, 3, 3, 3)
    weight[0, 0, 0, 0] = 0.2
    weight[0, 2, 1, 1] = -0.2
    figure = figures.kernels(weight)
    [image] = figure.axes[0].images
    colours = image.get_array()[::4, ::4]  # a value is drawn as 4 x 4 pixels
    np.testing.assert_allclose(colours[0, 0], [1, 0.5, 0.5])
    np.testing.assert_allclose(colours[1, 1], [0.5, 0.5, 0])
    np.testing.assert_allclose(colours[2, 2], [0.5, 0.5, 0.5])
    assert "±0.2" in figure.axes[0].get_title()
    assert cut_off(figure) == []


def test_kernels_with_many_inputs_are_averaged() -> None:
    weight = torch.stack([torch.full((3, 3), 1.0), torch.full((3, 3), -0.5)])[None]
    axes = figures.kernels(weight).axes[0]
    assert axes.get_title() == "1 kernel, 3×3, mean over 2 inputs"
    np.testing.assert_allclose(axes.images[0].get_array(), 0.25)


SIMPLE = {"conv1": (32, 14, 14), "conv2": (6, 5, 5), "fc1": (128,), "fc2": (10,)}


@pytest.mark.parametrize("channels", [1, 3])
def test_each_layer_is_a_labelled_row(channels: int) -> None:
    layers = {name: torch.rand(shape) for name, shape in SIMPLE.items()}
    figure = figures.feature_maps(digits(1, channels)[0], layers)
    assert figure.axes[0].get_title() == "input\n28×28"
    assert [axes.get_title(loc="left") for axes in figure.axes[1:]] == [
        "conv1: 16 of 32 maps, 14×14",
        "conv2: 6 of 6 maps, 5×5",
        "fc1: 128 features",
        "fc2: 10 features",
    ]
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 0]
    assert figure.axes[3].images[0].get_array().shape == (1, 128)


def test_maps_share_a_scale_and_the_largest_output_is_coloured() -> None:
    maps = torch.zeros(3, 4, 4)
    maps[1, 2, 2], maps[2, 0, 0] = 5.0, -1.0
    outputs = torch.tensor([-2.0, 0.5, 7.0, 1.0])
    figure = figures.feature_maps(digits(1)[0], {"conv": maps, "fc": outputs})
    assert {image.get_clim() for image in figure.axes[1].images} == {(-1, 5)}
    bars = figure.axes[2].patches
    assert [bar.get_height() for bar in bars] == outputs.tolist()
    coloured = [same_color(bar.get_facecolor(), figures.BLUE) for bar in bars]
    assert coloured == [False, False, True, False]


# --- loss curve ----------------------------------------------------------------------------------


def epochs(count: int, *splits: str) -> list[dict[str, float]]:
    history = []
    for epoch in range(count):
        row: dict[str, float] = {"epoch": epoch}
        for split in splits:
            row |= {f"{split}/loss": 0.5 / (epoch + 1) ** 2, f"{split}/acc": 1 - 0.1 / (epoch + 1)}
        history.append(row)
    return history


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


def test_loss_curve_shows_both_splits_with_best_epoch() -> None:
    history = epochs(5, "train", "val")
    history[2] |= {"val/loss": 0.001, "val/acc": 0.9912}
    loss, accuracy = figures.loss_curve(history).axes
    assert legend(loss) == ["train: best 0.0200, epoch 4", "val: best 0.0010, epoch 2"]
    assert legend(accuracy) == ["train: best 98.00%, epoch 4", "val: best 99.12%, epoch 2"]
    assert list(accuracy.lines[0].get_xdata()) == [0, 1, 2, 3, 4]
    assert accuracy.lines[0].get_ydata()[0] == pytest.approx(90)
    low, high = accuracy.get_ylim()
    assert 89 < low < 90
    assert 100 < high < 101


@pytest.mark.parametrize("count", [1, 2, 3, 25, 100])
def test_epoch_ticks_are_integers(count: int) -> None:
    for axes in figures.loss_curve(epochs(count, "train", "val")).axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks
        assert all(tick == int(tick) and 0 <= tick < count for tick in ticks)


def test_values_that_are_missing_or_not_finite_are_omitted() -> None:
    history = epochs(4, "train")
    history[1]["train/loss"] = float("nan")
    history[3] |= {"val/loss": 0.1, "val/acc": 0.97}
    loss, _ = figures.loss_curve(history).axes
    assert [list(line.get_xdata()) for line in loss.lines] == [[0, 2, 3], [3]]


def test_loss_scale_is_logarithmic_over_decades() -> None:
    assert figures.loss_curve(epochs(25, "train")).axes[0].get_yscale() == "log"
    assert figures.loss_curve(epochs(2, "train")).axes[0].get_yscale() == "linear"
    zero = [{"epoch": 0, "train/loss": 0.5}, {"epoch": 1, "train/loss": 0.0}]
    assert figures.loss_curve(zero).axes[0].get_yscale() == "linear"


# --- what is empty, constant or not finite -------------------------------------------------------

TEN = torch.arange(10)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda: figures.most_wrong(digits(10), TEN, TEN, torch.ones(10)), ["0 errors in 10 images"]),
        (lambda: figures.loss_curve([]), []),
    ],
)
def test_figures_of_nothing_are_drawn(draw: Callable[[], Figure], expected: Sequence[str]) -> None:
    for axes in draw().axes:
        assert (texts(axes), list(axes.images)) == (expected, [])


@pytest.mark.parametrize(
    "draw",
    [
        *(
            lambda channels=channels: figures.predictions(
                torch.full((1, channels, 28, 28), -1.0), torch.tensor([1]), torch.tensor([1]), torch.ones(1)
            )
            for channels in (1, 3)
        ),
        lambda: figures.confusion_matrix(10 * torch.eye(3, dtype=torch.int64)),
        lambda: figures.confusion_matrix(torch.zeros(3, 3, dtype=torch.int64)),
    ],
)
def test_constant_images_and_perfect_or_empty_matrices_are_drawn(draw: Callable[[], Figure]) -> None:
    figures.to_image(draw())


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_dead_and_diverged_layers_are_drawn(value: float) -> None:
    figure = figures.kernels(torch.full((4, 1, 3, 3), value))
    assert figure.axes[0].images[0].get_clim() == (-1, 1)
    figures.to_image(figure)
    layers = {name: torch.full(shape, value) for name, shape in SIMPLE.items()}
    figures.to_image(figures.feature_maps(digits(1)[0], layers))


# --- pixels and files ----------------------------------------------------------------------------


def small() -> Figure:
    return figures.predictions(digits(2), torch.tensor([1, 2]), torch.tensor([1, 3]), torch.ones(2))


def test_to_image_returns_rgb_bytes_of_figure_size() -> None:
    figure = small()
    image = figures.to_image(figure)
    width, height = figure.canvas.get_width_height()
    assert (image.shape, image.dtype) == ((height, width, 3), np.uint8)
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image.tobytes() == figures.to_image(small()).tobytes()


def test_save_replaces_the_file_by_a_png(tmp_path: Path) -> None:
    path = tmp_path / "predictions.png"
    path.write_bytes(b"earlier")
    figures.save(small(), path)
    assert list(tmp_path.iterdir()) == [path]
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
