"""The Hydra side of the commands: folder names, commands of runs, checkpoints."""

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mnist_cnn import commands
from mnist_cnn.errors import UserError


@pytest.mark.parametrize("character", ["b", "图"])
def test_folder_name_of_a_job_is_valid_and_short(character: str) -> None:
    commands.register_resolvers()
    config = OmegaConf.create(
        {"overrides": "a=/x/y" + character * 300, "name": "${folder_name:${overrides}}"}
    )
    assert config.name.startswith(f"a=-x-y{character}")
    assert 198 <= len(config.name.encode()) <= 200


def test_command_of_a_run_quotes_its_folder_for_hydra() -> None:
    command = commands.train_command(Path("/runs/it's 1, of a=b"))
    assert command[0] == sys.executable
    assert command[2:] == [
        "--config-path",
        "/runs/it's 1, of a=b/.hydra",
        "--config-name",
        "resolved",
        r"hydra.run.dir='/runs/it\'s 1, of a=b'",
    ]


def test_missing_checkpoint_is_reported_with_existing_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"There is no checkpoint under logs/ yet"):
        commands.find_checkpoint("x.ckpt")
    for name in ("runs/a", "sweeps/s/0_b"):
        folder = tmp_path / "logs" / name / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "best.ckpt").touch()
    with pytest.raises(UserError) as caught:
        commands.find_checkpoint("x.ckpt")
    assert "logs/runs/a/checkpoints/best.ckpt" in str(caught.value)
    assert "logs/sweeps/s/0_b/checkpoints/best.ckpt" in str(caught.value)
    assert commands.find_checkpoint("logs/runs/a/checkpoints/best.ckpt").is_file()
