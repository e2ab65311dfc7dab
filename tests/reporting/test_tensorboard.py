"""What TensorBoard shows of a run, queried from the server of `make tensorboard`."""

import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from mnist_cnn.reporting.tensorboard import RunLogger
from tests.conftest import REPOSITORY, Start
from tests.runs import CPU, scalars

pytestmark = pytest.mark.xdist_group("tensorboard")  # one server for all tests


@pytest.fixture(scope="module")
def logs(start_in: Start, tmp_path_factory: pytest.TempPathFactory, mnist: Path) -> Path:
    """Return logs/ after a short run and a short sweep of two jobs."""
    folder = tmp_path_factory.mktemp("tensorboard")
    common = ("debug=smoke", CPU, f"data.dir={mnist}")
    for arguments in (
        ["trainer.max_epochs=2", "callbacks.pictures.every_n_epochs=2"],
        ["-m", "optim=adam", "optim.lr=0.01,0.002", "optim.weight_decay=1e-4", "callbacks=none"],
    ):
        started = start_in(folder, "train.py", *arguments, *common)
        assert started.wait() == 0, started.errors
    return folder / "logs"


class Server(NamedTuple):
    process: psutil.Popen
    address: str


@pytest.fixture(scope="module")
def server(logs: Path) -> Iterator[Server]:
    """Serve `logs` with the options of `make tensorboard`."""
    made = subprocess.run(
        ["make", "--no-print-directory", "-n", "tensorboard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    _, *options = shlex.split(made.stdout.splitlines()[-1])
    assert options[:2] == ["--logdir", "logs"]
    process = psutil.Popen(
        [sys.executable, "-m", "tensorboard.main", *options, "--port=0"],
        cwd=logs.parent,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    with process:
        for line in process.stderr:
            if found := re.search(r"http://localhost:\d+/", line):
                break
        assert found, "TensorBoard did not start"
        yield Server(process, found[0])
        process.stderr.close()
        process.terminate()


@pytest.fixture
def served(server: Server) -> str:
    return server.address


def test_server_listens_on_this_machine_only(server: Server) -> None:
    family = [server.process, *server.process.children(recursive=True)]
    sockets = [one for process in family for one in process.net_connections("tcp")]
    addresses = {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
    assert addresses
    assert addresses <= {"127.0.0.1", "::1"}


def get(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def tags(address: str, plugin: str) -> dict[str, set[str]]:
    return {run: set(found) for run, found in get(address, f"data/plugin/{plugin}/tags").items()}


def test_hparams_tab_shows_settings_and_metrics(served: str, logs: Path) -> None:
    # TensorBoard reads the files once before it answers
    body = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS"],
        "colParams": [{"metric": {"tag": tag}} for tag in ("val/acc", "test/acc", "test/loss")],
        "startIndex": 0,
        "sliceSize": 10,
    }
    sessions = get(served, "data/plugin/hparams/session_groups", body)["sessionGroups"]
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
    experiment = get(served, "data/plugin/hparams/experiment", {"experimentName": ""})
    assert "hp_metric" not in {info["name"]["tag"] for info in experiment["metricInfos"]}
    first = [info["name"] for info in experiment["hparamInfos"] if info["differs"]]
    assert {"model", "optim", "loss", "lr"} <= set(first)


def test_scalars_have_expected_tags(served: str) -> None:
    runs = tags(served, "scalars")
    assert len(runs) == 3
    expected = {f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "acc")}
    assert all(found == expected | {"train/epoch"} for found in runs.values())


def test_custom_scalars_show_training_and_validation_in_one_card(served: str) -> None:
    layout = get(served, "data/plugin/custom_scalars/layout")
    charts = {chart["title"]: chart["multiline"]["tag"] for chart in layout["category"][0]["chart"]}
    assert charts == {"loss": ["^(train|val)/loss$"], "acc": ["^(train|val)/acc$"]}


def test_figures_are_logged_from_start_to_last_step(served: str) -> None:
    runs = get(served, "data/plugin/images/tags")
    run = next(name for name in runs if name.startswith("runs/"))
    assert set(runs[run]) == {
        "visuals/predictions_validation",
        "visuals/predictions_test",
        "visuals/most_wrong",
        "visuals/confusion_matrix",
        "visuals/kernels",
        "visuals/feature_maps",
    }
    kernels = get(served, f"data/plugin/images/images?run={run}&tag=visuals/kernels&sample=0")
    assert [image["step"] for image in kernels] == [0, 40]
    wrong = get(served, f"data/plugin/images/images?run={run}&tag=visuals/most_wrong&sample=0")
    assert [image["step"] for image in wrong] == [40]


def test_graph_and_settings_are_logged(served: str) -> None:
    run = next(name for name in tags(served, "scalars") if name.startswith("runs/"))
    assert get(served, "data/plugin/graphs/info")[run]["run_graph"]
    assert any(tag.startswith("config") for tag in get(served, "data/plugin/text/tags")[run])


@pytest.mark.parametrize("succeeded", [True, False])
def test_only_successful_run_is_marked_as_ended(succeeded: bool, tmp_path: Path) -> None:
    logger = RunLogger(str(tmp_path))
    logger.log_hyperparams({"lr": 0.1})
    logger.finalize("success" if succeeded else "failed")
    if succeeded:
        logger.close()
    (events,) = tmp_path.iterdir()
    assert (b"_hparams_/session_end_info" in events.read_bytes()) == succeeded


@pytest.mark.parametrize("step", [0, 4])
def test_resumed_logger_drops_what_was_logged_after_its_step(tmp_path: Path, step: int) -> None:
    def write(logger: RunLogger, first: int) -> None:
        logger.begin(first)
        for value in range(first + 1, 7):
            logger.log_metrics({"lr": 1 / value}, value)
        logger.save()

    killed = RunLogger(str(tmp_path))
    write(killed, 0)
    killed.experiment.close()
    time.sleep(1.0)  # the names of event files sort by the second, and after that by a number without zeros
    resumed = RunLogger(str(tmp_path))
    write(resumed, step)
    resumed.close()
    expected = [(value, pytest.approx(1 / value)) for value in range(1, 7)]
    assert scalars(tmp_path) == {"lr": expected}
