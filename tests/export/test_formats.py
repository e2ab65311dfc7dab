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
from mnist_cnn.export import check, formats, onnx, safetensors, torch_export
from mnist_cnn.export.loaded import load_network
from mnist_cnn.export.network import load_trained
from mnist_cnn.inference.predictor import Predictor
from mnist_cnn.training import loading
from tests.export.checkpoint import save
from tests.fuzz.run import memory
from tests.fuzz.targets import onnx_network

MODULES = {".onnx": onnx, ".safetensors": safetensors, ".pt2": torch_export}
CASES = [
    (model, extension)
    for model in ("simple", "cnnnet", "resnet18")
    for extension in MODULES
    if (model, extension) != ("resnet18", ".pt2")  # traced as for .onnx
]


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


@pytest.mark.parametrize(("model", "extension"), CASES)
def test_exported_network_computes_the_logits_of_the_checkpoint(
    model: str, extension: str, tmp_path: Path
) -> None:
    ckpt = save(tmp_path, model)
    network, description = load_trained(ckpt)
    path = tmp_path / f"network{extension}"
    module = MODULES[extension]
    module.write(network, description, path)  # type: ignore[attr-defined]
    loaded = module.load(path)  # type: ignore[attr-defined]
    assert loaded.description == description

    classifier = loading.load_classifier(ckpt)
    data = classifier.config["data"]
    mean, std = (torch.tensor(data[name]).view(-1, 1, 1) for name in ("mean", "std"))
    size = 32 if model == "cnnnet" else 28
    for batch_size in (1, 2, 7):
        images = noise((batch_size, data["in_channels"], size, size))
        with torch.inference_mode():
            expected = classifier((torch.from_numpy(images) / 255 - mean) / std)
        logits = loaded(images)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


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


@pytest.mark.parametrize("format", ["safetensors", "html"])
def test_checkpoint_in_the_root_folder_is_exported(
    format: str, mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ckpt = save(tmp_path, "cnnnet")
    monkeypatch.setattr(Path, "absolute", lambda path: Path("/", path.name))
    assert formats.export([ckpt], format, None, str(mnist)).is_file()


def test_checkpoint_with_data_settings_of_an_older_version_is_exported(tmp_path: Path, mnist: Path) -> None:
    ckpt = save(tmp_path, "cnnnet")
    checkpoint = torch.load(ckpt)
    del checkpoint["config"]["data"]["source"]
    checkpoint["config"]["data"]["name"] = "mnist"
    torch.save(checkpoint, ckpt)
    assert formats.export([ckpt], "safetensors", None, str(mnist)).is_file()


@pytest.mark.parametrize("extension", [".onnx", ".pt2"])
def test_file_holds_no_path_of_the_machine(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"network{extension}"
    MODULES[extension].write(*load_trained(save(tmp_path, "cnnnet")), path)  # type: ignore[attr-defined]
    content = path.read_bytes()
    assert b".py" not in content
    assert str(tmp_path).encode() not in content


def test_onnx_is_loaded_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    onnx.write(*load_trained(save(tmp_path, "simple")), path)
    code = (
        "import sys; from pathlib import Path; import numpy\n"
        "from mnist_cnn.export.loaded import load_network\n"
        "network = load_network(Path(sys.argv[1]))\n"
        "assert network(numpy.zeros((3, 1, 28, 28), numpy.uint8)).shape == (3, 10)\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


@pytest.mark.parametrize("name", ["x.onnx", "x.safetensors"])
def test_other_files_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"something else entirely")
    with pytest.raises(UserError, match="cannot be read"):
        load_network(path)


def test_onnx_is_read_from_a_regular_file_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} is not a regular file"):
        onnx.load(tmp_path)


def test_file_of_torch_export_is_not_loaded_as_it_could_run_code(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="format=onnx"):
        load_network(tmp_path / "network.pt2")


def test_onnx_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    network, description = load_trained(save(tmp_path, "cnnnet"))
    program = torch.onnx.export(torch_export.trace(network, description), verbose=False)
    assert program is not None
    program.save(path)
    with pytest.raises(UserError, match=r"Export the checkpoint again.*format=onnx"):
        load_network(path)


def test_safetensors_builds_trusted_classes_only(tmp_path: Path) -> None:
    network, description = load_trained(save(tmp_path, "cnnnet"))
    path = tmp_path / "network.safetensors"
    safetensors.write(network, description.model_copy(update={"model": {"_target_": "os.system"}}), path)
    with pytest.raises(UserError, match=r"os\.system"):
        load_network(path)


@pytest.mark.parametrize(
    ("format", "package"),
    [
        ("onnx", "onnx"),
        ("onnx", "onnxscript"),
        ("onnx", "onnxruntime"),
        ("safetensors", "safetensors"),
    ],
)
def test_missing_package_is_named_with_its_extra(
    format: str, package: str, mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == package] or [package]:
        monkeypatch.setitem(sys.modules, module, None)
    ckpt = save(tmp_path, "cnnnet")
    with pytest.raises(UserError) as caught:
        formats.export([ckpt], format, None, str(mnist))
    message = str(caught.value)
    assert f"needs the package {package}" in message
    assert message.endswith(f"pip install -e '.[{format}]'")
    assert [path.name for path in ckpt.parent.iterdir()] == ["best.ckpt"]


def test_broken_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "safetensors").mkdir()
    (tmp_path / "safetensors" / "__init__.py").write_text("raise ImportError('libc.so.9 is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.partition(".")[0] == "safetensors"]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(
        UserError, match=r"safetensors cannot use .*libc\.so\.9 is missing.*'\.\[safetensors\]'"
    ):
        formats.export([save(tmp_path, "cnnnet")], "safetensors", None, str(tmp_path))


def test_missing_package_is_named_where_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"format onnx needs the package onnxruntime.*'\.\[onnx\]'"):
        load_network(tmp_path / "network.onnx")


def test_network_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckpt = save(tmp_path, "cnnnet")
    write = safetensors.write

    def wrong(network: torch.nn.Module, *rest: object) -> None:
        with torch.no_grad():
            next(network.parameters()).add_(0.5)
        write(network, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(safetensors, "write", wrong)
    monkeypatch.setattr(MNIST, "fetch", lambda *_: (_ for _ in ()).throw(UserError("no network")))
    monkeypatch.setattr(formats, "runner", lambda network: lambda images: np.zeros((1000, 3), np.float32))
    with pytest.raises(check.DifferentLogits, match="largest difference"):
        formats.export([ckpt], "safetensors", None, None)
    assert [path.name for path in ckpt.parent.iterdir()] == ["best.ckpt"]


def onnx_file(path: Path, node: str, weights: np.ndarray, **attributes: object) -> Path:
    """Write a network of one operation, with the description of an exported one."""
    from onnx import helper, load, numpy_helper, save_model

    path.write_bytes(onnx_network())
    model = load(path)
    del model.graph.node[:], model.graph.initializer[:]
    inputs = ["weights"] if node == "ConstantOfShape" else ["a", "weights"]
    model.graph.node.append(helper.make_node("Cast", ["images"], ["a"], to=1))
    model.graph.node.append(helper.make_node(node, inputs, ["logits"], **attributes))
    model.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    save_model(model, path)
    return path


@pytest.mark.parametrize(
    ("node", "weights", "attributes"),
    [
        ("ConstantOfShape", np.array([10**6, 10**6]), {}),
        ("Conv", np.ones((1, 1, 3, 3), np.float32), {"pads": [10**5] * 4}),
        ("Mul", np.full((28,), np.nan, np.float32), {}),
        ("Add", np.ones((28,), np.float32), {}),
        ("ReduceMean", np.arange(4), {"keepdims": 0}),
    ],
)
def test_onnx_network_of_other_outputs_or_of_any_memory_is_refused(
    node: str, weights: np.ndarray, attributes: dict[str, object], tmp_path: Path
) -> None:
    predictor = Predictor.load(onnx_file(tmp_path / "a.onnx", node, weights, **attributes))
    before = memory()
    with pytest.raises(UserError, match=r"failed to run or exceeded|finite logits of shape \(2, 10\)"):
        predictor.scores(noise((2, 1, 28, 28)))
    assert memory() - before < 500_000_000


def test_onnx_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    from onnx import load, numpy_helper, save_model

    (tmp_path / "a.onnx").write_bytes(onnx_network())
    model = load(tmp_path / "a.onnx")
    matrix = next(one for one in model.graph.initializer if one.name == "matrix")
    matrix.CopyFrom(numpy_helper.from_array(np.full((196, 10), np.nan, np.float32), "matrix"))
    save_model(model, tmp_path / "a.onnx")
    with pytest.raises(UserError, match=r"finite logits of shape \(1, 10\) .* export it again"):
        Predictor.load(tmp_path / "a.onnx").scores(noise((1, 1, 28, 28)))


def test_onnx_of_endless_time_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx import TensorProto, helper, load, numpy_helper, save_model

    (tmp_path / "a.onnx").write_bytes(onnx_network())
    model = load(tmp_path / "a.onnx")
    names = ("step", "go_on", "x", "go_on_out", "y")
    types = (TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT, TensorProto.BOOL, TensorProto.FLOAT)
    step, go_on, x, out, y = (
        helper.make_tensor_value_info(name, type_, []) for name, type_ in zip(names, types, strict=True)
    )
    nodes = [
        helper.make_node("Identity", ["go_on"], ["go_on_out"]),
        helper.make_node("Add", ["x", "x"], ["y"]),
    ]
    body = helper.make_graph(nodes, "body", [step, go_on, x], [out, y])
    values = {"count": np.array(2**62), "true": np.array(True), "start": np.array(0.0, np.float32)}
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.node.append(helper.make_node("Loop", ["count", "true", "start"], ["end"], body=body))
    model.graph.output.append(helper.make_tensor_value_info("end", TensorProto.FLOAT, []))
    save_model(model, tmp_path / "a.onnx")
    monkeypatch.setattr(onnx, "MAX_SECONDS", 0.5)
    with pytest.raises(UserError, match=r"exceeded the limits of 4 GB and 0\.5 s.*format=onnx"):
        Predictor.load(tmp_path / "a.onnx").scores(noise((1, 1, 28, 28)))


def test_safetensors_network_larger_than_its_file_is_not_built(tmp_path: Path) -> None:
    network, description = load_trained(save(tmp_path, "cnnnet"))
    large = description.model | {"num_classes": 10**8}
    safetensors.write(network, description.model_copy(update={"model": large}), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="more than the file can hold"):
        load_network(tmp_path / "a.safetensors")
