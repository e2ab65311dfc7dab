"""Loggers from settings, alone and combined, and what is written to each kind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from hydra import compose, initialize_config_dir
from lightning.fabric.utilities.imports import RequirementCache
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from matplotlib.figure import Figure
from mlflow.entities import Run
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_cnn.errors import UserError
from mnist_cnn.reporting import csv, loggers, tensorboard
from tests.conftest import REPOSITORY, Command

LIGHTNING = "lightning.pytorch.loggers"
HPARAMS = {"model": "simple", "lr": 0.1}


def settings(group: str, *overrides: str) -> dict[str, Any]:
    """Return the settings of a group as train.py composes them."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config = compose("train", overrides=list(overrides))
    return dict(OmegaConf.to_container(config, resolve=False)[group])  # type: ignore[index, call-overload]


def use(built: list[Logger]) -> None:
    """Write to loggers what a run of one epoch writes."""
    loggers.log_settings(built, HPARAMS, "lr: 0.1\n")
    loggers.log_step_metrics(built, {"lr": 0.1}, 50)
    for logger in built:
        logger.log_metrics({"val/acc": 0.5}, step=1)
        logger.save()
    loggers.log_figure(built, "predictions/test", Figure(), 1)
    for logger in built:
        logger.finalize("success")
    loggers.close(built)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("tensorboard", [tensorboard.RunLogger]),
        ("csv", [csv.CSVLogger]),
        ("[tensorboard,csv]", [tensorboard.RunLogger, csv.CSVLogger]),
        ("none", []),
    ],
)
def test_choices_of_loggers_compose(choice: str, expected: list[type], tmp_path: Path) -> None:
    chosen = settings("logger", f"logger={choice}", "objective.metric=val/f1")
    chosen = OmegaConf.to_container(  # type: ignore[assignment]
        OmegaConf.create({"logger": chosen, "objective": {"metric": "val/f1"}}), resolve=True
    )["logger"]
    built = loggers.build(chosen, tmp_path, 1)
    assert [type(logger) for logger in built] == expected
    if tensorboard.RunLogger in expected:
        assert built[0].hparams_metrics == ["val/f1", "test/acc", "test/loss"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("default", ["pictures"]),
        ("[pictures,early_stopping]", ["pictures", "early_stopping"]),
        ("none", []),
    ],
)
def test_choices_of_callbacks_compose(choice: str, expected: list[str]) -> None:
    assert list(settings("callbacks", f"callbacks={choice}")) == expected


def test_run_folder_is_filled_in_unless_given(tmp_path: Path) -> None:
    default, given = loggers.build(
        {
            "default": {"_target_": f"{LIGHTNING}.CSVLogger"},
            "given": {"_target_": f"{LIGHTNING}.CSVLogger", "save_dir": str(tmp_path / "given")},
        },
        tmp_path,
        1,
    )
    assert isinstance(default, CSVLogger)
    assert isinstance(given, CSVLogger)
    assert (default.save_dir, given.save_dir) == (str(tmp_path), str(tmp_path / "given"))


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        ({"_target_": f"{LIGHTNING}.Nope"}, "logger.mine._target_=.*Nope: .*has no attribute 'Nope'"),
        ({"_target_": "no_module.Nope"}, "logger.mine._target_=no_module.Nope: No module named 'no_module'"),
        ({"_target_": "torch.nn.Linear"}, "torch.nn.Linear is not a Lightning logger"),
        ({"_target_": f"{LIGHTNING}.CSVLogger", "nope": 1}, "refuses its settings.*'nope'"),
        ({"save_dir": "logs"}, "it needs a _target_"),
    ],
)
def test_mistake_in_logger_file_is_one_line(logger: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as raised:
        loggers.build({"mine": logger}, tmp_path, 1)
    assert "\n" not in str(raised.value)


def test_argument_that_fails_late_is_one_line(tmp_path: Path) -> None:
    built = loggers.build(
        {"mine": {"_target_": f"{LIGHTNING}.TensorBoardLogger", "nope": 1}}, tmp_path, first_epoch=1
    )
    with pytest.raises(UserError, match=r"TensorBoardLogger could not be started: TypeError: .*'nope'"):
        loggers.log_settings(built, HPARAMS, "")


def test_logger_file_without_key_is_refused_with_the_key_to_add(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a key of its own above _target_"):
        loggers.build({"_target_": f"{LIGHTNING}.CSVLogger"}, tmp_path, 1)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_package_names_the_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = RequirementCache(f"{name}>=999")
    monkeypatch.setattr(f"{LIGHTNING}.{name}._{name.upper()}_AVAILABLE", missing)
    chosen = settings("logger", f"logger={name}")
    if name == "mlflow":
        chosen[name] |= {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "artifact_location": None}
    with pytest.raises(UserError, match=rf"{name} is not installed.*pip install -e '.\[{name}\]'"):
        loggers.build(chosen, tmp_path, 1)


def test_lightning_tensorboard_logger_gets_figures_and_settings(tmp_path: Path) -> None:
    built = loggers.build(
        {"mine": {"_target_": f"{LIGHTNING}.TensorBoardLogger", "name": "", "version": ""}}, tmp_path, 1
    )
    assert type(built[0]) is TensorBoardLogger
    use(built)
    tags = EventAccumulator(str(tmp_path)).Reload().Tags()
    assert tags["images"] == ["predictions/test"]
    assert {"val/acc", "lr"} <= set(tags["scalars"])
    assert "config/text_summary" in tags["tensors"]


def test_wandb_writes_offline_into_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, run_dir = tmp_path / "elsewhere", tmp_path / "sweep" / "0_lr=0.1"
    elsewhere.mkdir()
    run_dir.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    chosen = settings("logger", "logger=wandb", "logger.wandb.offline=true")
    built = loggers.build(chosen, run_dir, 1)
    use(built)
    assert built[0].version == "sweep-0_lr=0.1"
    (folder,) = (run_dir / "wandb").glob("offline-run-*-sweep-0_lr=0.1")
    (image,) = (folder / "files" / "media" / "images" / "predictions").iterdir()
    assert image.suffix == ".png"
    assert os.listdir(elsewhere) == []


def test_wandb_run_of_failed_job_does_not_take_the_next_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    chosen = settings("logger", "logger=wandb", "logger.wandb.offline=true")
    failed = loggers.build(chosen, tmp_path / "0", 1)
    loggers.log_settings(failed, HPARAMS, "")  # and no `close`
    following = loggers.build(chosen, tmp_path / "1", 1)
    use(following)
    assert failed[0].version != following[0].version
    assert list((tmp_path / "1" / "wandb").glob("offline-run-*"))


def runs_in_store(folder: Path) -> list[Run]:
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("mnist-cnn")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between mlflow and SQLAlchemy
def test_mlflow_store_holds_all_runs_and_resumed_run_continues_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, logs = tmp_path / "elsewhere", tmp_path / "logs"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    chosen = settings("logger", "logger=mlflow")
    chosen["mlflow"] |= {
        "tracking_uri": f"sqlite:///{logs}/mlflow.db",
        "artifact_location": str(logs / "mlflow"),
    }
    for name, first_epoch in (("first's", 1), ("second", 1), ("first's", 2)):
        use(loggers.build(chosen, tmp_path / "runs" / name, first_epoch))
    runs = runs_in_store(logs)
    assert sorted(run.data.tags["mlflow.runName"] for run in runs) == ["first's", "second"]
    for run in runs:
        assert run.data.params == {"model": "simple", "lr": "0.1"}
        assert run.data.metrics == {"val/acc": 0.5, "lr": 0.1}
        assert run.info.status == "FINISHED"
    files = {path.name for path in (logs / "mlflow").rglob("*") if path.is_file()}
    assert files == {"config.yaml", "epoch_0001.png"}
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
    (folder / "recorder.yaml").write_text("recorder: {_target_: recorder.Recorder, suffix: .json}\n")
    (folder / "rows.yaml").write_text(f"rows: {{_target_: {LIGHTNING}.CSVLogger}}\n")
    done = command(
        "train.py",
        *("--config-dir", str(tmp_path / "myconf")),
        "logger=[tensorboard,csv,rows,recorder]",
        *("callbacks=[pictures,early_stopping]", "model=cnnnet", "trainer.accelerator=cpu"),
        *("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1"),
        *("trainer.limit_test_batches=1", f"data.dir={mnist}"),
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (run_dir,) = (tmp_path / "logs" / "runs").iterdir()
    seen = json.loads((run_dir / "recorded.json").read_text())
    assert seen["hparams"]["model"] == "cnnnet"
    assert {"train/loss_step", "lr", "train/loss", "val/acc", "test/acc"} <= set(seen["metrics"])
    assert {"predictions/validation", "feature_maps/layer_by_layer"} <= set(seen["images"])
    assert list(run_dir.rglob("events.out.tfevents*"))
    assert (run_dir / "metrics.csv").is_file()
    assert (run_dir / "lightning_logs" / "version_0" / "metrics.csv").is_file()
    assert [row["epoch"] for row in json.loads((run_dir / "history.json").read_text())] == [1]


def test_building_the_font_cache_is_not_announced(tmp_path: Path) -> None:
    code = (
        "import logging.config, yaml; "
        f"config = yaml.safe_load(open({str(REPOSITORY / 'conf/hydra/job_logging/mnist_cnn.yaml')!r})); "
        "del config['handlers']['file']; config['root']['handlers'].remove('file'); "
        "logging.config.dictConfig(config); import matplotlib.font_manager; logging.info('end')"
    )
    environment = os.environ | {"MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert any(tmp_path.iterdir())  # the cache was built
    assert (done.stdout, done.stderr) == ("end\n", "")
