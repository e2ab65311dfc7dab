"""What a command says of an error that its user can correct."""

import errno
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from hydra_sweeps import SweepError
from mnist_cnn.app.messages import message_for_user
from mnist_cnn.app.paths import CONF


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["hydra.launcher.n_jobs=2"],
            "there is no setting hydra.launcher.n_jobs: choose an option first, hydra/launcher=pool.",
        ),
        (
            ["hydra.sweeper.n_trials=3"],
            "there is no setting hydra.sweeper.n_trials: choose an option first, hydra/sweeper=optuna.",
        ),
        (
            ["hydra/launcher=pool", "hydra.launcher.n_job=2"],
            "there is no setting hydra.launcher.n_job. Did you mean hydra.launcher.n_jobs?",
        ),
        (["optm.lr=1"], "there is no setting optm.lr. Did you mean optim.lr?\nsettings: augment, "),
        (["modle=simple"], "there is no setting modle. Did you mean model?"),
        (["optimizer=sgd"], "there is no setting optimizer. Did you mean optim?"),
        (["augment.degrees=5"], "there is no setting augment.degrees: choose an option first, augment="),
        (
            ["callbacks=[pictures,ema]", "callbacks.ema.every=5"],
            "there is no setting callbacks.ema.every.\nsettings of callbacks.ema: decay",
        ),
        (
            ["optim=adam", "optim.momentum=0.5"],
            "there is no setting optim.momentum.\nsettings of optim: betas, fused, lr, weight_decay\n"
            "An argument that is not listed is added with a plus: +optim.momentum=VALUE",
        ),
    ],
)
@pytest.mark.parametrize("in_sweep", [False, True])
def test_unknown_setting_is_answered_with_what_to_write(
    in_sweep: bool, overrides: list[str], message: str
) -> None:
    with (
        initialize_config_dir(str(CONF), version_base="1.3"),
        pytest.raises(HydraException) as caught,
    ):
        compose("train", overrides=overrides)
    error: Exception = caught.value
    if in_sweep:
        error = SweepError("a job cannot be composed")
        error.__cause__ = caught.value
    found = message_for_user(error)
    assert found is not None and found.startswith(message)
    assert "hydra," not in found


def test_file_that_cannot_be_read_or_written_is_named() -> None:
    message = message_for_user(PermissionError(errno.EACCES, "Permission denied", "a/b"))
    assert (
        message == "cannot access a/b: Permission denied. Check the path, its permissions and the free space."
    )


def test_unknown_setting_beside_a_choice_of_another_folder_is_answered(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 3\n")
    overrides = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine", "optim.lrr=1"]
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(HydraException) as caught:
        compose("train", overrides=overrides)
    found = message_for_user(caught.value)
    assert found is not None and "Did you mean optim.lr?" in found


def test_part_of_a_value_is_answered_by_hydra() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(HydraException) as caught:
        compose("train", overrides=["seed.x=1"])
    found = message_for_user(caught.value)
    assert found is not None and found.startswith("Could not override 'seed.x'.")
