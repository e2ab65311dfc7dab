"""The model card of a run: what its network was trained on, its results and errors, and how to load it."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from mnist_cnn.data import MNIST, ImageData
from mnist_cnn.files import atomic_write
from mnist_cnn.training.classifier import Classifier

CONFUSIONS = 5  # that are named


def write(
    run_dir: Path, classifier: Classifier, data: ImageData, logits: Tensor, metrics: Mapping[str, Any]
) -> None:
    """Write checkpoints/README.md of a run that has finished; nothing where it has saved no checkpoint.

    `logits` (N, K) are those of the first N test images, empty where nothing was tested; `metrics` are the
    content of metrics.json.
    """
    folder = run_dir / "checkpoints"
    saved = [folder / name for name in ("best.ckpt", "last.ckpt") if (folder / name).is_file()]
    if not saved:
        return
    network = type(classifier.network).__name__
    parameters = sum(parameter.numel() for parameter in classifier.network.parameters())
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in data.parts().items() if len(part))
    form = f"{data.in_channels} x {data.image_size} x {data.image_size}"
    facts = ("epochs", "best_epoch", "steps", "seconds", "precision", "device", "devices")
    settings = classifier.config.get("hparams", {})
    parts = [
        f"# {network} on {data.name}",
        f"`{saved[0].name}`: {network} with {parameters:,} parameters, trained with "
        f"{type(classifier.loss).__name__} in epoch {metrics['best_epoch']} of {metrics['epochs']}.",
        f"## Data\n\n{data.name}: {sizes} images, {form}; {data.num_classes} classes: "
        f"{', '.join(data.classes)}. Pixels in [0, 1] are normalized with mean {_numbers(data.mean)} "
        f"and standard deviation {_numbers(data.std)}.",
        "## Settings\n\n" + _table(("setting", "value"), settings.items()),
        "The others are those of the experiment, if one is named, or of `conf/train.yaml`. The checkpoint "
        "holds all of them, in `config`.",
        "## Results\n\n" + _table(("metric", "value"), _results(metrics)),
        _table(("run", "value"), [(name, metrics[name]) for name in facts if name in metrics]),
        *(_by_class(data, logits) if len(logits) else []),
        *(_by_condition(saved[0]) if isinstance(data.source, MNIST) else []),
        f"## Use\n\n{_use(saved[0], classifier, data)}",
    ]
    with atomic_write(folder / "README.md") as aside:
        aside.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _results(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    values = [(name, value) for name, value in metrics.items() if "/" in name]
    return [(name, f"{v:.2%}" if name.endswith("/acc") else f"{v:.4g}") for name, v in values]


def _by_class(data: ImageData, logits: Tensor) -> list[str]:
    """Return the accuracy of each class, and the labels that are most often taken for another one."""
    assert data.test is not None
    counts = multiclass_confusion_matrix(logits.argmax(1), data.test.targets[: len(logits)], data.num_classes)
    rows = [
        (name, f"{row[k] / row.sum():.2%}" if row.sum() else "", f"{row[k]} of {row.sum()}")
        for k, (name, row) in enumerate(zip(data.classes, counts.numpy(), strict=True))
    ]
    errors = counts - counts.diagonal().diag()
    order = errors.flatten().argsort(descending=True, stable=True)[:CONFUSIONS].tolist()
    pairs = [(divmod(index, data.num_classes), int(errors.flatten()[index])) for index in order]
    named = [f"{data.classes[a]} as {data.classes[b]} ({count})" for (a, b), count in pairs if count]
    confusions = f"Most frequent errors: {', '.join(named)}." if named else "No image was classified wrongly."
    table = _table(("class", "accuracy", "correct"), rows)
    return [f"## Accuracy by class\n\nOn {len(logits):,} test images.\n\n{table}", confusions]


def _by_condition(ckpt: Path) -> list[str]:
    """Return the commands that measure a network for MNIST on digits other than those of its test."""
    path = os.path.relpath(ckpt)
    return [
        f"""## Accuracy by condition

```bash
python evaluate.py {shlex.quote(f"ckpt={path}")} data=mnist_c  # 15 corruptions
python -m benchmarks.own_digits {shlex.quote(path)} --split test  # photographs, scans and drawings
```"""
    ]


def _use(ckpt: Path, classifier: Classifier, data: ImageData) -> str:
    path = os.path.relpath(ckpt)
    argument = shlex.quote(f"ckpt={path}")
    scores = "probabilities" if classifier.gives_probabilities else "outputs"
    return f"""```bash
python evaluate.py {argument}
python predict.py {argument} images=PATH
python export.py {argument} format=onnx
```

```python
from pathlib import Path

from mnist_cnn.inference.predictor import Predictor
from mnist_cnn.training.loading import load_classifier

predictor = Predictor.load(Path({path!r}))
scores = predictor.scores(images)  # uint8 (N, C, H, W) -> {scores} (N, {data.num_classes})
classifier = load_classifier(Path({path!r}))  # the LightningModule: normalized images -> logits
```"""


def _numbers(values: float | Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in torch.as_tensor(values).flatten().tolist())


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in cells)
