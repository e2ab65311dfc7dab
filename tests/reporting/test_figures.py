"""The texts, order, colours and scales of the figures."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.text import Text
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


def right_labels(axes: Axes) -> list[str]:
    [margin] = axes.child_axes
    return [label.get_text() for label in margin.get_yticklabels()]


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


def test_captions_show_label_and_prediction() -> None:
    figure = figures.predictions(digits(6), torch.arange(6), torch.tensor([0, 1, 2, 3, 4, 9]))
    assert len(figure.axes[0].images) == 6
    assert titles(figure)[0] == "Label: 0\nPred: 0"
    assert titles(figure)[5] == "Label: 5\nPred: 9"


def test_probabilities_add_a_third_line() -> None:
    figure = figures.predictions(
        digits(2), torch.tensor([7, 1]), torch.tensor([7, 1]), torch.tensor([0.998, 0.5])
    )
    assert titles(figure) == ["Label: 7\nPred: 7\n99.80%", "Label: 1\nPred: 1\n50.00%"]


def test_class_names_replace_numbers() -> None:
    figure = figures.predictions(digits(1), torch.tensor([0]), torch.tensor([4]), classes=CLASSES)
    assert titles(figure) == ["Label: T-shirt/top\nPred: Coat"]


def test_wrong_predictions_have_colour_and_frame() -> None:
    figure = figures.predictions(digits(3), torch.tensor([1, 2, 3]), torch.tensor([1, 5, 3]))
    assert [same_color(caption.get_color(), figures.VERMILION) for caption in captions(figure)] == [
        *(False, True, False)
    ]
    [frame] = figure.axes[0].patches
    left, right, bottom, top = figure.axes[0].images[1].get_extent()
    assert frame.get_extents().get_points() == pytest.approx(
        figure.axes[0].transData.transform([(left, bottom), (right, top)]).reshape(2, 2)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_grey_image_uses_its_own_range(dtype: torch.dtype) -> None:
    images = (100 * digits(1)).to(dtype)
    figure = figures.predictions(images, torch.tensor([1]), torch.tensor([1]))
    assert figure.axes[0].images[0].get_clim() == (float(images.min()), float(images.max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_colour_image_is_scaled_to_unit_range(dtype: torch.dtype) -> None:
    images = (10 * digits(1, channels=3) - (5 if dtype.is_floating_point else 0)).to(dtype)
    figure = figures.predictions(images, torch.tensor([1]), torch.tensor([1]))
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (28, 28, 3)
    assert (float(shown.min()), float(shown.max())) == (0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_constant_image_is_drawn(channels: int) -> None:
    images = torch.full((1, channels, 28, 28), -1.0)
    figures.to_image(figures.predictions(images, torch.tensor([1]), torch.tensor([1])))


def test_no_images_give_a_message() -> None:
    none = torch.empty(0, dtype=torch.int64)
    figure = figures.predictions(digits(0), none, none)
    assert texts(figure.axes[0]) == ["No images"]


def test_different_numbers_of_images_and_captions_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        figures.predictions(digits(3), torch.tensor([1, 2]), torch.tensor([1, 2]))


@pytest.mark.parametrize(("count", "classes"), [(1, None), (1, CLASSES), (6, None), (13, CLASSES)])
def test_captions_are_not_cut_off(count: int, classes: list[str] | None) -> None:
    labels = torch.arange(count) % 5
    figure = figures.predictions(digits(count), labels, labels, torch.ones(count), classes)
    assert cut_off(figure) == []


# --- most wrong ----------------------------------------------------------------------------------


def test_most_confident_errors_come_first() -> None:
    targets = torch.tensor([0, 1, 2, 3, 4])
    predicted = torch.tensor([9, 1, 8, 3, 7])
    confidence = torch.tensor([0.5, 0.99, 0.9, 0.98, 0.7])
    images = torch.arange(5).reshape(5, 1, 1, 1).expand(5, 1, 28, 28)
    figure = figures.most_wrong(images, targets, predicted, confidence)
    assert titles(figure) == [
        "Label: 2\nPred: 8\n90.00%",
        "Label: 4\nPred: 7\n70.00%",
        "Label: 0\nPred: 9\n50.00%",
    ]
    assert [image.get_array()[0, 0] for image in figure.axes[0].images] == [2, 4, 0]
    assert texts(figure.axes[0])[0] == "3 errors in 5 images, most confident first"


def test_limit_keeps_most_confident_errors() -> None:
    targets, predicted = torch.zeros(40, dtype=torch.int64), torch.ones(40, dtype=torch.int64)
    figure = figures.most_wrong(
        digits(40), targets, predicted, torch.linspace(0, 1, 40), classes=CLASSES, limit=10
    )
    assert len(titles(figure)) == 10
    assert titles(figure)[0] == "Label: T-shirt/top\nPred: Trouser\n100.00%"
    assert texts(figure.axes[0])[0] == "The 10 most confident of 40 errors in 40 images"


def test_equal_confidence_keeps_order_of_data() -> None:
    targets = torch.arange(10)
    figure = figures.most_wrong(digits(10), targets, (targets + 1) % 10, torch.ones(10))
    assert [title[7] for title in titles(figure)] == list("0123456789")


def test_outputs_that_are_no_probabilities_are_plain_numbers() -> None:
    figure = figures.most_wrong(
        digits(1), torch.tensor([1]), torch.tensor([2]), torch.tensor([1.07]), are_probabilities=False
    )
    assert titles(figure) == ["Label: 1\nPred: 2\n1.070"]
    assert cut_off(figure) == []


def test_no_errors_give_a_message() -> None:
    labels = torch.arange(10)
    figure = figures.most_wrong(digits(10), labels, labels, torch.ones(10))
    assert texts(figure.axes[0]) == ["10 images, none of them wrong"]
    assert not figure.axes[0].images


# --- confusion matrix ----------------------------------------------------------------------------


def test_confusion_matrix_shows_exact_counts() -> None:
    counts = torch.tensor([[978, 2, 0], [1, 1134, 0], [0, 4, 1028]])
    figure = figures.confusion_matrix(counts)
    axes = figure.axes[0]
    assert texts(axes)[:9] == ["978", "2", "0", "1", "1134", "0", "0", "4", "1028"]
    assert right_labels(axes) == ["99.80%", "99.91%", "99.61%"]
    assert axes.get_title() == "Accuracy 99.78%: 7 errors in 3,147 images"
    assert axes.get_ylabel() == "Label"


def test_confusion_matrix_colour_is_share_of_errors() -> None:
    figure = figures.confusion_matrix(torch.tensor([[90, 10], [1, 99]]))
    image = figure.axes[0].images[0]
    share = image.get_array()
    assert share.mask.tolist() == [[True, False], [False, True]]
    assert (share[0, 1], share[1, 0]) == (10, 1)
    assert image.get_clim() == (0, 10)


def test_perfect_and_empty_confusion_matrices_are_drawn() -> None:
    perfect = figures.confusion_matrix(10 * torch.eye(3, dtype=torch.int64))
    assert perfect.axes[0].get_title() == "Accuracy 100.00%: 0 errors in 30 images"
    empty = figures.confusion_matrix(torch.zeros(3, 3, dtype=torch.int64))
    assert right_labels(empty.axes[0]) == ["–"] * 3
    figures.to_image(perfect)
    figures.to_image(empty)


def test_confusion_matrix_names_classes_on_both_axes() -> None:
    axes = figures.confusion_matrix(torch.eye(5, dtype=torch.int64), CLASSES).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES


@pytest.mark.parametrize("size", [30, 31, 300])
def test_confusion_matrix_of_many_classes_keeps_its_size(size: int) -> None:
    classes = [f"class {k}" for k in range(size)]
    figure = figures.confusion_matrix(torch.eye(size, dtype=torch.int64), classes)
    axes = figure.axes[0]
    assert figures.to_image(figure).shape == (1728, 1776, 3)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == [classes[int(place)] for place in axes.get_xticks()]
    assert labels[0] == "class 0"
    assert 16 <= len(labels) <= 30
    assert len(axes.texts) == (30 * 30 + 1 if size == 30 else 0)  # the counts, and the header of a column


def test_dollar_signs_in_class_names_are_no_formulas() -> None:
    classes = [r"$\frac$", "$", "US$_AU$"]
    targets, predicted = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    for figure in (
        figures.predictions(digits(3), targets, predicted, torch.ones(3), classes),
        figures.most_wrong(digits(3), targets, predicted, torch.ones(3), classes),
        figures.confusion_matrix(torch.eye(3, dtype=torch.int64), classes),
        figures.class_accuracy(torch.tensor([1, 1, 1]), torch.tensor([2, 2, 2]), classes),
    ):
        figures.to_image(figure)
        named = [text for text in figure.findobj(Text) if "$" in text.get_text()]
        assert named
        assert not any(text.get_parse_math() for text in named)


def test_wrong_number_of_class_names_is_refused() -> None:
    with pytest.raises(ValueError, match="5 class names for 3 classes"):
        figures.confusion_matrix(torch.eye(3, dtype=torch.int64), CLASSES)


# --- kernels -------------------------------------------------------------------------------------


def test_kernels_share_a_symmetric_scale() -> None:
    weight = torch.full((6, 1, 5, 5), 0.1)
    weight[3, 0, 2, 2] = -0.4
    figure = figures.kernels(torch.nn.Parameter(weight))
    tiles, scale = figure.axes
    assert len(tiles.images) == 6
    for image in tiles.images:
        assert image.get_clim() == pytest.approx((-0.4, 0.4))
    assert scale.get_ylim() == pytest.approx((-0.4, 0.4))
    assert tiles.get_title() == "6 kernels, 5×5"


def test_kernels_with_three_inputs_are_colour_images() -> None:
    weight = torch.zeros(1, 3, 3, 3)
    weight[0, 0, 0, 0] = 0.2
    weight[0, 2, 1, 1] = -0.2
    figure = figures.kernels(weight)
    [image] = figure.axes[0].images
    np.testing.assert_allclose(image.get_array()[0, 0], [1, 0.5, 0.5])
    np.testing.assert_allclose(image.get_array()[1, 1], [0.5, 0.5, 0])
    np.testing.assert_allclose(image.get_array()[2, 2], [0.5, 0.5, 0.5])
    assert "±0.2" in figure.axes[0].get_title()


def test_kernels_with_many_inputs_are_averaged() -> None:
    weight = torch.stack([torch.full((3, 3), 1.0), torch.full((3, 3), -0.5)])[None]
    axes = figures.kernels(weight).axes[0]
    assert axes.get_title() == "1 kernel, 3×3, mean over 2 inputs"
    np.testing.assert_allclose(axes.images[0].get_array(), 0.25)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_dead_kernels_are_drawn(value: float) -> None:
    figure = figures.kernels(torch.full((4, 1, 3, 3), value))
    assert figure.axes[0].images[0].get_clim() == (-1, 1)
    figures.to_image(figure)


# --- feature maps --------------------------------------------------------------------------------

SIMPLE = {"conv1": (32, 14, 14), "conv2": (64, 7, 7), "fc1": (128,), "fc2": (10,)}
CNN = {"conv1": (6, 14, 14), "conv2": (16, 5, 5), "fc1": (120,), "fc2": (84,), "fc3": (10,)}


def test_each_layer_is_a_labelled_row() -> None:
    layers = {name: torch.rand(shape) for name, shape in SIMPLE.items()}
    figure = figures.feature_maps(digits(1)[0], layers)
    assert figure.axes[0].get_title() == "input\n28×28"
    assert [axes.get_title(loc="left") for axes in figure.axes[1:]] == [
        "conv1: 16 of 32 maps, 14×14",
        "conv2: 16 of 64 maps, 7×7",
        "fc1: 128 features",
        "fc2: 10 features",
    ]
    assert [len(axes.images) for axes in figure.axes] == [1, 16, 16, 1, 0]
    assert figure.axes[3].images[0].get_array().shape == (1, 128)


def test_few_feature_maps_are_all_shown() -> None:
    layers = {name: torch.rand(shape) for name, shape in CNN.items()}
    figure = figures.feature_maps(digits(1, channels=3)[0], layers)
    assert len(figure.axes[1].images) == 6
    assert figure.axes[1].get_title(loc="left") == "conv1: 6 of 6 maps, 14×14"


def test_feature_maps_of_a_layer_share_a_scale() -> None:
    maps = torch.zeros(3, 4, 4)
    maps[1, 2, 2], maps[2, 0, 0] = 5.0, -1.0
    axes = figures.feature_maps(digits(1)[0], {"conv": maps}).axes[1]
    assert {image.get_clim() for image in axes.images} == {(-1, 5)}


def test_largest_output_is_coloured() -> None:
    outputs = torch.tensor([-2.0, 0.5, 7.0, 1.0])
    bars = figures.feature_maps(digits(1)[0], {"fc": outputs}).axes[1].patches
    assert [bar.get_height() for bar in bars] == outputs.tolist()
    assert [same_color(bar.get_facecolor(), figures.BLUE) for bar in bars] == [
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_dead_and_diverged_layers_are_drawn(value: float) -> None:
    layers = {name: torch.full(shape, value) for name, shape in SIMPLE.items()}
    figures.to_image(figures.feature_maps(digits(1)[0], layers))


# --- loss curve ----------------------------------------------------------------------------------


def epochs(count: int, *splits: str) -> list[dict[str, float]]:
    history = []
    for epoch in range(count):
        row: dict[str, float] = {"epoch": epoch}
        for split in splits:
            row |= {f"{split}/loss": 0.5 / (epoch + 1) ** 2, f"{split}/acc": 1 - 0.1 / (epoch + 1)}
        history.append(row)
    return history


def ticks(axes: Axes) -> list[float]:
    low, high = axes.get_xlim()
    return [tick for tick in axes.get_xticks() if low <= tick <= high]


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


@pytest.mark.parametrize("count", [1, 2, 3, 25, 100])
def test_epoch_ticks_are_integers(count: int) -> None:
    for axes in figures.loss_curve(epochs(count, "train", "val")).axes:
        assert ticks(axes)
        assert all(tick == int(tick) and 0 <= tick < count for tick in ticks(axes))


def test_loss_curve_without_validation() -> None:
    figure = figures.loss_curve(epochs(3, "train"))
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]


def test_loss_curve_with_validation_in_some_epochs() -> None:
    history = epochs(4, "train")
    history[3] |= {"val/loss": 0.1, "val/acc": 0.97}
    loss, _ = figures.loss_curve(history).axes
    assert list(loss.lines[1].get_xdata()) == [3]


def test_non_finite_values_are_omitted() -> None:
    history = epochs(3, "train")
    history[1]["train/loss"] = float("nan")
    loss, _ = figures.loss_curve(history).axes
    assert list(loss.lines[0].get_xdata()) == [0, 2]


def test_loss_scale_is_logarithmic_over_decades() -> None:
    assert figures.loss_curve(epochs(25, "train")).axes[0].get_yscale() == "log"
    assert figures.loss_curve(epochs(2, "train")).axes[0].get_yscale() == "linear"
    zero = [{"epoch": 0, "train/loss": 0.5}, {"epoch": 1, "train/loss": 0.0}]
    assert figures.loss_curve(zero).axes[0].get_yscale() == "linear"


def test_accuracy_axis_ends_at_100() -> None:
    low, high = figures.loss_curve(epochs(25, "train", "val")).axes[1].get_ylim()
    assert 89 < low < 90
    assert 100 < high < 101


def test_empty_history_gives_a_message() -> None:
    for axes in figures.loss_curve([]).axes:
        assert texts(axes) == ["No values"]


# --- class accuracy ------------------------------------------------------------------------------


def test_class_accuracy_shows_exact_counts() -> None:
    axes = figures.class_accuracy(torch.tensor([976, 1130]), torch.tensor([980, 1135])).axes[0]
    assert right_labels(axes) == ["99.59%  976 / 980", "99.56%  1,130 / 1,135"]
    low, high = axes.get_xlim()
    assert 99 < low < 99.56
    assert high == 100
    assert "does not start at 0" in axes.get_xlabel()
    assert axes.get_title() == "Accuracy 99.57% (dashed) and by class"


def test_first_class_is_on_top() -> None:
    axes = figures.class_accuracy(torch.full((5,), 9), torch.full((5,), 10), CLASSES).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_axis_of_poor_accuracy_starts_at_zero() -> None:
    axes = figures.class_accuracy(torch.tensor([0, 5]), torch.tensor([10, 10])).axes[0]
    assert axes.get_xlim() == (0, 100)
    assert axes.get_xlabel() == "Accuracy in %"


@pytest.mark.parametrize("total", [[10, 10], [0, 10], [0, 0]])
def test_perfect_and_empty_classes_are_drawn(total: list[int]) -> None:
    figure = figures.class_accuracy(torch.tensor(total), torch.tensor(total))
    assert [label[0] == "–" for label in right_labels(figure.axes[0])] == [t == 0 for t in total]
    low, high = figure.axes[0].get_xlim()
    assert low < high
    figures.to_image(figure)


# --- pixels and files ----------------------------------------------------------------------------


def small() -> Figure:
    return figures.predictions(digits(2), torch.tensor([1, 2]), torch.tensor([1, 3]))


def test_to_image_returns_rgb_bytes_of_figure_size() -> None:
    figure = small()
    image = figures.to_image(figure)
    width, height = figure.canvas.get_width_height()
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.owndata
    assert image[0, 0].tolist() == [255, 255, 255]


def test_to_image_is_deterministic() -> None:
    assert figures.to_image(small()).tobytes() == figures.to_image(small()).tobytes()


def test_save_writes_only_a_png(tmp_path: Path) -> None:
    figures.save(small(), tmp_path / "predictions.png")
    assert os.listdir(tmp_path) == ["predictions.png"]
    assert (tmp_path / "predictions.png").read_bytes().startswith(b"\x89PNG")


def test_save_replaces_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "loss_curve.png"
    path.write_bytes(b"earlier")
    figures.save(figures.loss_curve(epochs(1, "train")), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_failed_save_keeps_existing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "predictions.png"
    path.write_bytes(b"earlier")

    def half(self: Figure, target: Path, format: str) -> None:
        Path(target).write_bytes(b"\x89PNG half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="No space left"):
        figures.save(small(), path)
    assert os.listdir(tmp_path) == ["predictions.png"]
    assert path.read_bytes() == b"earlier"


def test_importing_figures_loads_neither_pyplot_nor_torch() -> None:
    code = (
        "import sys; import mnist_cnn.reporting.figures;"
        "sys.exit(' '.join({'matplotlib.pyplot', 'torch'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_of_many_classes_the_lowest_accuracies_are_drawn() -> None:
    correct, total = torch.arange(250), torch.full((250,), 250)
    total[0] = 0  # a class without images has no accuracy
    axes = figures.class_accuracy(correct.flip(0), total.flip(0)).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [str(k) for k in range(248, 148, -1)]
    assert "the lowest 100 of 250 classes" in axes.get_title()
