"""Loggers from YAML, alone and combined, and what is written to each kind."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_cnn.errors import UserError
from mnist_cnn.reporting import loggers, tensorboard
from tests.conftest import REPOSITORY, Command

HPARAMS = {"model": "simple", "lr": 0.1}


@pytest.fixture(autouse=True)
def no_hydra_left() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


def build(run_dir: Path, *overrides: str) -> list[Any]:
    """Return the loggers that train.py would build for a run in `run_dir`."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config = compose("train", overrides=list(overrides), return_hydra_config=True)
    config.hydra.runtime.output_dir, config.hydra.runtime.cwd = str(run_dir), str(run_dir.parent)
    HydraConfig.instance().set_config(config)
    OmegaConf.resolve(config.logger)
    return [instantiate(logger) for logger in config.logger.values()]


def use(built: list[Logger], step: int = 0) -> None:
    """Write to loggers what a run of one epoch writes."""
    loggers.begin(built, HPARAMS, "lr: 0.1\n", step)
    for logger in built:
        logger.log_metrics({"val/acc": 0.5, "epoch": 1.0}, 20)
        logger.save()
    loggers.log_figure(built, "visuals/predictions_test", Figure(), 20)
    loggers.close(built)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("[tensorboard,csv]", [tensorboard.RunLogger, CSVLogger]),
        ("none", []),
    ],
)
def test_choices_of_loggers_build(choice: str, expected: list[type], tmp_path: Path) -> None:
    built = build(tmp_path, f"logger={choice}", "objective.metric=val/f1")
    assert [type(logger) for logger in built] == expected
    if expected:
        assert built[0].hparams_metrics == ["val/f1", "test/acc", "test/loss"]
        assert built[0].log_dir.rstrip("/") == str(tmp_path)


def test_logger_that_cannot_be_started_is_one_line(tmp_path: Path) -> None:
    built = [TensorBoardLogger(tmp_path, nope=1)]
    with pytest.raises(UserError, match=r"TensorBoardLogger could not be started: TypeError: .*'nope'"):
        loggers.begin(built, HPARAMS, "", 0)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_package_names_the_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(InstantiationException) as raised:
        build(tmp_path / "run", f"logger={name}")
    cause = raised.value.__cause__
    assert isinstance(cause, UserError)
    assert f"logger={name} needs other packages" in str(cause)
    assert f"Install them with: pip install -e '.[{name}]'" in str(cause)


def test_tensorboard_logger_of_lightning_gets_metrics_and_figures(tmp_path: Path) -> None:
    use([TensorBoardLogger(tmp_path, name="", version="")])
    tags = EventAccumulator(str(tmp_path)).Reload().Tags()
    assert (tags["images"], tags["scalars"]) == (
        ["visuals/predictions_test"],
        ["hp_metric", "val/acc", "epoch"],
    )


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder in which nothing may be written."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_wandb_writes_offline_into_run_folder(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run_dir = tmp_path / "sweep" / "0_lr=0.1"
    run_dir.mkdir(parents=True)
    ids = []
    for step in (0, 20):  # a run, and the same run resumed
        (logger,) = build(run_dir, "logger=wandb", "logger.wandb.offline=true")
        use([logger], step)
        ids.append(logger.version)
    assert ids == [(run_dir / "wandb_run").read_text()] * 2
    namesake = tmp_path / "elsewhere" / "sweep" / "0_lr=0.1"  # as of another machine
    assert build(namesake, "logger=wandb", "logger.wandb.offline=true")[0].version != ids[0]
    (folder, *_) = (run_dir / "wandb").glob(f"offline-run-*-{logger.version}")
    (image,) = (folder / "files" / "media" / "images" / "visuals").iterdir()
    assert image.suffix == ".png"
    assert os.listdir(elsewhere) == []


def test_wandb_run_of_failed_job_does_not_take_the_next_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    failed = build(tmp_path / "0", "logger=wandb", "logger.wandb.offline=true")
    loggers.begin(failed, HPARAMS, "", 0)  # and no `close`
    following = build(tmp_path / "1", "logger=wandb", "logger.wandb.offline=true")
    use(following)
    assert failed[0].version != following[0].version
    assert list((tmp_path / "1" / "wandb").glob("offline-run-*"))


def runs_in_store(folder: Path) -> list[Any]:
    import mlflow  # takes a second

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("mnist-cnn")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between mlflow and SQLAlchemy
def test_mlflow_store_holds_all_runs_and_resumed_run_continues_its_own(
    elsewhere: Path, tmp_path: Path
) -> None:
    for name, step in (("first's", 0), ("second", 0), ("first's", 20)):
        (tmp_path / name).mkdir(exist_ok=True)
        use(build(tmp_path / name, "logger=mlflow"), step)
    runs = runs_in_store(tmp_path / "logs")
    assert sorted(run.data.tags["mlflow.runName"] for run in runs) == ["first's", "second"]
    for run in runs:
        assert run.data.params == {"model": "simple", "lr": "0.1"}
        assert run.data.metrics == {"val/acc": 0.5, "epoch": 1.0}
        assert run.info.status == "FINISHED"
    files = {path.name for path in (tmp_path / "logs" / "mlflow").rglob("*") if path.is_file()}
    assert files == {"config.yaml", "step_000020.png"}
    assert os.listdir(elsewhere) == []


RECORDER = """
import json
from pathlib import Path
from lightning.pytorch.loggers import Logger


class Recorder(Logger):
    name = version = "recorder"

    def __init__(self, save_dir, suffix):
        super().__init__()
        self.path = Path(save_dir) / f"recorded{suffix}"
        self.seen = {"metrics": [], "images": []}

    def log_hyperparams(self, params):
        self.seen["hparams"] = dict(params)

    def log_metrics(self, metrics, step=None):
        self.seen["metrics"] += [*metrics]

    def log_image(self, key, images, step):
        self.seen["images"].append(key)

    def finalize(self, status):
        self.path.write_text(json.dumps(self.seen))
"""


def test_loggers_of_users_own_work_from_yaml_alone(command: Command, mnist: Path, tmp_path: Path) -> None:
    (tmp_path / "recorder.py").write_text(RECORDER)
    folder = tmp_path / "myconf" / "logger"
    folder.mkdir(parents=True)
    save_dir = "save_dir: '${hydra:runtime.output_dir}'"
    (folder / "recorder.yaml").write_text(
        f"recorder: {{_target_: recorder.Recorder, {save_dir}, suffix: .json}}\n"
    )
    done = command(
        "train.py",
        "--config-dir",
        str(tmp_path / "myconf"),
        "logger=[tensorboard,csv,recorder]",
        "callbacks=[pictures,early_stopping]",
        "model=cnnnet",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=50",
        "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1",
        f"data.dir={mnist}",
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (run_dir,) = (tmp_path / "logs" / "runs").iterdir()
    seen = json.loads((run_dir / "recorded.json").read_text())
    assert seen["hparams"]["model"] == "cnnnet"
    assert {"train/loss_step", "train/lr", "train/loss", "val/acc", "test/acc"} <= set(seen["metrics"])
    assert {"visuals/predictions_validation", "visuals/feature_maps"} <= set(seen["images"])
    assert list(run_dir.rglob("events.out.tfevents*"))
    assert (run_dir / "lightning_logs" / "version_0" / "metrics.csv").is_file()
    assert [row["epoch"] for row in json.loads((run_dir / "history.json").read_text())] == [1]
