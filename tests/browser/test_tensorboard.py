"""TensorBoard over a real sweep: what its tabs show of four jobs."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import Browser
from tests.conftest import Command
from tests.runs import CPU, jobs_of, only_run

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


@pytest.fixture
def sweep(command: Command, mnist: Path, tmp_path: Path) -> Path:
    """Return the folder of a sweep of four jobs of a few batches each."""
    limits = [f"trainer.limit_{split}_batches=2" for split in ("train", "val", "test")]
    options = ["model=cnnnet", "trainer.max_epochs=1", "optim=sgd,adam", "loss=ce,mse", *limits]
    done = command("train.py", "-m", f"data.dir={mnist}", CPU, *options)
    assert done.returncode == 0, done.stderr
    return only_run(tmp_path, "sweeps")


@pytest.fixture
def tensorboard(sweep: Path) -> Iterator[str]:
    """Return the address of TensorBoard over the sweep."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(sweep), "--host", "127.0.0.1"]
    log = sweep / "tensorboard.log"
    with log.open("w") as output:
        process = subprocess.Popen([*command, "--port", "0"], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while "http://" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        (address,) = [word for word in log.read_text().split() if word.startswith("http://")]
        yield address
    finally:
        process.terminate()
        process.wait(30)


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


def test_tensorboard_shows_the_jobs_of_a_sweep(browser: Browser, sweep: Path, tensorboard: str) -> None:
    jobs = jobs_of(sweep)
    names = [job.name for job in jobs]
    assert names == [
        "0_optim-sgd_loss-ce",
        "1_optim-sgd_loss-mse",
        "2_optim-adam_loss-ce",
        "3_optim-adam_loss-mse",
    ]

    lines_of_tab(browser, tensorboard, "scalars", [*names, "test/acc", "test/loss"])

    lines = lines_of_tab(
        browser, tensorboard, "hparams", [*names, "TABLE VIEW", "Number of matching session groups: 4"]
    )
    header = lines[lines.index("Show Metrics") + 1 : lines.index(names[0])]
    assert {"optim", "loss", "lr", "val/acc", "test/acc", "test/loss"} <= set(header)
    for job in jobs:
        start = lines.index(job.name) + 1
        row = dict(zip(header, lines[start : start + len(header)], strict=True))
        metrics = json.loads((job / "metrics.json").read_text())
        assert f"optim-{row['optim']}_loss-{row['loss']}" == job.name.partition("_")[2]
        for name in ("val/acc", "test/acc", "test/loss"):
            assert float(row[name]) == pytest.approx(metrics[name], rel=1e-3)

    lines_of_tab(
        browser, tensorboard, "images&tagFilter=predictions", ["visuals/predictions_test", *names], images=4
    )

    lines_of_tab(browser, tensorboard, "graphs", [names[0], "CnnNet", "1×10"])
