"""What is in a checkpoint, and what is built from one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mnist_cnn.errors import UserError
from mnist_cnn.models import CnnNet, SimpleCNN
from mnist_cnn.training import checkpoints
from mnist_cnn.training.classifier import Classifier

CONFIG: dict[str, Any] = {
    "model": {"_target_": "mnist_cnn.models.CnnNet", "in_channels": 1, "num_classes": 10},
    "loss": {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.0},
    "data": {"num_classes": 10},
}


def saved(path: Path, **changed: Any) -> Path:
    classifier = Classifier(CnnNet(), nn.CrossEntropyLoss(), 10)
    config = CONFIG | changed
    torch.save({"state_dict": classifier.state_dict(), "config": config}, path)
    return path


def test_a_classifier_is_built_from_the_file_alone(tmp_path: Path) -> None:
    path = saved(tmp_path / "best.ckpt")
    classifier = checkpoints.load_classifier(path)
    assert isinstance(classifier.network, CnnNet)
    assert not classifier.training
    expected = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(value, expected[name]) for name, value in classifier.state_dict().items())


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.hub.load",
        "torch.nn.functional.relu",
        "torch.nn.modules.module.torch.load",
        "mnist_cnn.data.download.download",
        "mnist_cnn.training.checkpoints.load",
        "subprocess.Popen",
        "",
    ],
)
def test_nothing_but_networks_and_layers_is_built_from_a_file(target: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "evil.ckpt", model={"_target_": target})
    with pytest.raises(UserError, match="is needed"):
        checkpoints.load_classifier(path)


def test_a_pickle_that_calls_something_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "was-run",))

    torch.save({"state_dict": {}, "config": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        checkpoints.load(tmp_path / "evil.ckpt")
    assert not (tmp_path / "was-run").exists()


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half\.ckpt cannot be read as a checkpoint"):
        checkpoints.load(tmp_path / "half.ckpt")


def test_weights_without_settings_are_refused(tmp_path: Path) -> None:
    torch.save(SimpleCNN().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"is not a checkpoint of train\.py"):
        checkpoints.load(tmp_path / "weights.pt")


def test_a_run_interrupted_in_its_first_epoch_has_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path) is None
