"""The model card beside the checkpoint of a run."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_cnn.data import ImageData
from mnist_cnn.inference.predictor import Predictor
from mnist_cnn.reporting import card as model_card
from mnist_cnn.reporting import summary
from mnist_cnn.training.loading import load_classifier
from tests.export.checkpoint import save

METRICS = {
    "val/acc": 0.9875,
    "test/acc": 35 / 37,
    "test/loss": 0.012345,
    "test/images": 37,
    "steps": 9,
    "status": "finished",
    "epochs": 3,
    "best_epoch": 2,
    "precision": "32-true",
}


def card(folder: Path, data: ImageData, logits: torch.Tensor, metrics: dict[str, Any] = METRICS) -> str:
    classifier = load_classifier(save(folder, "simple"))
    classifier.config["hparams"] = {"optim": "sgd", "lr": 0.05, "model.note": "a|b"}
    model_card.write(folder, classifier, data, logits, metrics)
    return (folder / "checkpoints" / "README.md").read_text(encoding="utf-8")


def logits_with_two_errors(data: ImageData) -> torch.Tensor:
    """Return logits by which two images of the first class in the data are taken for the next class."""
    assert data.test is not None
    targets = data.test.targets.clone()
    first = int(targets.mode().values)
    targets[(targets == first).nonzero().flatten()[:2]] = (first + 1) % 10
    return torch.nn.functional.one_hot(targets, 10).float()


def test_card_says_what_was_trained_on_what_and_how(tmp_path: Path, small_data: ImageData) -> None:
    small_data.std = torch.tensor([0.25, 0.1]).view(-1, 1, 1)  # as for colours
    text = card(tmp_path, small_data, logits_with_two_errors(small_data))
    assert text.startswith("# SimpleCNN on MNIST\n")
    assert "`best.ckpt`: SimpleCNN with 421,642 parameters" in text
    assert "epoch 2 of 3" in text
    assert "96 train, 32 validation, 37 test images, 1 x 28 x 28; 10 classes: 0, 1, 2" in text
    assert "mean 0.5 and standard deviation 0.25, 0.1" in text
    for row in ("| optim | sgd |", "| lr | 0.05 |", "| model.note | a/b |", "| precision | 32-true |"):
        assert row in text.splitlines()
    for row in (
        "| val/acc | 98.75% |",
        "| test/acc | 94.59% |",
        "| test/loss | 0.0123 |",
        "| test/images | 37 |",
    ):
        assert row in text.splitlines()


def test_card_says_where_the_network_fails(tmp_path: Path, small_data: ImageData) -> None:
    assert small_data.test is not None
    text = card(tmp_path, small_data, logits_with_two_errors(small_data))
    targets = small_data.test.targets
    first = int(targets.mode().values)
    assert f"Most frequent errors: {first} as {(first + 1) % 10} (2)." in text
    for label in range(10):
        count = int((targets == label).sum())
        right = count - 2 * (label == first)
        assert f"| {label} | {right / count:.2%} | {right} of {count} |" in text.splitlines()
    assert "On 37 test images." in text


def test_network_without_errors_and_class_without_images(tmp_path: Path, small_data: ImageData) -> None:
    assert small_data.test is not None
    logits = torch.nn.functional.one_hot(small_data.test.targets[:1], 10).float()
    text = card(tmp_path, small_data, logits)
    assert "No image was classified wrongly." in text
    assert text.count("|  | 0 of 0 |") == 9


def test_run_without_test_has_no_accuracy_by_class(tmp_path: Path, small_data: ImageData) -> None:
    assert "by class" not in card(tmp_path, small_data, torch.empty(0))


@pytest.mark.parametrize("folder", ["run", "a run, of x=1"])
def test_python_and_commands_of_the_card_name_the_checkpoint(
    folder: str, tmp_path: Path, small_data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = card(tmp_path / folder, small_data, logits_with_two_errors(small_data))
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
    assert small_data.test is not None
    images = small_data.test.images.numpy()
    names: dict[str, Any] = {"images": images}
    exec(code, names)
    assert isinstance(names["predictor"], Predictor)
    assert names["scores"].shape == (37, 10)


def test_last_epoch_is_the_result_where_nothing_was_chosen(tmp_path: Path, small_data: ImageData) -> None:
    classifier = load_classifier(save(tmp_path, "simple"))
    folder = tmp_path / "checkpoints"
    (folder / "best.ckpt").rename(folder / "last.ckpt")
    model_card.write(tmp_path, classifier, small_data, torch.empty(0), METRICS)
    assert "`last.ckpt`" in (folder / "README.md").read_text(encoding="utf-8")


def test_run_without_checkpoint_has_no_card(tmp_path: Path, small_data: ImageData) -> None:
    classifier = load_classifier(save(tmp_path / "elsewhere", "simple"))
    model_card.write(tmp_path, classifier, small_data, torch.empty(0), METRICS)
    assert not list(tmp_path.glob("checkpoints"))


@pytest.mark.parametrize(("status", "cards"), [("finished", 1), ("pruned", 0)])
def test_report_writes_the_card_of_a_finished_run(
    status: str, cards: int, tmp_path: Path, small_data: ImageData
) -> None:
    classifier = load_classifier(save(tmp_path, "simple"))
    summary.report(tmp_path, classifier, small_data, torch.empty(0), METRICS | {"status": status}, [])
    assert len(list(tmp_path.glob("checkpoints/README.md"))) == cards


def test_failing_card_is_a_warning(
    tmp_path: Path,
    small_data: ImageData,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    classifier = load_classifier(save(tmp_path, "simple"))
    monkeypatch.setattr(small_data, "parts", lambda: 1 / 0)
    summary.report(tmp_path, classifier, small_data, torch.empty(0), METRICS, [])
    assert "checkpoints/README.md could not be made: ZeroDivisionError: division by zero" in caplog.messages
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt"}
