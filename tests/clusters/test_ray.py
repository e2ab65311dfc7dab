"""Sweeps of real trainings on a Ray cluster of two nodes on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters.conftest import wait_until
from tests.conftest import Command, Start
from tests.runs import SHORT, jobs_of, processes_of

EPOCHS = 12


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Start the head of a cluster, with one core."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield started
    started.shutdown()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_jobs_of_a_lost_node_continue_on_another(
    cluster: Any, start: Start, mnist: Path, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=1)
    started = start(
        "train.py",
        "-m",
        *SHORT,
        f"data.dir={mnist}",
        "logger=none",
        "hydra.sweep.dir=sweep",
        "trainer.limit_train_batches=30",
        f"trainer.max_epochs={EPOCHS}",
        "seed=0,1,2",
        "hydra/launcher=ray",
        f"hydra.launcher.init.address={cluster.address}",
    )
    logs = tmp_path / "sweep"
    wait_until(lambda: sum("epoch  3/12" in log.read_text() for log in logs.glob("*/train.log")) == 2)
    cluster.remove_node(node, allow_graceful=False)
    assert started.wait() == 0, started.output + started.errors
    assert "3 ok" in started.output
    texts = [(job / "train.log").read_text() for job in jobs_of(logs)]
    assert sum("resumed    " in text for text in texts) == 1
    for job in jobs_of(logs):
        assert json.loads((job / "metrics.json").read_text())["epochs"] == EPOCHS
        epochs = [epoch["epoch"] for epoch in json.loads((job / "history.json").read_text())]
        assert epochs == list(range(1, EPOCHS + 1))
    assert processes_of(tmp_path) == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_job_on_ray_starts_its_own_ranks(train: Command, tmp_path: Path) -> None:
    ranks = ("trainer=ddp", "trainer.devices=2")
    ray = ("logger=tensorboard", "trainer.max_epochs=1", "hydra.sweep.dir=sweep", "hydra/launcher=ray")
    done = train("-m", *SHORT, *ranks, *ray, "optim.lr=0.01")
    assert "job 0 finished: val/acc" in done.stdout
    (job,) = jobs_of(tmp_path / "sweep")
    assert json.loads((job / "metrics.json").read_text())["devices"] == 2
    assert len(list(job.glob("events.out.tfevents*"))) == 1
    assert processes_of(tmp_path) == []
