"""The content of a checkpoint, and what is built from one."""

import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from mnist_cnn.data import ImageData
from mnist_cnn.errors import UserError
from mnist_cnn.models import CnnNet, SimpleCNN
from mnist_cnn.training import checkpoints, loading
from mnist_cnn.training.classifier import Classifier

CONFIG: dict[str, Any] = {
    "model": {"_target_": "mnist_cnn.models.CnnNet", "in_channels": 1, "num_classes": 10},
    "loss": {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.0},
    "data": {
        "source": {"_target_": "mnist_cnn.data.MNIST"},
        "mean": 0.5,
        "std": 0.5,
        "in_channels": 1,
        "image_size": 28,
        "num_classes": 10,
        "classes": [str(digit) for digit in range(10)],
    },
}


def saved(path: Path, network: nn.Module | None = None, **changes: Any) -> Path:
    classifier = Classifier(network or CnnNet(), nn.CrossEntropyLoss(), 10)
    config = CONFIG | changes
    torch.save({"state_dict": classifier.state_dict(), "config": config}, path)
    return path


def test_classifier_is_built_from_the_file_alone(tmp_path: Path) -> None:
    path = saved(tmp_path / "best.ckpt")
    classifier = Classifier.load_from_checkpoint(path)
    assert isinstance(classifier.network, CnnNet)
    assert not classifier.training
    expected = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(value, expected[name]) for name, value in classifier.state_dict().items())


def test_lightnings_own_calls_load_and_predict(tmp_path: Path, small_data: ImageData) -> None:
    path = saved(tmp_path / "best.ckpt", SimpleCNN(), model={"_target_": "mnist_cnn.models.SimpleCNN"})
    classifier = Classifier.load_from_checkpoint(str(path))
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    images = small_data.normalize(small_data.test.images)
    with torch.inference_mode():
        expected = classifier(images)
    for batches in (small_data, DataLoader(images, batch_size=8)):
        predicted = torch.cat(trainer.predict(classifier, batches))
        torch.testing.assert_close(predicted, expected)


def test_torchvision_network_is_built_without_a_download(tmp_path: Path) -> None:
    import torchvision.models

    network = torchvision.models.resnet18(num_classes=10)
    settings = {"_target_": "torchvision.models.resnet18", "num_classes": 10, "weights": "DEFAULT"}
    path = saved(tmp_path / "best.ckpt", network, model=settings)
    loaded = Classifier.load_from_checkpoint(path).network
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
        "mnist_cnn.data.download.with_torchvision",
        "mnist_cnn.training.checkpoints.load",
        "subprocess.Popen",
        "",
    ],
)
def test_only_networks_and_layers_are_built_from_a_file(target: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "malicious.ckpt", model={"_target_": target})
    with pytest.raises(UserError, match=r"is not a class that this repository uses|is needed"):
        Classifier.load_from_checkpoint(path)


def test_pickle_that_calls_a_function_is_refused(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"state_dict": {}, "config": Malicious()}, tmp_path / "malicious.ckpt")
    with pytest.raises(UserError, match="is not a readable checkpoint"):
        loading.load(tmp_path / "malicious.ckpt")
    assert not (tmp_path / "executed").exists()


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    content = saved(tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"half\.ckpt is not a readable checkpoint"):
        loading.load(tmp_path / "half.ckpt")


def test_weights_without_settings_are_refused(tmp_path: Path) -> None:
    torch.save(SimpleCNN().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"is not a checkpoint of train\.py"):
        loading.load(tmp_path / "weights.pt")


def test_run_interrupted_in_its_first_epoch_has_no_resume_point(tmp_path: Path) -> None:
    assert checkpoints.find_resume_point(tmp_path) == (0, None)


def resumable(folder: Path, name: str, step: int) -> Path:
    path = folder / "checkpoints" / name
    path.parent.mkdir(exist_ok=True)
    content = {"state_dict": {}, "config": {}, "epoch": step // 10, "global_step": step}
    checkpoints.AtomicCheckpointIO().save_checkpoint(content, path)
    return path


@pytest.mark.parametrize(("last", "best", "chosen"), [(30, 20, "last"), (20, 30, "best"), (20, 20, "last")])
def test_run_continues_from_the_checkpoint_of_the_latest_step(
    last: int, best: int, chosen: str, tmp_path: Path
) -> None:
    resumable(tmp_path, "last.ckpt", last)
    resumable(tmp_path, "best.ckpt", best)
    point = checkpoints.find_resume_point(tmp_path)
    path = tmp_path / "checkpoints" / f"{chosen}.ckpt"
    assert point == (max(last, best), path)


def test_run_continues_from_its_best_epoch_if_the_last_checkpoint_is_truncated(tmp_path: Path) -> None:
    last, best = resumable(tmp_path, "last.ckpt", 30), resumable(tmp_path, "best.ckpt", 20)
    last.write_bytes(last.read_bytes()[:100])
    assert checkpoints.find_resume_point(tmp_path) == (20, best)


def test_run_of_which_no_checkpoint_can_be_read_does_not_start_again(tmp_path: Path) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        resumable(tmp_path, name, 10).write_bytes(b"")
    with pytest.raises(UserError, match=r"best\.ckpt and .*last\.ckpt cannot be read.*remove them"):
        checkpoints.find_resume_point(tmp_path)


def test_flipped_bit_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt")
    content = path.read_bytes()
    expected = torch.load(path, weights_only=True)["state_dict"]
    found = 0
    for position in range(0, len(content), len(content) // 99):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        try:
            state = loading.load(path)["state_dict"]
        except UserError:
            found += 1
        else:  # a bit between the members, or of a date
            assert all(torch.equal(value, expected[name]) for name, value in state.items())
    assert found > 90


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file sizes")
def test_checkpoint_that_cannot_be_written_leaves_the_former_one(tmp_path: Path) -> None:
    import resource

    path = resumable(tmp_path, "last.ckpt", 10)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            checkpoints.AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "no complete settings: model=None"),
        ({"data": {}}, r"no complete settings: data\.source is missing"),
        ({"data": CONFIG["data"] | {"classes": [1]}}, "no complete settings: data.classes"),
        ({"data": [1]}, "no complete settings"),
        ({"trainer": "x"}, "no complete settings: trainer=x"),
        ({"model": {"_target_": "mnist_cnn.models.Missing"}}, "wrong settings of Missing"),
        ({"model": CONFIG["model"] | {"colour": 1}}, "wrong settings of CnnNet.*colour"),
        ({"model": CONFIG["model"] | {"in_channels": 3}}, "do not fit its network.*size mismatch"),
        ({"model": {"_target_": "mnist_cnn.models.SimpleCNN"}}, "do not fit its network.*Unexpected key"),
    ],
)
def test_checkpoint_with_other_settings_is_refused_in_a_line(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Classifier.load_from_checkpoint(saved(tmp_path / "a.ckpt", **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    network = CnnNet()
    with torch.no_grad():
        next(network.parameters()).view(-1)[3] = value
    with pytest.raises(UserError, match=r"not finite numbers, in network\."):
        Classifier.load_from_checkpoint(saved(tmp_path / "a.ckpt", network))


def test_class_names_cannot_control_the_terminal(tmp_path: Path) -> None:
    names = ["\x1b[2Jcat", "dog\n", "Straße", "猫", "a\u202eb", *"56789"]
    path = saved(tmp_path / "a.ckpt", data=CONFIG["data"] | {"classes": names})
    classes = Classifier.load_from_checkpoint(path).config["data"]["classes"]
    assert classes == ["?[2Jcat", "dog?", "Straße", "猫", "a?b", *"56789"]


def test_folder_in_a_checkpoint_is_not_used() -> None:
    trained = {"source": {"_target_": "mnist_cnn.data.MNIST"}, "dir": "/somewhere"}
    assert loading.data_dir(trained, None) == "data"
    assert loading.data_dir(trained, "mine") == "mine"
    for source in ("ImageFolder", "ArrayFile"):
        trained["source"] = {"_target_": f"mnist_cnn.data.{source}"}
        assert loading.data_dir(trained, "mine") == "mine"
        with pytest.raises(UserError, match=r"data\.dir=PATH"):
            loading.data_dir(trained, None)


def test_init_from_copies_all_weights_of_the_same_network(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained, network = CnnNet(), CnnNet()
    loading.initialize_from(network, saved(tmp_path / "a.ckpt", trained), CONFIG["data"])
    assert caplog.text == ""
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), trained.parameters(), strict=True))


@pytest.mark.parametrize("classes", [list("abcdefghijklmnopqrstuvwxyz"), list("0123456798")])
def test_init_from_keeps_a_new_last_layer_where_the_classes_differ(
    classes: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained, network = CnnNet(), CnnNet(num_classes=len(classes))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    data = CONFIG["data"] | {"classes": classes, "num_classes": len(classes)}
    loading.initialize_from(network, saved(tmp_path / "a.ckpt", trained), data)
    assert "the last layer, fc3, starts anew" in caplog.text
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith("fc3.") else trained.state_dict()[name])


class HeadFirst(nn.Module):
    """Makes its last layer before the others."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.body = nn.Linear(784, 64)
        self.norm = nn.BatchNorm1d(64)


def test_last_layer_is_found_by_its_outputs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = CONFIG["data"] | {"classes": list("abcdefghij")}
    loading.initialize_from(HeadFirst(), saved(tmp_path / "a.ckpt", HeadFirst()), data)
    assert "the last layer, head, starts anew" in caplog.text


@pytest.mark.parametrize("other", [SimpleCNN(), CnnNet(in_channels=3)])
def test_init_from_refuses_another_network(other: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds another network"):
        loading.initialize_from(CnnNet(), saved(tmp_path / "a.ckpt", other), CONFIG["data"])


def test_init_from_says_how_the_images_of_the_checkpoint_were_normalized(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = CONFIG["data"] | {"mean": 0.1307, "prepare": "digits"}
    loading.initialize_from(CnnNet(), saved(tmp_path / "a.ckpt", CnnNet()), data)
    assert "was trained with data.prepare=resize data.mean=0.5: " in caplog.text


def test_pipe_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    os.mkfifo(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match="is not a regular file"):
        loading.load(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt cannot be read"):
        checkpoints.find_resume_point(tmp_path)
