"""ONNX, torch.export and safetensors: the same logits as PyTorch, and a description that comes back."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from mnist_cnn.data import MNIST
from mnist_cnn.errors import UserError
from mnist_cnn.export import check, formats, load_network
from mnist_cnn.export.formats import MODULES
from mnist_cnn.export.network import load_trained
from mnist_cnn.inference.predictor import Predictor
from mnist_cnn.training.classifier import Classifier
from tests.export.checkpoint import save
from tests.export.onnx_network import onnx_network

CASES = [
    (model, format_)
    for model in ("simple", "cnnnet", "resnet18")
    for format_ in MODULES
    if (model, format_) != ("resnet18", "torch_export")  # traced as for onnx
]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def write(format_: str, ckpt: Path, path: Path, **changes: object) -> None:
    """Write the network of a checkpoint without any check, with changes of its description."""
    network, description = load_trained(ckpt)
    MODULES[format_].write(network, description.model_copy(update=changes), path)


@pytest.mark.parametrize(("model", "format_"), CASES)
def test_exported_network_computes_the_logits_of_the_checkpoint(
    model: str, format_: str, tmp_path: Path
) -> None:
    ckpt = save(tmp_path, model)
    path = tmp_path / "network"
    write(format_, ckpt, path)
    loaded = MODULES[format_].load(path)
    assert loaded.description == load_trained(ckpt)[1]

    classifier = Classifier.load_from_checkpoint(ckpt)
    data = classifier.config["data"]
    mean, std = (torch.tensor(data[name]).view(-1, 1, 1) for name in ("mean", "std"))
    size = 32 if model == "cnnnet" else 28
    for batch_size in (1, 2, 7):
        images = noise(batch_size, data["in_channels"], size, size)
        with torch.inference_mode():
            expected = classifier((torch.from_numpy(images) / 255 - mean) / std)
        logits = loaded.run(images)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
    content = path.read_bytes()
    for folder in ("mnist_cnn/models", "site-packages", str(tmp_path)):  # no path of this machine
        assert folder.encode() not in content


def test_description_says_what_the_network_takes_and_how_it_was_trained(tmp_path: Path) -> None:
    ckpt = save(tmp_path, "cnnnet")
    metrics = {"best_epoch": 2, "val/acc": 0.75, "test/acc": 0.5, "seconds": 3.0}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    description = load_trained(ckpt)[1]
    assert description.network_name == "CnnNet"
    assert description.model["layers"] == "torch"  # the handmade layers have the same parameters
    assert description.classes == ["class 0", "class 1", "class 2"]
    assert (description.in_channels, description.image_size) == (1, 32)
    assert (description.mean, description.std) == (0.25, 0.5)
    assert description.gives_probabilities
    assert (description.data, description.loss) == ("MNIST", "CrossEntropyLoss")
    assert (description.seed, description.epochs) == (3, 2)
    assert description.metrics == {"val/acc": 0.75, "test/acc": 0.5}
    assert description.mnist_cnn_version == version("mnist-cnn")


@pytest.mark.parametrize("content", ['{"best_epoch": 1, "test/acc": 0.5}', "[1]", "no JSON"])
def test_metrics_of_another_epoch_or_program_are_not_described(content: str, tmp_path: Path) -> None:
    ckpt = save(tmp_path, "cnnnet")
    (tmp_path / "metrics.json").write_text(content)
    assert load_trained(ckpt)[1].metrics == {}


@pytest.mark.parametrize("format_", ["safetensors", "html"])
def test_checkpoint_in_the_root_folder_is_exported(
    format_: str, mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ckpt = save(tmp_path, "cnnnet")
    monkeypatch.setattr(Path, "absolute", lambda path: Path("/", path.name))
    assert formats.export([ckpt], format_, None, str(mnist)).is_file()


def test_safetensors_file_can_be_read_by_those_who_can_read_the_checkpoint(
    mnist: Path, tmp_path: Path
) -> None:
    ckpt = save(tmp_path, "cnnnet")
    exported = formats.export([ckpt], "safetensors", None, str(mnist))
    assert exported.stat().st_mode == ckpt.stat().st_mode


def test_onnx_is_loaded_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(onnx_network())
    code = (
        "import sys; from pathlib import Path; import numpy\n"
        "from mnist_cnn.export import load_network\n"
        "network = load_network(Path(sys.argv[1]))\n"
        "assert network.run(numpy.zeros((3, 1, 28, 28), numpy.uint8)).shape == (3, 10)\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.onnx", "cannot be read"),
        ("x.safetensors", "cannot be read"),
        ("folder.onnx", "cannot be read"),
        ("x.pt2", "format=onnx"),  # it could run code
    ],
)
def test_other_files_are_refused(name: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.startswith("folder"):
        path.mkdir()
    else:
        path.write_bytes(b"something else entirely")
    with pytest.raises(UserError, match=message):
        load_network(path)


def test_onnx_of_another_program_is_refused(tmp_path: Path) -> None:
    import onnx as onnx_library

    model = onnx_library.load_from_string(onnx_network())
    del model.metadata_props[:]
    onnx_library.save_model(model, tmp_path / "network.onnx")
    with pytest.raises(UserError, match=r"Export the checkpoint again.*format=onnx"):
        load_network(tmp_path / "network.onnx")


def test_safetensors_builds_trusted_classes(tmp_path: Path) -> None:
    write(
        "safetensors", save(tmp_path, "cnnnet"), tmp_path / "a.safetensors", model={"_target_": "os.system"}
    )
    with pytest.raises(UserError, match=r"os\.system"):
        load_network(tmp_path / "a.safetensors")


def test_network_of_another_package_is_exported_if_that_is_trusted(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "someone.py").write_text("from mnist_cnn.models import CnnNet\n\nclass Own(CnnNet): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    ckpt = save(tmp_path, "cnnnet")
    checkpoint = torch.load(ckpt)
    checkpoint["config"]["model"]["_target_"] = "someone.Own"
    torch.save(checkpoint, ckpt)
    with pytest.raises(UserError, match=r"someone\.Own"):
        formats.export([ckpt], "html", None, str(mnist))
    assert formats.export([ckpt], "html", None, str(mnist), trusted=["someone"]).is_file()


@pytest.mark.parametrize(
    ("format_", "package"),
    [("onnx", "onnx"), ("onnx", "onnxscript"), ("onnx", "onnxruntime"), ("safetensors", "safetensors")],
)
def test_missing_package_is_named_with_its_extra(
    format_: str, package: str, mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == package] or [package]:
        monkeypatch.setitem(sys.modules, module, None)
    ckpt = save(tmp_path, "cnnnet")
    message = rf"format={format_} needs other packages \(.*{package}.*pip install -e '\.\[{format_}\]'$"
    with pytest.raises(UserError, match=message):
        formats.export([ckpt], format_, None, str(mnist))
    assert [path.name for path in ckpt.parent.iterdir()] == ["best.ckpt"]
    if package in ("onnxruntime", "safetensors"):
        with pytest.raises(UserError, match=message):
            load_network(tmp_path / f"network.{format_}")


def test_network_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_data(*_: object) -> None:
        raise UserError("no connection")

    ckpt = save(tmp_path, "cnnnet")
    monkeypatch.setattr(MNIST, "fetch", no_data)
    monkeypatch.setattr(formats, "as_function", lambda _: lambda images: np.zeros((1000, 3), np.float32))
    with pytest.raises(check.DifferentLogits, match="largest difference"):
        formats.export([ckpt], "safetensors", None, None)
    assert [path.name for path in ckpt.parent.iterdir()] == ["best.ckpt"]


# --- ONNX files of somebody else -----------------------------------------------------------------


def onnx_file(path: Path, node: str, weights: np.ndarray, **attributes: object) -> Path:
    """Write a network of one operation, with the description of an exported one."""
    from onnx import helper, load_from_string, numpy_helper, save_model

    model = load_from_string(onnx_network())
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.append(helper.make_node("Cast", ["images"], ["a"], to=1))
    model.graph.node.append(helper.make_node(node, ["a", "weights"], ["logits"], **attributes))
    model.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    save_model(model, path)
    return path


@pytest.mark.parametrize(
    ("node", "weights", "attributes"),
    [
        ("Mul", np.full((28,), np.nan, np.float32), {}),
        ("Add", np.ones((28,), np.float32), {}),
        ("Reshape", np.array([3, 5]), {}),
        ("ReduceMean", np.arange(4), {"keepdims": 0}),
    ],
)
def test_onnx_network_that_fails_or_has_other_outputs_is_refused(
    node: str, weights: np.ndarray, attributes: dict[str, object], tmp_path: Path
) -> None:
    predictor = Predictor.load(onnx_file(tmp_path / "a.onnx", node, weights, **attributes))
    with pytest.raises(UserError, match=r"failed to run|finite logits of shape \(2, 10\)"):
        predictor.scores(noise(2, 1, 28, 28))
