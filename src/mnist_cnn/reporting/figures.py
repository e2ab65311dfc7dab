"""Figures from arrays: tensors in, a matplotlib `Figure` out; no global state, no window.

Shape legend: N images, C channels, H and W their height and width, K classes, F features.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from mnist_cnn.errors import log_traceback
from mnist_cnn.files import atomic_write
from mnist_cnn.reporting.scores import score

if TYPE_CHECKING:  # figures call methods of tensors but do not need to import torch
    from torch import Tensor

Array: TypeAlias = NDArray[Any]

log = logging.getLogger(__name__)

# Blue and vermilion of Okabe and Ito's palette, distinguishable with every kind of colour vision.
BLUE, VERMILION = "#0072B2", "#D55E00"
COLUMNS = 8  # predictions side by side
MAPS_PER_ROW = 16
MAX_COUNTS = 30  # classes up to which a confusion matrix has its counts


def predictions(
    images: Tensor,
    targets: Tensor,
    predicted: Tensor,
    confidence: Tensor,
    classes: Sequence[str] | None = None,
    are_probabilities: bool = True,
    title: str = "",
    frame_errors: bool = True,
) -> Figure:
    """Draw images with their labels and predictions, wrong predictions in a coloured frame.

    images: (N, C, H, W) of any type and range, C 1 or 3; targets, predicted: (N,) class indices;
    confidence: (N,), the score of the predicted class, a probability or an output of the network.
    """
    name = str if classes is None else classes.__getitem__
    captions = [
        f"Label: {name(label)}\nPred: {name(guess)}\n{score(value, are_probabilities)}"
        for label, guess, value in zip(targets.tolist(), predicted.tolist(), confidence.tolist(), strict=True)
    ]
    columns = max(min(COLUMNS, len(captions)), 1)
    # All lengths are in inches, also the coordinates of the axes.
    longest = max(map(len, "\n".join(captions).split("\n")))
    across = max(1.3, 0.085 * longest)  # long class names must not overlap
    side, above, header = 1.2, 0.63, 0.3 if title else 0.0
    down = above + side + 0.1
    width = max(across * columns, 0.095 * len(title))
    height = header + down * math.ceil(len(captions) / columns)
    figure, axes = whole_figure(width, height)
    axes.text(width / 2, 0.06, title, ha="center", va="top", fontsize=12)
    for index, (image, caption) in enumerate(zip(_array(images), captions, strict=True)):
        x = (width - across * columns) / 2 + across * (index % columns + 0.5)  # of the middle
        y = header + above + down * (index // columns)
        # The frame is for readers who do not see the colour.
        frame = VERMILION if frame_errors and targets[index] != predicted[index] else None
        place_image(axes, _displayable(image), (x - side / 2, y), side, frame)
        text = axes.text(x, y - 0.06, caption, ha="center", va="bottom", fontsize=10, parse_math=False)
        text.set_color(frame or "black")
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    axes.set_axis_off()
    return figure


def most_wrong(
    images: Tensor,
    targets: Tensor,
    predicted: Tensor,
    confidence: Tensor,
    classes: Sequence[str] | None = None,
    are_probabilities: bool = True,
    limit: int = 24,
) -> Figure:
    """Draw the wrongly classified images, the most confident first, up to `limit` of them.

    The arguments are those of `predictions`.
    """
    wrong = (targets != predicted).nonzero().flatten()
    order = confidence[wrong].argsort(descending=True, stable=True)  # equal scores keep the data's order
    shown = wrong[order[:limit]]
    title = f"{_plural(len(wrong), 'error')} in {_plural(len(targets), 'image')}"
    if len(shown) < len(wrong):
        title = f"The {len(shown)} most confident of {title}"
    elif len(shown):
        title += ", most confident first"
    picked, scores = images[shown.to(images.device)], confidence[shown]
    labels, guesses = targets[shown], predicted[shown]
    return predictions(picked, labels, guesses, scores, classes, are_probabilities, title, frame_errors=False)


def confusion_matrix(counts: Tensor, classes: Sequence[str] | None = None) -> Figure:
    """Draw a confusion matrix, coloured by the share of errors; of up to 30 classes with the counts.

    counts: (K, K) integers, one row per label, one column per prediction. The cells are small, so that the
    counts can be read where the figure is shown at the size of a card.
    """
    table = _array(counts)
    size = len(table)
    names = list(classes or map(str, range(size)))
    totals, correct = table.sum(axis=1), np.diag(table)
    # Correct counts are about a hundred times the errors, which would all look alike on one colour scale.
    shares = 100 * table / np.maximum(totals, 1)[:, None]
    share: Array = np.where(np.eye(size, dtype=bool), np.nan, shares)  # NaN is drawn as `bad`, below
    top = max(float(np.nan_to_num(share).max()), 0.1)

    side = 0.44 * max(min(size, MAX_COUNTS), 6)
    figure = _figure(side + 1.6, side + 1.2)
    axes = figure.add_subplot()
    cmap = colormaps["Oranges"].with_extremes(bad="0.9")
    image = axes.imshow(share, cmap=cmap, vmin=0, vmax=top)
    named = range(0, size, math.ceil(size / MAX_COUNTS))
    labels = [names[k] for k in named]
    rotation, ha = (45, "right") if max(map(len, labels)) > 3 else (0, "center")
    axes.set_xticks(named, labels, rotation=rotation, ha=ha, parse_math=False)
    rows = [f"{names[k]}  {_percent(correct[k], totals[k])}" for k in named]
    axes.set_yticks(named, rows, parse_math=False)
    axes.set_ylabel("Label, and its accuracy")
    figure.supxlabel("Prediction (orange: share of the label's images)", fontsize=10)
    if size <= MAX_COUNTS:
        _write_counts(axes, table, share, top)
    else:
        figure.colorbar(image, ax=axes, shrink=0.7, label="Errors in % of the label's images")
    errors, images = int(totals.sum() - correct.sum()), int(totals.sum())
    accuracy = _percent(correct.sum(), images)
    figure.suptitle(f"Accuracy {accuracy}: {_plural(errors, 'error')} in {_plural(images, 'image')}")
    return figure


def _write_counts(axes: Axes, table: Array, share: Array, top: float) -> None:
    """Write the counts into the cells of a confusion matrix, and draw lines between the cells."""
    for (row, column), count in np.ndenumerate(table):
        color = "black"
        if row != column and count == 0:
            color = "0.7"
        elif row != column and share[row, column] > 0.6 * top:
            color = "white"
        text = axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=11)
        text.set_in_layout(False)
    axes.set_xticks(np.arange(len(table) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(table) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def kernels(weight: Tensor) -> Figure:
    """Draw a convolution's kernels side by side, on one scale that is symmetric about 0.

    weight: (out, in, kh, kw) floats. With three inputs a kernel is drawn as a colour image in which grey
    is 0, because a mean would hide kernels that respond to colour; with other numbers of inputs it is
    drawn as the mean over them.
    """
    values = _finite(weight)
    count, inputs, height, width = values.shape
    title = f"{_plural(count, 'kernel')}, {height}×{width}"
    if inputs not in (1, 3):
        values = values.mean(axis=1, keepdims=True)
        title += f", mean over {inputs} inputs"
    bound = float(np.nanmax(np.abs(values), initial=0)) or 1.0  # 1 if all are 0
    columns = min(count, 8)
    side = max(0.75, 4.4 / columns)  # inches; the title also needs room above few kernels
    figure = _figure(side * columns + 0.9, side * math.ceil(count / columns) * height / width + 0.5)
    axes = figure.add_subplot()
    axes.set_axis_off()
    if inputs == 3:
        colours = (0.5 + values / (2 * bound)).transpose(0, 2, 3, 1)
        axes.imshow(np.nan_to_num(_montage(colours, columns), nan=1))  # white between the kernels
        title += f"\nRed, green, blue: grey is 0, full colour ±{bound:.2g}"
    else:
        image = axes.imshow(_montage(values[:, 0], columns), cmap="RdBu_r", vmin=-bound, vmax=bound)
        figure.colorbar(image, ax=axes).ax.spines[:].set_visible(False)
    axes.set_title(title)
    return figure


def feature_maps(image: Tensor, layers: Mapping[str, Tensor]) -> Figure:
    """Draw the output of each layer for one image: one row per layer, on the layer's own scale.

    image: (C, H, W), C 1 or 3; layers: name -> (C, H, W) maps, of which the first 16 are shown,
    or (F,) features, drawn as bars up to 16 (the largest in colour), as a strip beyond.
    """
    width = 11.0  # inches of the column with the layers
    values = {name: _finite(layer) for name, layer in layers.items()}
    heights = [_row_height(layer, width) for layer in values.values()]
    figure = _figure(width + 2.0, max(sum(heights) + 0.3 * len(heights) + 0.2, 2.2))
    grid = figure.add_gridspec(len(heights), 2, width_ratios=(1.5, width), height_ratios=heights)
    axes = figure.add_subplot(grid[:, 0])
    axes.imshow(_displayable(_array(image)), cmap="gray")
    axes.set_title(f"input\n{image.shape[1]}×{image.shape[2]}", fontsize=10)
    axes.set_axis_off()
    for row, (name, layer) in enumerate(values.items()):
        axes = figure.add_subplot(grid[row, 1])
        label = f"{name}: {_plural(len(layer), 'feature')}"
        if layer.ndim == 1 and len(layer) <= MAPS_PER_ROW:
            colors = [BLUE if i == layer.argmax() else "0.75" for i in range(len(layer))]
            axes.bar(range(len(layer)), layer, color=colors)
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set(xticks=range(len(layer)), xlim=(-0.5, len(layer) - 0.5))
            axes.tick_params(labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
        elif layer.ndim == 1:
            axes.imshow(layer[None], cmap="viridis", aspect="auto", interpolation="nearest")
            axes.set_axis_off()
        else:
            shown = layer[:MAPS_PER_ROW]
            size = f"{layer.shape[1]}×{layer.shape[2]}"
            label = f"{name}: {len(shown)} of {_plural(len(layer), 'map')}, {size}"
            low, high = np.nanmin(layer, initial=0), np.nanmax(layer, initial=0)
            maps = _montage(shown, _map_columns(layer))
            axes.imshow(maps, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
            axes.set_anchor("NW")
            axes.set_axis_off()
        axes.set_title(label, loc="left", fontsize=10)
    return figure


def loss_curve(history: Sequence[Mapping[str, float]]) -> Figure:
    """Draw loss and accuracy by epoch, with the best epoch of each curve in the legend.

    history: one mapping per epoch with "epoch" and any of "train/loss", "val/loss",
    "train/acc", "val/acc"; accuracies are fractions. Values that are not finite are omitted.
    """
    figure = _figure(10, 4)
    left, right = figure.subplots(1, 2)
    losses = _curves(left, history, "loss", best=min, scale=1, form="{:.4f}")
    if losses and max(losses) > 10 * min(losses) > 0:  # late epochs would be a flat line
        left.set_yscale("log")
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_formatter(NullFormatter())
    left.set(title="Loss", xlabel="Epoch")
    accuracies = _curves(right, history, "acc", best=max, scale=100, form="{:.2f}%")
    if accuracies:
        margin = max(0.05 * (100 - min(accuracies)), 0.05)
        right.set_ylim(min(accuracies) - margin, 100 + margin)
    right.set(title="Accuracy in %", xlabel="Epoch")
    return figure


def to_image(figure: Figure) -> NDArray[np.uint8]:
    """Render a figure to pixels: (H, W, 3) uint8, TensorBoard's "HWC"."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba(), dtype=np.uint8)  # type: ignore[no-untyped-call]
    rgb: NDArray[np.uint8] = pixels[..., :3].copy()  # the canvas keeps its buffer
    return rgb


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, atomically. Characters that its font lacks are drawn as boxes."""
    with atomic_write(Path(path)) as aside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        figure.savefig(aside, format="png")


@contextmanager
def warn_on_error(what: str) -> Iterator[None]:
    """Turn an exception in the block into a warning: a failed figure or model card does not fail the run.

    An `OSError`, such as that of a full disk, is raised: the next file would meet it, too.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        log.warning(f"{what} could not be made: {type(error).__name__}: {error}")
        log_traceback(log, error)


def _figure(width: float, height: float) -> Figure:
    # Rounded, because matplotlib 3.10 cuts off a pixel of which 13.2 + 1.6 is short by a rounding error.
    return Figure(figsize=(round(width, 2), round(height, 2)), dpi=120, layout="constrained")


def whole_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of this size in inches, and axes that fill it.

    One axes for many images, and no layout engine, is ten times as fast as axes for each.
    """
    figure = Figure(figsize=(width, height), dpi=120)
    figure.set_layout_engine("none")  # also where matplotlib's settings choose one
    return figure, figure.add_axes((0, 0, 1, 1))


def place_image(
    axes: Axes,
    pixels: Array,
    corner: tuple[float, float],
    side: float,
    frame: str | None = None,
    limits: tuple[float | None, float | None] = (None, None),
) -> None:
    """Draw an image in the middle of a square, whose upper left corner is given; y grows downwards.

    pixels: (H, W), (H, W, 1) or (H, W, 3), black and white being `limits`, by default those of the image;
    frame: the colour of a frame.
    """
    scale = side / max(pixels.shape[:2])
    width, height = scale * pixels.shape[1], scale * pixels.shape[0]
    x, y = corner[0] + (side - width) / 2, corner[1] + (side - height) / 2
    extent = (x, x + width, y + height, y)
    axes.imshow(pixels, cmap="gray", vmin=limits[0], vmax=limits[1], extent=extent)
    if frame is not None:
        axes.add_patch(Rectangle((x, y), width, height, fill=False, color=frame, linewidth=3))


def _array(values: Tensor) -> Array:
    values = values.detach().cpu()
    if values.is_floating_point():
        values = values.float()  # NumPy has no bfloat16
    array: Array = values.numpy()
    return array


def _finite(values: Tensor) -> Array:
    """Return an array with NaN, which is left blank, for infinities, which cannot be drawn."""
    array = _array(values)
    finite: Array = np.where(np.isfinite(array), array, np.nan)
    return finite


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "–"


def _displayable(image: Array) -> Array:
    """Return a grey image as (H, W), which imshow scales, and a colour image as (H, W, 3) in [0, 1]."""
    if len(image) == 1:
        gray: Array = image[0]
        return gray
    values = image.astype(np.float32)
    low, high = values.min(), values.max()
    # imshow clips colour images to [0, 1] instead of scaling them.
    scaled: Array = ((values - low) / (high - low if high > low else 1)).transpose(1, 2, 0)
    return scaled


def _montage(tiles: Array, columns: int) -> Array:
    """Join tiles (N, H, W) or (N, H, W, 3) in rows of `columns`, with NaN between them.

    One image is drawn far faster than many. NaN is left blank.
    """
    tiles = tiles.repeat(4, axis=1).repeat(4, axis=2)  # a gap may be narrower than a pixel
    gap = math.ceil(tiles.shape[1] / 10)
    margins = [(0, -len(tiles) % columns), (0, gap), (0, gap), (0, 0)][: tiles.ndim]
    padded = np.pad(tiles, margins, constant_values=np.nan)
    rows = [np.concatenate(row, axis=1) for row in np.split(padded, len(padded) // columns)]
    joined: Array = np.concatenate(rows)[:-gap, :-gap]
    return joined


def _map_columns(layer: Array) -> int:
    return min(max(len(layer), 10), MAPS_PER_ROW)  # few maps are drawn larger, up to a limit


def _row_height(layer: Array, width: float) -> float:
    if layer.ndim == 3:
        height, across = layer.shape[1:]
        return float(width / _map_columns(layer) * height / across)
    return 0.9 if len(layer) <= MAPS_PER_ROW else 0.35


def _curves(
    axes: Axes,
    history: Sequence[Mapping[str, float]],
    metric: str,
    best: Callable[[Sequence[float]], float],
    scale: float,
    form: str,
) -> list[float]:
    """Draw the training and validation curve of a metric; return all values drawn."""
    drawn: list[float] = []
    for split, color, marker in (("train", BLUE, "o"), ("val", VERMILION, "s")):
        key = f"{split}/{metric}"
        points = [
            (row["epoch"], scale * row[key]) for row in history if math.isfinite(row.get(key, math.nan))
        ]
        if not points:
            continue
        epochs, values = zip(*points, strict=True)
        peak = best(values)
        label = f"{split}: best {form.format(peak)}, epoch {epochs[values.index(peak)]:.0f}"
        axes.plot(epochs, values, color=color, marker=marker, markersize=4, label=label)
        drawn += values
    if drawn:
        axes.legend()
        axes.set_xlim(history[0]["epoch"] - 0.5, history[-1]["epoch"] + 0.5)
    axes.grid(which="both", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return drawn
