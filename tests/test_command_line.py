"""The command line in the form that Hydra accepts."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mnist_cnn import command_line
from mnist_cnn.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optim=sgd", "-m", "seed=1"], ["-m", "optim=sgd", "seed=1"]),
        (["seed=1", "--cfg", "job", "optim=sgd"], ["--cfg", "job", "seed=1", "optim=sgd"]),
        (["seed=1", "--cfg=job", "~callbacks"], ["--cfg=job", "seed=1", "~callbacks"]),
        (["-cp", "runs/a=b,c", "seed=1", "-cn", "x"], ["-cp", "runs/a=b,c", "-cn", "x", "seed=1"]),
        (["ckpt=a b/epoch=1,x.ckpt"], ["ckpt='a b/epoch=1,x.ckpt'"]),
        (["ckpt=[a b/x=1.ckpt, c.ckpt]"], ["ckpt=['a b/x=1.ckpt',c.ckpt]"]),
        (
            ["ckpt='a/it\\'s.ckpt'", "out=/x/1.y", "images=5"],
            ["ckpt='a/it\\'s.ckpt'", "out=/x/1.y", "images='5'"],
        ),
        (["data.dir=图片", "init_from=null"], ["data.dir='图片'", "init_from=null"]),
        (["data.dir=fa (1)", "seed=1"], ["data.dir='fa (1)'", "seed=1"]),
        (["data.dir=f=a", "init_from=a,b"], ["data.dir='f=a'", "init_from='a,b'"]),
        (["-m", "data.dir=fa,fb,f=a"], ["-m", "data.dir=fa,fb,'f=a'"]),
        (["-m", "init_from=null,a/x=1.ckpt"], ["-m", "init_from=null,'a/x=1.ckpt'"]),
        (["-m", "init_from=choice(a,b)", "ckpt='a,b'"], ["-m", "init_from=choice(a,b)", "ckpt='a,b'"]),
    ],
)
def test_options_come_first_and_paths_are_quoted(arguments: list[str], expected: list[str]) -> None:
    assert command_line.for_hydra(arguments) == expected


def test_path_with_a_comma_is_not_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").touch()
    assert command_line.for_hydra(["-m", "init_from=a,b"]) == ["-m", "init_from='a,b'"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "hydra.launcher=pool"], "hydra.launcher=pool: choose with a slash: hydra/launcher=pool."),
        (["hydra.sweeper=optuna"], "hydra.sweeper=optuna: choose with a slash: hydra/sweeper=optuna."),
        (["resume=s"], "resume=s is the folder of a sweep. Resume it with sweep.resume=s."),
        (
            ["resume=x"],
            "resume=x is not the folder of a run. No run exists under logs/ yet: start one with python",
        ),
        (["resume=r", "trust=[a b]"], "trust=[a b]: 'a b' is not a module name. Write trust=[my_package]."),
    ],
)
def test_arguments_that_hydra_would_not_explain_are_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("s/multirun.yaml", "r/.hydra/resolved.yaml"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError) as caught:
        command_line.for_hydra(arguments)
    assert str(caught.value).startswith(message)


def test_sweep_in_a_folder_with_a_quote_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "it's").mkdir()
    overrides = {"hydra": {"overrides": {"hydra": [], "task": ["seed=0,1"]}}}
    OmegaConf.save(overrides, tmp_path / "it's" / "multirun.yaml")
    found = command_line.for_hydra([f"sweep.resume={tmp_path}/it's"])
    assert found == [f"sweep.resume='{tmp_path}/it\\'s'"]


def test_run_of_an_earlier_version_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save({"seed": 1, "scheduler": {}}, tmp_path / ".hydra" / "resolved.yaml")
    with pytest.raises(UserError, match="earlier version"):
        command_line.for_hydra([f"resume={tmp_path}"])


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
        command_line.for_hydra([f"resume={tmp_path}", *given, "trainer.max_epochs=9"])
    message = str(caught.value)
    assert "optim.lr cannot be changed from 0.01 to 0.5; seed cannot be changed from 42 to 3; " in message
    assert "model cannot be changed from simple to cnnnet; +new cannot be changed to 1; " in message
    assert "~optim cannot be changed to nothing. What can be changed: " in message
    more = command_line.for_hydra([f"resume={tmp_path}", "trainer.max_epochs=9"])
    assert {"trainer.max_epochs=9", "hparams.max_epochs=9"} <= set(more)


def test_finished_run_is_not_run_again_unless_the_trainer_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save({"objective": {}, "hparams": {}}, tmp_path / ".hydra" / "resolved.yaml")
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(SystemExit) as caught:
        command_line.for_hydra([f"resume={tmp_path}"])
    assert not caught.value.code
    assert f"{tmp_path} has finished" in capsys.readouterr().out
    assert command_line.for_hydra([f"resume={tmp_path}", "trainer.max_epochs=9"])
    assert command_line.for_hydra([f"resume={tmp_path}", "--cfg", "job"])
