"""What a TensorBoard shows of a run, asked of a TensorBoard that serves it."""

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mnist_cnn.models import CnnNet, SimpleCNN
from mnist_cnn.reporting.tensorboard import RunLogger, layer_outputs
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.xdist_group("tensorboard")  # one server for all of them


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory, mnist: Path) -> Path:
    """Return logs/ after a run and a sweep of two, all short."""
    folder = tmp_path_factory.mktemp("tensorboard")
    common = [
        "trainer=smoke",
        "trainer.accelerator=cpu",
        f"data.dir={mnist}",
        "callbacks.pictures.every_n_epochs=2",
    ]
    for arguments in (
        ["trainer.max_epochs=2"],
        ["-m", "optim=adam", "optim.lr=0.01,0.002", "optim.weight_decay=1e-4"],
    ):
        subprocess.run(
            [sys.executable, str(REPOSITORY / "train.py"), *arguments, *common],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return folder / "logs"


@pytest.fixture(scope="module")
def served(logs: Path) -> Iterator[str]:
    """Serve `logs` and return the address."""
    process = subprocess.Popen(
        [*(sys.executable, "-m", "tensorboard.main", "--logdir", str(logs)), "--port=0", "--host=127.0.0.1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                break
        assert found, "TensorBoard did not start"
        yield found[0]
        process.stderr.close()
        process.terminate()


def ask(address: str, question: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + question, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def tags(address: str, plugin: str) -> dict[str, set[str]]:
    return {run: set(found) for run, found in ask(address, f"data/plugin/{plugin}/tags").items()}


def test_hparams_shows_the_choices_beside_the_real_metrics(served: str, logs: Path) -> None:
    # TensorBoard reads the files once before it answers
    body = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS"],
        "colParams": [{"metric": {"tag": tag}} for tag in ("val/acc", "test/acc", "test/loss")],
        "startIndex": 0,
        "sliceSize": 10,
    }
    sessions = ask(served, "data/plugin/hparams/session_groups", body)["sessionGroups"]
    assert len(sessions) == 3
    assert sorted(session["hparams"]["lr"] for session in sessions) == [0.002, 0.01, 0.01]
    for session in sessions:
        run = next(logs.glob(session["sessions"][0]["name"]))
        metrics = json.loads((run / "metrics.json").read_text())
        shown = {value["name"]["tag"]: value["value"] for value in session["metricValues"]}
        assert shown == {tag: pytest.approx(metrics[tag]) for tag in ("val/acc", "test/acc", "test/loss")}
        chosen = session["hparams"]
        assert chosen["model"] == "simple"
        assert chosen["seed"] == 42
        assert chosen.get("optim.weight_decay") == (1e-4 if chosen["optim"] == "adam" else None)
        assert {"optim", "loss", "scheduler", "batch_size", "max_epochs"} <= set(chosen)
    experiment = ask(served, "data/plugin/hparams/experiment", {"experimentName": ""})
    assert "hp_metric" not in {info["name"]["tag"] for info in experiment["metricInfos"]}
    first = [info["name"] for info in experiment["hparamInfos"] if info["differs"]]
    assert {"model", "optim", "loss", "lr"} <= set(first)


def test_scalars_are_by_split_with_one_point_an_epoch(served: str) -> None:
    runs = tags(served, "scalars")
    assert len(runs) == 3
    expected = {f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "acc")}
    assert all(found == expected for found in runs.values())


def test_a_job_of_a_sweep_is_a_run_named_by_what_was_swept(served: str) -> None:
    names = sorted(run.rsplit("/", 1)[1] for run in tags(served, "scalars") if run.startswith("sweeps/"))
    assert names == ["0_optim.lr=0.01", "1_optim.lr=0.002"]


def test_pictures_are_there_from_before_the_first_epoch_to_the_last(served: str) -> None:
    runs = ask(served, "data/plugin/images/tags")
    run = next(name for name in runs if name.startswith("runs/"))
    assert set(runs[run]) == {
        "predictions/validation",
        "predictions/test",
        "most_wrong/test",
        "confusion_matrix/test",
        "kernels/first_convolution",
        "feature_maps/layer_by_layer",
    }
    kernels = ask(served, f"data/plugin/images/images?run={run}&tag=kernels/first_convolution&sample=0")
    assert [image["step"] for image in kernels] == [0, 2]
    wrong = ask(served, f"data/plugin/images/images?run={run}&tag=most_wrong/test&sample=0")
    assert [image["step"] for image in wrong] == [2]


def test_the_graph_and_the_settings_are_there(served: str) -> None:
    run = next(name for name in tags(served, "scalars") if name.startswith("runs/"))
    assert ask(served, "data/plugin/graphs/info")[run]["run_graph"]
    assert any(tag.startswith("config") for tag in ask(served, "data/plugin/text/tags")[run])


def test_only_a_run_that_succeeded_is_said_to_have_ended(tmp_path: Path) -> None:
    for name in ("succeeded", "failed"):
        logger = RunLogger(tmp_path / name)
        logger.log_settings({"lr": 0.1}, "lr: 0.1")
        logger.finalize("success" if name == "succeeded" else "failed")
        if name == "succeeded":
            logger.close()
    ended = {
        name: b"_hparams_/session_end_info" in b"".join(p.read_bytes() for p in (tmp_path / name).iterdir())
        for name in ("succeeded", "failed")
    }
    assert ended == {"succeeded": True, "failed": False}


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (SimpleCNN(), {"conv1": (32, 28, 28), "conv2": (64, 14, 14), "fc1": (128,), "fc2": (10,)}),
        (
            CnnNet(),
            {"conv1": (6, 28, 28), "conv2": (16, 10, 10), "fc1": (120,), "fc2": (84,), "fc3": (10,)},
        ),
    ],
)
def test_layer_outputs_are_those_of_one_image_in_order(
    network: SimpleCNN | CnnNet, expected: dict[str, tuple[int, ...]]
) -> None:
    size = network.image_size
    outputs = layer_outputs(network, torch.rand(1, 1, size, size))
    assert {name: tuple(values.shape) for name, values in outputs.items()} == expected
    assert list(outputs) == list(expected)
    assert not any(module._forward_hooks for module in network.modules() if isinstance(module, nn.Module))
