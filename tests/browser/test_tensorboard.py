"""The server of `make tensorboard` over a run and a sweep: what it answers, and what its tabs show."""

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

from tests.browser.conftest import Browser
from tests.conftest import REPOSITORY, Start
from tests.runs import CPU

pytestmark = pytest.mark.xdist_group("browser")

# The parts of the page lie in shadow roots, where the text of an element does not reach.
LINES = """
  const lines = [];
  const visit = (node) => {
    if (node.nodeType === Node.TEXT_NODE && node.textContent.trim()) {
      lines.push(node.textContent.trim());
    } else if (!["STYLE", "SCRIPT", "TEMPLATE", "NOSCRIPT"].includes(node.nodeName)) {
      (node.shadowRoot ?? node).childNodes.forEach(visit);
      if (node.shadowRoot) node.childNodes.forEach(visit);
    }
  };
  visit(document.body);
  return lines;
"""
LOADED_IMAGES = """
  const images = [];
  const visit = (root) => root.querySelectorAll("*").forEach((element) => {
    if (element.nodeName === "IMG" && element.naturalWidth > 0) images.push(element.src);
    if (element.shadowRoot) visit(element.shadowRoot);
  });
  visit(document);
  return images.length;
"""


@pytest.fixture(scope="module")
def logs(start_in: Start, tmp_path_factory: pytest.TempPathFactory, mnist: Path) -> Path:
    """Return logs/ after a short run and a short sweep of two jobs."""
    folder = tmp_path_factory.mktemp("tensorboard")
    common = ("debug=smoke", CPU, f"data.dir={mnist}")
    for arguments in (
        ["trainer.max_epochs=2", "callbacks=default", "callbacks.pictures.every_n_epochs=2"],
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
        ["make", "--no-print-directory", "-n", "tensorboard", "ARGS="],  # not those of `make test`
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


def lines_of_tab(browser: Browser, address: str, tab: str, wanted: list[str], images: int = 0) -> list[str]:
    """Open a tab and return its texts once all of `wanted` are among them, and as many images are shown."""
    browser.open("about:blank")  # another tab of the same address would not be loaded anew
    browser.open(f"{address}#{tab}", width=1400, height=1000)
    deadline = time.monotonic() + 30
    while True:
        lines: list[str] = browser.run(LINES)
        missing = [text for text in wanted if text not in lines]
        if not missing and browser.run(LOADED_IMAGES) >= images:
            browser.screenshot(f"tensorboard-{tab.partition('&')[0]}")
            return lines
        assert time.monotonic() < deadline, f"{tab} lacks {missing}: {lines}"
        time.sleep(0.3)


def test_tabs_show_the_run_and_the_jobs_of_the_sweep(browser: Browser, served: str, logs: Path) -> None:
    folders = sorted(path.parent for path in logs.rglob("metrics.json"))
    names = [str(folder.relative_to(logs)) for folder in folders]
    assert len(names) == 3

    lines_of_tab(browser, served, "scalars", [*names, "test/acc", "test/loss"])

    wanted = [*names, "TABLE VIEW", "Number of matching session groups: 3"]
    lines = lines_of_tab(browser, served, "hparams", wanted)
    first = min(lines.index(name) for name in names)
    header = lines[lines.index("Show Metrics") + 1 : first]
    assert {"lr", "val/acc", "test/acc", "test/loss"} <= set(header)
    for folder, name in zip(folders, names, strict=True):
        start = lines.index(name) + 1
        # An empty cell, of a setting that a run does not have, is no line.
        row = [float(text) for text in lines[start : start + len(header)] if re.fullmatch(r"[\d.e-]+", text)]
        metrics = json.loads((folder / "metrics.json").read_text())
        assert float(name.partition("optim.lr-")[2] or 0.01) in row
        for metric in ("val/acc", "test/acc", "test/loss"):
            assert any(value == pytest.approx(metrics[metric], rel=1e-3) for value in row)

    images = ["visuals/predictions_test", *names]
    lines_of_tab(browser, served, "images&tagFilter=predictions_test", images, images=3)

    lines_of_tab(browser, served, "graphs", [names[0], "SimpleCNN", "1×10"])
