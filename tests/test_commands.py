"""Hydra's side of the commands: folder names, and how a run is started again."""

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mnist_cnn import commands
from mnist_cnn.errors import UserError


def test_the_overrides_of_a_job_make_one_folder_of_a_length_that_file_systems_take() -> None:
    config = OmegaConf.create({"overrides": "a=/x/y," + "b" * 300, "name": "${folder_name:${overrides}}"})
    assert config.name.startswith("a=-x-y,bbb")
    assert len(config.name) == 200


def test_a_run_in_any_folder_can_be_started_again() -> None:
    command = commands.train_command(Path("/runs/it's 1, of a=b"))
    assert command[:1] == [sys.executable]
    assert command[2:] == [
        "--config-path",
        "/runs/it's 1, of a=b/.hydra",
        "--config-name",
        "resolved",
        r"hydra.run.dir='/runs/it\'s 1, of a=b'",
    ]


def test_a_missing_checkpoint_is_answered_with_those_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"There is no checkpoint under logs/ yet"):
        commands.checkpoint_file("x.ckpt")
    for name in ("runs/a", "sweeps/s/0_b"):
        folder = tmp_path / "logs" / name / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "best.ckpt").touch()
    with pytest.raises(UserError) as caught:
        commands.checkpoint_file("x.ckpt")
    assert "logs/runs/a/checkpoints/best.ckpt" in str(caught.value)
    assert "logs/sweeps/s/0_b/checkpoints/best.ckpt" in str(caught.value)
    assert commands.checkpoint_file("logs/runs/a/checkpoints/best.ckpt").is_file()
