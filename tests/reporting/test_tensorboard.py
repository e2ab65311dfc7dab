"""How the event files of a run end and are resumed. tests/browser has what TensorBoard shows of them."""

import time
from pathlib import Path

import pytest

from mnist_cnn.reporting.tensorboard import RunLogger
from tests.runs import scalars


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
