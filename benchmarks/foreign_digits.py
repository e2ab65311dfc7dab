"""Accuracy on digits of another collection: `python -m benchmarks.foreign_digits ckpt [ckpt …]`.

Every third of scikit-learn's `load_digits` (Alpaydin and Kaynak, 1998: 8x8 pixels, 43 people), enlarged to
the sizes of scans and read as `predict.py` does. Writes results/foreign_digits.json.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits  # type: ignore[import-untyped]

from benchmarks.own_digits import describe_network
from benchmarks.recipes import write
from mnist_cnn.inference.predictor import Predictor
from mnist_cnn.preparation.finding import NothingFound, find_digits

Grey = NDArray[np.float32]  # (H, W) in [0, 1]


def forms(digit: Grey, seed: int) -> Iterator[tuple[str, Grey]]:
    """Yield the digit, bright on black, in the forms of several kinds of scans."""
    random = np.random.default_rng(seed)
    yield "8x8 as it is", digit
    yield "16x16 grey", _enlarged(digit, 16)
    yield "16x16 binary", (_enlarged(digit, 16) > 0.5).astype(np.float32)
    yield "28x28, filling it", _enlarged(digit, 28)
    side = int(random.integers(16, 23))
    top, left = random.integers(0, 28 - side + 1, 2)
    placed = np.zeros((28, 28), np.float32)
    placed[top : top + side, left : left + side] = _enlarged(digit, side)
    yield "28x28, small and off centre", placed
    paper, contrast = random.uniform(0.6, 0.9), random.uniform(0.1, 0.4)
    noise = random.normal(size=placed.shape) * random.uniform(0.005, 0.02)
    yield "28x28, faint ink on grey paper", _clipped(paper * (1 - contrast * placed) + noise)


def _enlarged(digit: Grey, side: int) -> Grey:
    return _clipped(np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)))


def _clipped(image: NDArray[Any]) -> Grey:
    return image.clip(0, 1).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ckpt", nargs="+", type=Path)
    options = parser.parse_args()
    digits, targets = load_digits(return_X_y=True)
    digits, targets = (digits.reshape(-1, 8, 8) / 16).astype(np.float32)[::3], targets[::3]
    prepared: dict[str, list[NDArray[np.uint8]]] = {}
    for number, digit in enumerate(digits):
        for name, image in forms(digit, seed=number):
            try:
                found = find_digits(image)[0][0]
            except NothingFound:
                found = np.zeros((1, 28, 28), np.uint8)
            prepared.setdefault(name, []).append(found)
    networks = [Predictor.load(path) for path in options.ckpt]
    accuracy = {
        name: [float((network.scores(np.stack(images)).argmax(1) == targets).mean()) for network in networks]
        for name, images in prepared.items()
    }
    result = {
        "measured_by": "python -m benchmarks.foreign_digits",
        "n": len(targets),
        "networks": [describe_network(path) for path in options.ckpt],
        "accuracy": accuracy,
    }
    write("foreign_digits", result)


if __name__ == "__main__":
    main()
