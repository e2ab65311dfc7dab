"""The model card of a run: what its network was trained on, its results and errors, and how to load it."""

import os
import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from mnist_cnn.data import MNIST, ImageData
from mnist_cnn.files import atomic_write
from mnist_cnn.reporting import scores
from mnist_cnn.training.classifier import Classifier

CONFUSIONS = 5  # that are named


def write(
    run_dir: Path, classifier: Classifier, data: ImageData, logits: Tensor, metrics: Mapping[str, Any]
) -> None:
    """Write checkpoints/README.md of a run that has finished; nothing if it has saved no checkpoint.

    `logits` (N, K) are those of the first N test images, empty if nothing was tested; `metrics` are the
    content of metrics.json.
    """
    folder = run_dir / "checkpoints"
    saved = [folder / name for name in ("best.ckpt", "last.ckpt") if (folder / name).is_file()]
    if not saved:
        return
    path = os.path.relpath(saved[0])
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(numbers=_numbers, quote=shlex.quote, python=repr)
    template = resources.files(__package__).joinpath("card.md.j2").read_text(encoding="utf-8")
    text = environment.from_string(template).render(
        name=saved[0].name,
        path=path,
        data=data,
        is_mnist=isinstance(data.source, MNIST),
        sizes=data.describe_sizes(),
        network=type(classifier.network).__name__,
        loss=type(classifier.loss).__name__,
        parameters=sum(parameter.numel() for parameter in classifier.network.parameters()),
        scores="probabilities" if classifier.gives_probabilities else "outputs",
        settings=classifier.config.get("hparams", {}),
        metrics=metrics,
        results={name: scores.metric(name, value) for name, value in metrics.items() if "/" in name},
        facts={name: value for name, value in metrics.items() if "/" not in name and name != "status"},
        tested=len(logits),
        **(_errors(data, logits) if len(logits) else {}),
    )
    with atomic_write(folder / "README.md") as aside:
        aside.write_text(text, encoding="utf-8")


def _errors(data: ImageData, logits: Tensor) -> dict[str, Any]:
    """Return the `classes` as (name, correct, images), and the `confusions`: labels taken for another."""
    counts = multiclass_confusion_matrix(logits.argmax(1), data.test.targets[: len(logits)], data.num_classes)
    correct, images = counts.diagonal().tolist(), counts.sum(1).tolist()
    errors = (counts - counts.diagonal().diag()).flatten()
    confusions = []
    for index in errors.argsort(descending=True, stable=True)[:CONFUSIONS].tolist():
        label, prediction = divmod(index, data.num_classes)
        if errors[index]:
            confusions.append(f"{data.classes[label]} as {data.classes[prediction]} ({errors[index]})")
    return {"classes": list(zip(data.classes, correct, images, strict=True)), "confusions": confusions}


def _numbers(values: float | Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in torch.as_tensor(values).flatten().tolist())
