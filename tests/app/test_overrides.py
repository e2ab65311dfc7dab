"""The command line in the form that Hydra accepts."""

from pathlib import Path

import pytest

from mnist_cnn.app.overrides import prepare
from mnist_cnn.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optim=sgd", "-m", "seed=1"], ["-m", "optim=sgd", "seed=1"]),
        (["optim=sgd", "--cfg", "job"], ["optim=sgd", "--cfg", "job"]),
        (["ckpt=a b/epoch=1,x.ckpt"], ["ckpt='a b/epoch=1,x.ckpt'"]),
        (["ckpt=[a b/x=1.ckpt, c.ckpt]"], ["ckpt=['a b/x=1.ckpt',c.ckpt]"]),
        (["ckpt=['a,b=1/x.ckpt',c.ckpt]"], ["ckpt=['a,b=1/x.ckpt',c.ckpt]"]),
        (
            ["ckpt='a/it\\'s.ckpt'", "out=/x/1.y", "images=5"],
            ["ckpt='a/it\\'s.ckpt'", "out=/x/1.y", "images='5'"],
        ),
        (["data.dir=图片", "init_from=null"], ["data.dir='图片'", "init_from=null"]),
        (["data.dir=fa (1)", "resume=a=b"], ["data.dir='fa (1)'", "resume='a=b'"]),
        (["data.dir=f=a", "init_from=a,b"], ["data.dir='f=a'", "init_from='a,b'"]),
        (["-m", "data.dir=fa,fb,f=a"], ["-m", "data.dir=fa,fb,'f=a'"]),
        (["init_from=null,a/x=1.ckpt", "-m"], ["-m", "init_from=null,'a/x=1.ckpt'"]),
        (["-m", "init_from=choice(a,b)", "ckpt='a,b'"], ["-m", "init_from=choice(a,b)", "ckpt='a,b'"]),
    ],
)
def test_paths_are_quoted_and_only_the_flag_of_a_sweep_is_moved(
    arguments: list[str], expected: list[str]
) -> None:
    assert prepare(arguments) == expected


def test_path_with_a_comma_is_not_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").touch()
    assert prepare(["-m", "init_from=a,b"]) == ["-m", "init_from='a,b'"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("augment=1.5", "augment=1.5: choose one of affine, elastic, none, robust, or leave it out."),
        ("hydra.launcher=pool", "hydra.launcher=pool: choose with a slash: hydra/launcher=pool."),
        ("hydra.sweeper=optuna", "hydra.sweeper=optuna: choose with a slash: hydra/sweeper=optuna."),
        ("logger=null", "logger=null: choose one of csv, mlflow, none, tensorboard, wandb, or leave it out."),
    ],
)
def test_choice_that_hydra_would_not_explain_is_refused(argument: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare([argument])
    assert str(caught.value) == message


def test_resume_of_a_run_is_no_sweep() -> None:
    with pytest.raises(UserError, match=r"resume=RUN resumes one run; leave out -m"):
        prepare(["-m", "resume=logs/runs/nowhere"])
