"""Which runs there are below a folder, what differs between them, and which of them won."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from mnist_cnn.sweeps import compare
from mnist_cnn.sweeps.compare import best, differing, find_runs, group, ranked, swept
from omegaconf import OmegaConf

from mnist_cnn.errors import UserError


def add_run(
    folder: Path,
    metrics: dict[str, Any] | None = None,
    overrides: Sequence[str] = (),
    settings: dict[str, Any] | None = None,
    **hparams: Any,
) -> Path:
    """Make the folder of a run, with `hparams` over {seed: 0, optim: sgd, lr: 0.1}."""
    (folder / ".hydra").mkdir(parents=True)
    hparams = {"seed": 0, "optim": "sgd", "lr": 0.1} | hparams
    config = {
        "seed": hparams["seed"],
        "optim": {"lr": hparams["lr"], "name": hparams["optim"]},
        "hparams": hparams,
    }
    OmegaConf.save(OmegaConf.create(config | (settings or {})), folder / ".hydra" / "resolved.yaml")
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def scores(acc: float, **more: Any) -> dict[str, Any]:
    return {"val/acc": acc, "test/acc": acc - 0.01, "test/loss": 0.5, "epochs": 2, "seconds": 2.0} | more


def add_checkpoint(folder: Path, name: str, history: list[dict[str, float]] | None = None) -> None:
    (folder / "checkpoints").mkdir(exist_ok=True)
    state = {"state_dict": {}, "config": {}, "history": history or []}
    torch.save(state, folder / "checkpoints" / name)


def add_failed(folder: Path, error: str = "no such thing", overrides: Sequence[str] = ()) -> Path:
    """Make the folder of a job that failed before its settings were resolved."""
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
    (folder / "failed.json").write_text(json.dumps({"error": error}))
    return folder


def names(runs: Sequence[compare.Run]) -> list[str]:
    return [run.folder.name for run in runs]


# --- finding runs --------------------------------------------------------------------------------


def test_a_run_is_what_its_folder_says(tmp_path: Path) -> None:
    folder = add_run(
        tmp_path / "12_lr=0.1", scores(0.9), ["optim=sgd", "seed=3"], seed=3, **{"optim.momentum": 0.9}
    )
    add_checkpoint(folder, "best.ckpt")
    add_checkpoint(folder, "last.ckpt")
    [run] = find_runs([tmp_path])
    assert (run.folder, run.number, run.status, run.error, run.seed) == (folder, 12, "finished", None, 3)
    assert run.hparams == {"seed": 3, "optim": "sgd", "lr": 0.1, "optim.momentum": 0.9}
    assert run.overrides == ["optim=sgd", "seed=3"]
    assert run.checkpoint == folder / "checkpoints" / "best.ckpt"
    assert run.value("val/acc") == 0.9


def test_the_status_is_read_from_the_files(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.9))
    add_run(tmp_path / "1_a", scores(0.9, status="finished"))
    add_run(tmp_path / "2_a", {"val/acc": 0.5, "status": "pruned"})
    add_run(tmp_path / "3_a")
    (add_run(tmp_path / "4_a") / "failed.json").write_text('{"error": "loss is nan"}')
    runs = find_runs([tmp_path])
    assert [run.status for run in runs] == ["finished", "finished", "pruned", "unfinished", "failed"]
    assert [run.error for run in runs] == [None] * 4 + ["loss is nan"]


def test_jobs_come_in_the_order_of_their_numbers_and_plain_runs_have_none(tmp_path: Path) -> None:
    for name in ("10_a", "9_a", "2026-01-01_simple"):
        add_run(tmp_path / name, scores(0.9))
    runs = find_runs([tmp_path])
    assert [run.number for run in runs] == [9, 10, None]


def test_a_run_below_several_of_the_folders_is_found_once(tmp_path: Path) -> None:
    folder = add_run(tmp_path / "sweep" / "0_a", scores(0.9))
    assert names(find_runs([tmp_path, tmp_path / "sweep", folder])) == ["0_a"]


def test_an_unfinished_run_has_the_best_epoch_so_far(tmp_path: Path) -> None:
    folder = add_run(tmp_path / "0_a")
    history = [
        {"epoch": 1, "train/loss": 0.5, "val/acc": 0.8},
        {"epoch": 2, "train/loss": 0.4, "val/acc": 0.9},
        {"epoch": 3, "train/loss": 0.3, "val/acc": 0.85},
    ]
    add_checkpoint(folder, "last.ckpt", history)
    [run] = find_runs([tmp_path])
    assert run.metrics == {"train/loss": 0.4, "val/acc": 0.9, "epochs": 3, "best_epoch": 2}
    assert run.checkpoint == folder / "checkpoints" / "last.ckpt"


def test_without_validation_the_last_epoch_stands_for_an_unfinished_run(tmp_path: Path) -> None:
    folder = add_run(tmp_path / "0_a")
    add_checkpoint(folder, "last.ckpt", [{"epoch": 1, "train/loss": 0.5}, {"epoch": 2, "train/loss": 0.6}])
    assert find_runs([tmp_path])[0].metrics == {"train/loss": 0.6, "epochs": 2, "best_epoch": 2}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half of it", b"\x80\x02}q", b"text"])
def test_a_checkpoint_that_cannot_be_read_tells_nothing(tmp_path: Path, content: bytes) -> None:
    folder = add_run(tmp_path / "0_a")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_bytes(content)
    [run] = find_runs([tmp_path])
    assert (run.status, run.metrics) == ("unfinished", {})


@pytest.mark.parametrize("content", ["", '{"val/acc": 0.', "[1, 2]", "\ufffd"])
def test_half_of_a_metrics_file_is_no_result(tmp_path: Path, content: str) -> None:
    (add_run(tmp_path / "0_a") / "metrics.json").write_text(content)
    [run] = find_runs([tmp_path])
    assert (run.status, run.metrics) == ("unfinished", {})


def test_half_of_a_failed_file_is_a_failure_all_the_same(tmp_path: Path) -> None:
    (add_run(tmp_path / "0_a") / "failed.json").write_text('{"err')
    [run] = find_runs([tmp_path])
    assert (run.status, run.error) == ("failed", "no message")


def test_values_that_are_no_finite_numbers_are_no_values(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", {"val/acc": float("nan"), "test/acc": "high", "test/loss": None, "epochs": 2})
    [run] = find_runs([tmp_path])
    assert [run.value(key) for key in ("val/acc", "test/acc", "test/loss", "epochs")] == [None] * 3 + [2]


@pytest.mark.parametrize("content", ["", "a: [1", "a: ${b", "- a", "3", "seed: 1", "hparams: 3", "\x00"])
def test_what_is_no_run_is_passed_over(tmp_path: Path, content: str) -> None:
    add_run(tmp_path / "good", scores(0.9))
    foreign = tmp_path / "foreign"
    (foreign / ".hydra").mkdir(parents=True)
    (foreign / "metrics.json").write_text("{}")
    (foreign / ".hydra" / "resolved.yaml").write_text(content)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "failed.json").write_text("{}")
    assert names(find_runs([tmp_path])) == ["good"]


def test_settings_that_cannot_be_read_any_more_are_taken_from_the_overrides(tmp_path: Path) -> None:
    folder = add_run(tmp_path / "0_a", scores(0.9), ["optim=adam"])
    (folder / ".hydra" / "resolved.yaml").write_text("seed: [")
    [run] = find_runs([tmp_path])
    assert (run.status, run.hparams) == ("finished", {"optim": "adam"})


def test_a_job_that_failed_at_once_has_its_overrides_for_settings(tmp_path: Path) -> None:
    add_failed(tmp_path / "0_a", "lr must be positive", ["optim=adam", "optim.lr=-1.5", "+data.std=2"])
    [run] = find_runs([tmp_path])
    assert (run.status, run.error) == ("failed", "lr must be positive")
    assert run.hparams == {"optim": "adam", "optim.lr": -1.5, "data.std": 2}


def test_and_the_settings_that_hydra_wrote_before_it_started(tmp_path: Path) -> None:
    folder = add_failed(tmp_path / "0_a", overrides=["optim=adam", "optim.lr=-1", "data.std=2"])
    config = {
        "optim": {"lr": -1},
        "data": {"std": 2},
        "hparams": {"optim": "${hydra:runtime.choices.optim}", "lr": "${optim.lr}", "seed": "${seed}"},
        "seed": 7,
    }
    hydra = {"hydra": {"runtime": {"choices": {"optim": "adam"}}}}
    OmegaConf.save(OmegaConf.create(config), folder / ".hydra" / "config.yaml")
    OmegaConf.save(OmegaConf.create(hydra), folder / ".hydra" / "hydra.yaml")
    [run] = find_runs([tmp_path])
    assert run.hparams == {"optim": "adam", "lr": -1, "seed": 7, "data.std": 2}
    assert run.seed == 7


def test_a_job_of_a_sweep_that_failed_before_hydra_wrote_anything_counts(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").touch()
    (tmp_path / "3_optim=adam").mkdir()
    (tmp_path / "3_optim=adam" / "failed.json").write_text('{"error": "killed"}')
    [run] = find_runs([tmp_path])
    assert (run.number, run.status, run.error, run.overrides) == (3, "failed", "killed", [])


def test_no_run_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no run below {tmp_path}, elsewhere"):
        find_runs([tmp_path, Path("elsewhere")])


# --- what differs --------------------------------------------------------------------------------


def test_how_a_run_was_carried_out_tells_it_from_no_other(tmp_path: Path) -> None:
    for number in range(2):
        circumstances = {
            "resume": f"logs/{number}",
            "sweep": {"resume": number},
            "hydra": {"job": number},
            "data": {"dir": f"data{number}", "name": "mnist"},
            "trainer": {"accelerator": ["cpu", "auto"][number], "max_epochs": 2},
        }
        more = {"trainer.accelerator": number, "sweep.x": number}
        add_run(tmp_path / f"{number}_a", scores(0.9), settings=circumstances, seed=number, **more)
    runs = find_runs([tmp_path])
    assert runs[0].settings == runs[1].settings
    assert differing(runs) == []


@pytest.mark.parametrize("settings", [{"data": {"name": "fashion"}}, {"trainer": {"max_epochs": 3}}])
def test_any_other_setting_does(tmp_path: Path, settings: dict[str, Any]) -> None:
    add_run(tmp_path / "0_a", scores(0.9))
    add_run(tmp_path / "1_a", scores(0.9), settings=settings)
    first, second = find_runs([tmp_path])
    assert first.settings != second.settings


def test_a_setting_that_some_runs_lack_differs_but_for_failed_ones(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.9))
    add_failed(tmp_path / "1_a", overrides=["optim=adam"])
    assert differing(find_runs([tmp_path])) == ["optim"]
    add_run(tmp_path / "2_a", scores(0.9), **{"optim.momentum": 0.9})
    assert differing(find_runs([tmp_path])) == ["optim", "optim.momentum"]


def test_swept_is_what_was_set_not_what_followed_from_it(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.9), ["optim=sgd"], lr=0.1)
    add_run(tmp_path / "1_a", scores(0.9), ["optim=adam"], lr=0.001, optim="adam")
    runs = find_runs([tmp_path])
    assert differing(runs) == ["optim", "lr"]
    assert swept(runs) == ["optim"]
    add_run(tmp_path / "2_a", scores(0.9), ["optim=adam", "optim.lr=0.1"], lr=0.1, optim="adam")
    assert swept(find_runs([tmp_path])) == ["optim", "lr"]


def test_groups_hold_the_finished_runs_that_differ_in_their_seed_only(tmp_path: Path) -> None:
    for seed, acc in enumerate((0.95, 0.96, 0.97)):
        add_run(tmp_path / f"{seed}_a", scores(acc), seed=seed)
    add_run(tmp_path / "3_a", scores(0.5, status="pruned"), seed=3)
    add_run(tmp_path / "4_a", seed=4)
    add_run(tmp_path / "5_a", scores(0.98), lr=0.2)
    first, second = group(find_runs([tmp_path]))
    assert (first.choices, first.values("val/acc")) == ({"lr": 0.2}, [0.98])
    assert (second.choices, second.values("val/acc")) == ({"lr": 0.1}, [0.95, 0.96, 0.97])


# --- which is best -------------------------------------------------------------------------------


def test_the_best_come_first_and_those_without_the_objective_last_by_number(tmp_path: Path) -> None:
    add_run(tmp_path / "3_a", {"test/acc": 0.99})
    add_run(tmp_path / "0_a", scores(0.8, seconds=1))
    add_run(tmp_path / "2_a")
    add_run(tmp_path / "1_a", scores(0.9, seconds=5))
    runs = find_runs([tmp_path])
    assert names(ranked(runs)) == ["1_a", "0_a", "2_a", "3_a"]
    assert names(ranked(runs, {"seconds": "minimize", "val/acc": "maximize"})) == ["0_a", "1_a", "2_a", "3_a"]


def test_groups_without_the_objective_come_last(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", {"test/acc": 0.99}, lr=0.2)
    add_run(tmp_path / "1_a", scores(0.5), lr=0.1)
    assert [one.choices["lr"] for one in group(find_runs([tmp_path]))] == [0.1, 0.2]


def test_the_winner_is_chosen_by_validation_whatever_the_test_says(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", {"val/acc": 0.9, "test/acc": 0.1}, lr=0.1)
    add_run(tmp_path / "1_a", {"val/acc": 0.8, "test/acc": 0.99}, lr=0.2)
    assert names(best(find_runs([tmp_path]))) == ["0_a"]


def test_no_lucky_seed_wins_over_settings_that_are_better_on_average(tmp_path: Path) -> None:
    for number, (lr, acc) in enumerate(((0.1, 0.99), (0.1, 0.5), (0.2, 0.97), (0.2, 0.98))):
        add_run(tmp_path / f"{number}_a", scores(acc), lr=lr, seed=number)
    assert names(best(find_runs([tmp_path]))) == ["3_a"]


def test_what_has_not_finished_or_not_been_validated_wins_nothing(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.99, status="pruned"))
    add_run(tmp_path / "1_a", {"test/acc": 0.99})
    runs = find_runs([tmp_path])
    assert best(runs) == []
    assert best(runs, {"val/acc": "maximize", "seconds": "minimize"}) == []


def test_with_two_objectives_the_pareto_front_wins(tmp_path: Path) -> None:
    points = [(0.9, 10), (0.95, 20), (0.94, 20), (0.99, 90), (0.9, 11), (0.99, 90)]
    for number, (acc, seconds) in enumerate(points):
        add_run(tmp_path / f"{number}_a", scores(acc, seconds=seconds), lr=number + 1)
    add_run(tmp_path / "6_a", scores(1.0, seconds=1, status="pruned"), lr=9)
    objectives = {"val/acc": "maximize", "seconds": "minimize"}
    # equals do not beat each other
    assert names(best(find_runs([tmp_path]), objectives)) == ["3_a", "5_a", "1_a", "0_a"]


def test_the_objectives_of_a_search_are_read_from_its_settings(tmp_path: Path) -> None:
    assert compare.objectives_of(tmp_path) == {"val/acc": "maximize"}
    text = "hydra: {sweeper: {objectives: {val/acc: maximize, seconds: minimize}}}"
    (tmp_path / "multirun.yaml").write_text(text)
    assert compare.objectives_of(tmp_path) == {"val/acc": "maximize", "seconds": "minimize"}
    (tmp_path / "multirun.yaml").write_text(
        "hydra: {sweeper: {objectives: {val/acc: null, seconds: minimize}}}"
    )
    assert compare.objectives_of(tmp_path) == {"seconds": "minimize"}
    for broken in (
        "hydra: [",
        "hydra: {sweeper: {objectives: {a: up}}}",
        "hydra: {sweeper: {objectives: [a]}}",
    ):
        (tmp_path / "multirun.yaml").write_text(broken)
        assert compare.objectives_of(tmp_path) == {"val/acc": "maximize"}
