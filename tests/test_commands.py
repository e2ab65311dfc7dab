"""The Hydra side of the commands: command lines, folder names, resuming."""

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mnist_cnn import commands
from mnist_cnn.errors import UserError


def test_folder_name_of_a_job_is_valid_and_short() -> None:
    commands.register_resolvers()
    config = OmegaConf.create({"overrides": "a=/x/y," + "b" * 300, "name": "${folder_name:${overrides}}"})
    assert config.name.startswith("a=-x-y,bbb")
    assert len(config.name) == 200


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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optim=sgd", "-m", "seed=1"], ["-m", "optim=sgd", "seed=1"]),
        (["seed=1", "--cfg", "job", "optim=sgd"], ["--cfg", "job", "seed=1", "optim=sgd"]),
        (["seed=1", "--cfg=job", "~callbacks"], ["--cfg=job", "seed=1", "~callbacks"]),
        (["-cp", "runs/a=b,c", "seed=1", "-cn", "x"], ["-cp", "runs/a=b,c", "-cn", "x", "seed=1"]),
        (["ckpt=a b/epoch=1,x.ckpt"], ["ckpt='a b/epoch=1,x.ckpt'"]),
        (["ckpt=[a b/x=1.ckpt, c.ckpt]"], ["ckpt=['a b/x=1.ckpt','c.ckpt']"]),
    ],
)
def test_options_come_first_and_paths_are_quoted(arguments: list[str], expected: list[str]) -> None:
    assert commands._arguments(arguments) == expected


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


def test_run_of_an_earlier_version_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save({"seed": 1, "scheduler": {}}, tmp_path / ".hydra" / "resolved.yaml")
    with pytest.raises(UserError, match="earlier version"):
        commands._arguments([f"resume={tmp_path}"])


def test_settings_that_a_resumed_run_would_change_are_shown_with_both_values(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    settings = {
        "objective": {},
        "optim": {"lr": 0.01},
        "seed": 42,
        "model": {"x": 1},
        "hparams": {"model": "simple"},
    }
    OmegaConf.save(settings, tmp_path / ".hydra" / "resolved.yaml")
    given = ["optim.lr=0.5", "seed=3", "model=cnnnet", "+new=1", "~optim"]
    with pytest.raises(UserError) as caught:
        commands._arguments([f"resume={tmp_path}", *given, "trainer.max_epochs=9"])
    message = str(caught.value)
    assert "optim.lr cannot be changed from 0.01 to 0.5; seed cannot be changed from 42 to 3; " in message
    assert "model cannot be changed from simple to cnnnet; +new cannot be changed to 1; " in message
    assert "~optim cannot be changed to nothing. What can be changed: " in message
    more = commands._arguments([f"resume={tmp_path}", "trainer.max_epochs=9"])
    assert {"trainer.max_epochs=9", "hparams.max_epochs=9"} <= set(more)
