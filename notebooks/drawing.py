"""The figures that the notebooks draw."""

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from mnist_cnn.models import handmade
from mnist_cnn.reporting.figures import BLUE, VERMILION

Cells = Collection[tuple[int, int]]  # (row, column)

plt.rcParams |= {"figure.dpi": 110, "figure.constrained_layout.use": True, "axes.titlesize": 10}


def draw_image(
    ax: Axes, image: Any, title: str = "", signed: bool = False, bound: float | None = None
) -> AxesImage:
    """Draw an image (H, W) in grey, or, if `signed`, in blue below 0, white at 0 and red above."""
    image = np.asarray(image)
    bound = bound or float(np.abs(image).max()) or 1.0
    limits = {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound} if signed else {"cmap": "gray"}
    drawn = ax.imshow(image, aspect="auto" if len(image) == 1 else "equal", **limits)
    ax.set(title=title, xticks=[], yticks=[])
    return drawn


def draw_numbers(
    ax: Axes, matrix: Any, title: str = "", highlighted: Cells = (), number_format: str = "{:g}"
) -> None:
    """Draw a small matrix with its values: red above 0, blue below, grey at 0, or yellow if `highlighted`."""
    matrix = np.asarray(matrix)
    ax.imshow(np.zeros(matrix.shape), cmap="gray_r", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(matrix):
        color = "#fcbba1" if value > 0 else "#c6dbef" if value < 0 else "0.93"
        color = "#ffe680" if (row, column) in highlighted else color
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, edgecolor="white"))
        text = number_format.format(value)
        ax.text(column, row, text, ha="center", va="center", color="black" if value else "0.6")
    ax.set_title(title)
    ax.set_axis_off()


def draw_square(ax: Axes, row: int, column: int, size: int) -> None:
    """Outline a square of `size` pixels whose upper left pixel is (row, column)."""
    corner = (column - 0.5, row - 0.5)
    ax.add_patch(Rectangle(corner, size, size, fill=False, color=VERMILION, linewidth=2.5))


def draw_window_positions(matrix: Any, kernel: Any, result: Any, titles: Sequence[str]) -> list[Axes]:
    """Draw each position of a kernel on a matrix, titled with its sum of products, one of `result`.

    Returns the axes of the free column on the left, whose length is the number of rows of `result`.
    """
    matrix, kernel, result = np.asarray(matrix), np.asarray(kernel), np.asarray(result)
    rows, columns = result.shape
    widths = (1.2, *[1] * columns)
    _, grid = plt.subplots(rows, columns + 1, figsize=(10, 2.4 * rows), width_ratios=widths)
    for (row, column), value in np.ndenumerate(result):
        ax = grid[row, column + 1]
        inside = [(row + p, column + q) for p, q in np.ndindex(kernel.shape)]
        draw_numbers(ax, matrix, f"{titles[row * columns + column]} = {value:g}", inside)
        for p, q in np.ndindex(kernel.shape):
            place = (column + q + 0.45, row + p + 0.4)
            ax.text(*place, f"×{kernel[p, q]:g}", ha="right", color="#a63603", fontsize=8)
    return list(grid[:, 0])


def draw_stages(stages: Mapping[str, Tensor], steps: Sequence[str]) -> None:
    """Draw the maps (1, C, H, W) or (1, N) of a network one after another, and the steps between them."""
    colors = {"i": "0.85", "C": "#9ecae1", "S": "#a1d99b"}
    _, ax = plt.subplots(figsize=(11, 3.2))
    left = 0.0
    for number, (name, values) in enumerate(stages.items()):
        count, *size = values.shape[1:]
        shift = 20 / count if size else 0  # the maps of a layer are drawn behind each other
        width, height = size or (4, 8 + 0.3 * count)
        color = colors.get(name[0], "#fdae6b") if size else "#fdae6b"
        for index in reversed(range(count if size else 1)):
            corner = (left + shift * index, -height / 2 + shift * index * 0.6)
            ax.add_patch(Rectangle(corner, width, height, facecolor=color, edgecolor="black", linewidth=0.7))
        shape = f"{count} of {size[0]}×{size[1]}" if size else f"{count}"
        right = left + width + (shift * (count - 1) if size else 0)
        ax.text((left + right) / 2, -24, f"{name}\n{shape}", ha="center", va="top")
        if number < len(steps):
            ax.text(right + 8, 33, steps[number], ha="center", fontsize=8, color="0.35")
            ax.annotate("", (right + 13, 0), (right + 3, 0), arrowprops={"arrowstyle": "->"})
        left = right + 16
    ax.set(xlim=(-5, left), ylim=(-36, 38), aspect="equal")
    ax.set_axis_off()
    plt.show()


def draw_deltas(inputs: Any, deltas: Mapping[int, Any], gradients: Mapping[int, Any]) -> None:
    """Draw a fully connected network with δ in its units and the gradients of its weights as connections.

    `deltas` and `gradients` are by layer; the gradients (M, D) of layer l lead from layer l - 1 to l.
    """
    values = {0: np.asarray(inputs)} | {layer: np.asarray(delta) for layer, delta in deltas.items()}
    _, ax = plt.subplots(figsize=(10, 4))
    largest = max(float(np.abs(gradient).max()) for gradient in gradients.values())
    for layer, gradient in gradients.items():
        for (target, source), value in np.ndenumerate(np.asarray(gradient)):
            heights = (source - len(values[layer - 1]) / 2, target - len(values[layer]) / 2)
            color, width = VERMILION if value > 0 else BLUE, 0.3 + 6 * abs(value) / largest
            ax.plot((layer - 1, layer), heights, color=color, linewidth=width, zorder=0)
    for layer, of_units in sorted(values.items()):
        heights = [index - len(of_units) / 2 for index in range(len(of_units))]
        ax.scatter([layer] * len(heights), heights, s=1900, color="white", edgecolor="black")
        for height, value in zip(heights, of_units.tolist(), strict=True):
            text = f"{value:.4f}" if layer else f"{value:g}"
            ax.text(layer, height, text, ha="center", va="center", fontsize=9)
        title = rf"$\delta^{layer}$" if layer else "$a^0$ (input)"
        ax.text(layer, 1.9, title, ha="center", fontsize=12)
    ax.set(xlim=(-0.4, 3.4), ylim=(-2.6, 2.2))
    ax.set_axis_off()
    plt.show()


def animate(image: Tensor, kernel: Tensor, scale: int = 18, milliseconds: int = 45) -> HTML:
    """Return an animation of the kernel moving over the image (H, W), with the feature map beside it."""
    response = handmade.correlate(image[None, None], kernel[None, None])[0, 0].numpy()
    red_blue = plt.colormaps["RdBu_r"](0.5 + response / np.abs(response).max() / 2)[..., :3]
    height, width = image.shape
    frames = []
    for row, column in np.ndindex(response.shape):
        left = np.repeat(image.numpy()[..., None], 3, axis=2)
        left[row : row + 3, column : column + 3] *= 0.45
        left[row : row + 3, column : column + 3] += 0.55 * np.array([0.84, 0.37, 0.0])
        right = np.full((height, width, 3), 0.85)
        visited = np.arange(response.size).reshape(response.shape) <= row * response.shape[1] + column
        right[1:-1, 1:-1][visited] = red_blue[visited]
        pair = np.concatenate([left, np.ones((height, 1, 3)), right], axis=1)
        frames.append(Image.fromarray((255 * pair).astype(np.uint8).repeat(scale, 0).repeat(scale, 1)))
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    source = "data:image/gif;base64," + base64.b64encode(file.getvalue()).decode()
    return HTML(f'<img alt="A kernel moving over a digit, and its feature map" src="{source}">')
