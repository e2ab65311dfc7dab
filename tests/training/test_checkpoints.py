"""The content of a checkpoint, and what is built from one."""

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


def saved(path: Path, network: nn.Module | None = None, **changes: Any) -> Path:
    classifier = Classifier(network or CnnNet(), nn.CrossEntropyLoss(), 10)
    config = CONFIG | changes
    torch.save({"state_dict": classifier.state_dict(), "config": config}, path)
    return path


def test_classifier_is_built_from_the_file_alone(tmp_path: Path) -> None:
    path = saved(tmp_path / "best.ckpt")
    classifier = checkpoints.load_classifier(path)
    assert isinstance(classifier.network, CnnNet)
    assert not classifier.training
    expected = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(value, expected[name]) for name, value in classifier.state_dict().items())


def test_torchvision_network_is_built_without_a_download(tmp_path: Path) -> None:
    import torchvision.models

    network = torchvision.models.resnet18(num_classes=10)
    settings = {"_target_": "torchvision.models.resnet18", "num_classes": 10, "weights": "DEFAULT"}
    path = saved(tmp_path / "best.ckpt", network, model=settings)
    loaded = checkpoints.load_classifier(path).network
    images = torch.rand(2, 3, 28, 28)
    assert torch.equal(loaded(images), network.eval()(images))


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.hub.load",
        "torch.nn.functional.relu",
        "torch.nn.modules.module.torch.load",
        "torchvision.models.get_model",
        "torchvision.models.list_models",
        "mnist_cnn.data.download.download",
        "mnist_cnn.training.checkpoints.load",
        "subprocess.Popen",
        "",
    ],
)
def test_only_networks_and_layers_are_built_from_a_file(target: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "malicious.ckpt", model={"_target_": target})
    with pytest.raises(UserError, match="is needed"):
        checkpoints.load_classifier(path)


def test_pickle_that_calls_a_function_is_refused(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"state_dict": {}, "config": Malicious()}, tmp_path / "malicious.ckpt")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        checkpoints.load(tmp_path / "malicious.ckpt")
    assert not (tmp_path / "executed").exists()


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    content = saved(tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"half\.ckpt cannot be read as a checkpoint"):
        checkpoints.load(tmp_path / "half.ckpt")


def test_weights_without_settings_are_refused(tmp_path: Path) -> None:
    torch.save(SimpleCNN().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"is not a checkpoint of train\.py"):
        checkpoints.load(tmp_path / "weights.pt")


def test_run_interrupted_in_its_first_epoch_has_no_resume_point(tmp_path: Path) -> None:
    assert checkpoints.find_resume_point(tmp_path) is None


def test_init_from_copies_all_weights_of_the_same_network(tmp_path: Path) -> None:
    trained, network = CnnNet(), CnnNet()
    assert checkpoints.initialize_from(network, saved(tmp_path / "a.ckpt", trained)) == []
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), trained.parameters(), strict=True))


def test_init_from_keeps_a_new_last_layer_where_the_classes_differ(tmp_path: Path) -> None:
    trained, network = CnnNet(), CnnNet(num_classes=26)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    new = checkpoints.initialize_from(network, saved(tmp_path / "a.ckpt", trained))
    assert new == ["fc3.weight", "fc3.bias"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name] if name in new else trained.state_dict()[name])


@pytest.mark.parametrize("other", [SimpleCNN(), CnnNet(in_channels=3)])
def test_init_from_refuses_another_network(other: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds another network"):
        checkpoints.initialize_from(CnnNet(), saved(tmp_path / "a.ckpt", other))
