"""The model card beside the checkpoint of a run."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_cnn.data import ImageData
from mnist_cnn.inference.predictor import Predictor
from mnist_cnn.reporting import card, summary
from mnist_cnn.training.classifier import Classifier
from tests.export.checkpoint import save

METRICS = {
    "val/acc": 0.9875,
    "test/acc": 35 / 37,
    "test/loss": 0.012345,
    "test/images": 37,
    "status": "finished",
    "epochs": 3,
    "best_epoch": 2,
    "steps": 9,
    "precision": "32-true",
}


def write(folder: Path, data: ImageData, logits: torch.Tensor) -> str:
    classifier = Classifier.load_from_checkpoint(save(folder, "simple"))
    classifier.config["hparams"] = {"optim": "sgd", "lr": 0.05, "model.note": "a|b"}
    card.write(folder, classifier, data, logits, METRICS)
    return (folder / "checkpoints" / "README.md").read_text(encoding="utf-8")


def logits_with_two_errors(data: ImageData) -> torch.Tensor:
    """Return logits by which two images of the first class in the data are taken for the next class."""
    targets = data.test.targets.clone()
    first = int(targets.mode().values)
    targets[(targets == first).nonzero().flatten()[:2]] = (first + 1) % 10
    return torch.nn.functional.one_hot(targets, 10).float()


def test_card_says_what_was_trained_and_where_it_fails(tmp_path: Path, small_data: ImageData) -> None:
    small_data.std = torch.tensor([0.25, 0.1]).view(-1, 1, 1)  # as for colours
    text = write(tmp_path, small_data, logits_with_two_errors(small_data))
    assert text.startswith("# SimpleCNN on MNIST\n")
    assert "`best.ckpt`: SimpleCNN with 421,642 parameters" in text
    assert "epoch 2 of 3" in text
    assert "96 train, 32 validation, 37 test images, 1 x 28 x 28; 10 classes: 0, 1, 2" in text
    assert "mean 0.5 and standard deviation 0.25, 0.1" in text
    targets = small_data.test.targets
    first = int(targets.mode().values)
    assert f"Most frequent errors: {first} as {(first + 1) % 10} (2)." in text
    assert "On 37 test images." in text
    rows = {
        "| optim | sgd |",
        "| lr | 0.05 |",
        "| model.note | a/b |",
        "| precision | 32-true |",
        "| val/acc | 98.75% |",
        "| test/acc | 94.59% |",
        "| test/loss | 0.0123 |",
        "| test/images | 37 |",
    }
    for label in range(10):
        count = int((targets == label).sum())
        right = count - 2 * (label == first)
        rows.add(f"| {label} | {right / count:.2%} | {right} of {count} |")
    assert rows <= set(text.splitlines())
    assert "\n\n\n" not in text


@pytest.mark.parametrize(("tested", "empty"), [(1, 9), (0, 0)])
def test_classes_without_images_and_runs_without_test(
    tested: int, empty: int, tmp_path: Path, small_data: ImageData
) -> None:
    text = write(
        tmp_path, small_data, logits_with_two_errors(small_data)[-tested:] if tested else torch.empty(0)
    )
    assert text.count("|  | 0 of 0 |") == empty
    assert ("by class" in text) == bool(tested)


@pytest.mark.parametrize("folder", ["run", "a run, of x=1"])
def test_python_and_commands_of_the_card_name_the_checkpoint(
    folder: str, tmp_path: Path, small_data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = write(tmp_path / folder, small_data, logits_with_two_errors(small_data))
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("python ")]
    path = f"{folder}/checkpoints/best.ckpt"
    assert [command[1] for command in commands] == [
        "evaluate.py",
        "-m",
        "evaluate.py",
        "predict.py",
        "export.py",
    ]
    assert commands[1][2:6] == ["benchmarks.own_digits", path, "--split", "test"]
    assert {command[2] for command in commands if command[1] != "-m"} == {f"ckpt={path}"}
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"images": small_data.test.images.numpy()}
    exec(code, names)
    assert isinstance(names["predictor"], Predictor)
    assert names["scores"].shape == (37, 10)


def test_last_epoch_is_the_result_if_nothing_was_chosen(tmp_path: Path, small_data: ImageData) -> None:
    classifier = Classifier.load_from_checkpoint(save(tmp_path, "simple"))
    folder = tmp_path / "checkpoints"
    card.write(tmp_path / "without checkpoints", classifier, small_data, torch.empty(0), METRICS)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    (folder / "best.ckpt").rename(folder / "last.ckpt")
    card.write(tmp_path, classifier, small_data, torch.empty(0), METRICS)
    assert "`last.ckpt`" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("status", "cards"), [("finished", 1), ("pruned", 0)])
def test_report_writes_the_card_of_a_finished_run(
    status: str, cards: int, tmp_path: Path, small_data: ImageData
) -> None:
    classifier = Classifier.load_from_checkpoint(save(tmp_path, "simple"))
    summary.report(tmp_path, classifier, small_data, torch.empty(0), METRICS | {"status": status}, [])
    assert len(list(tmp_path.glob("checkpoints/README.md"))) == cards


def test_failing_card_is_a_warning(
    tmp_path: Path, small_data: ImageData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = Classifier.load_from_checkpoint(save(tmp_path, "simple"))
    monkeypatch.setattr(small_data, "parts", lambda: 1 / 0)
    summary.report(tmp_path, classifier, small_data, torch.empty(0), METRICS, [])
    assert "checkpoints/README.md could not be made: ZeroDivisionError: division by zero" in caplog.messages
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt"}
