"""Runs read from their folders, what differs between them, and which are best."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from made_runs import add_failed, add_history, add_run, scores
from omegaconf import OmegaConf

from hydra_sweeps import SweepError
from hydra_sweeps import runs as module
from hydra_sweeps.goal import Goal, Objectives
from hydra_sweeps.runs import Group, Run, differing, find_runs, goal_of_sweep, swept

OBJECTIVES = {"val/acc": "maximize"}


def ranked(runs: Sequence[Run], objectives: Objectives = OBJECTIVES) -> list[Run]:
    return module.ranked(runs, objectives)


def group(runs: Sequence[Run], objectives: Objectives = OBJECTIVES) -> list[Group]:
    return module.group(runs, objectives)


def best(runs: Sequence[Run], objectives: Objectives = OBJECTIVES) -> list[Run]:
    return module.best(runs, objectives)


def names(runs: Sequence[Run]) -> list[str]:
    return [run.folder.name for run in runs]


# --- finding runs --------------------------------------------------------------------------------


def test_a_run_is_read_from_its_folder(tmp_path: Path) -> None:
    folder = add_run(
        tmp_path / "12_lr=0.1", scores(0.9), ["optim=sgd", "seed=3"], seed=3, **{"optim.momentum": 0.9}
    )
    [run] = find_runs([tmp_path])
    assert (run.folder, run.number, run.status, run.error) == (folder, 12, "finished", None)
    assert run.hparams == {"seed": 3, "optim": "sgd", "lr": 0.1, "optim.momentum": 0.9}
    assert run.overrides == ["optim=sgd", "seed=3"]
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


def test_jobs_are_ordered_by_number_and_found_once(tmp_path: Path) -> None:
    for name in ("10_a", "9_a", "2026-01-01_simple"):
        folder = add_run(tmp_path / "sweep" / name, scores(0.9))
    runs = find_runs([tmp_path, tmp_path / "sweep", folder])
    assert [run.number for run in runs] == [9, 10, math.inf]


@pytest.mark.parametrize(
    ("mode", "best"), [("max", {"epoch": 2, "x": 0.9}), ("min", {"epoch": 1, "x": 0.8}), (None, {})]
)
def test_an_unfinished_run_has_its_best_epoch(
    mode: str | None, best: dict[str, float], tmp_path: Path
) -> None:
    folder = add_run(tmp_path / "0_a", settings={"objective": {"metric": "x", "mode": mode}})
    add_history(folder, [{"epoch": epoch, "x": x} for epoch, x in ((1, 0.8), (2, 0.9), (3, 0.85))])
    [run] = find_runs([tmp_path])
    assert run.metrics == best | {"epochs": 3}


@pytest.mark.parametrize("file", ["history.json", "metrics.json"])
@pytest.mark.parametrize("content", ["", "[", '{"val/acc": 0.', "[]", "[1, 2]", "\ufffd", "\x00"])
def test_an_unreadable_file_is_ignored(file: str, content: str, tmp_path: Path) -> None:
    (add_run(tmp_path / "0_a") / file).write_text(content)
    [run] = find_runs([tmp_path])
    assert (run.status, run.metrics) == ("unfinished", {})


@pytest.mark.parametrize(
    "content", ["seed: [", "a: &a {b: *a}", "\x00", "!!python/object/apply:os.getcwd []", "!!bool x"]
)
def test_settings_that_cannot_be_read_are_left_out_with_a_warning(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = add_run(tmp_path / "0_a", scores(0.9), ["optim=adam"])
    (folder / ".hydra" / "resolved.yaml").write_text(content)
    [run] = find_runs([tmp_path])
    assert (run.status, run.hparams) == ("finished", {"optim": "adam"})
    assert "Left out: " in caplog.text and "resolved.yaml cannot be read" in caplog.text


def test_an_unreadable_failure_is_a_failure(tmp_path: Path) -> None:
    (add_run(tmp_path / "0_a") / "failed.json").write_text('{"err')
    [run] = find_runs([tmp_path])
    assert (run.status, run.error) == ("failed", "no message")


def test_values_must_be_finite_numbers(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", {"val/acc": float("nan"), "test/acc": "high", "test/loss": None, "epochs": 2})
    [run] = find_runs([tmp_path])
    assert [run.value(key) for key in ("val/acc", "test/acc", "test/loss", "epochs")] == [None] * 3 + [2]


@pytest.mark.parametrize("content", ["", "a: [1", "a: ${b", "- a", "3", "seed: 1", "hparams: 3", "\x00"])
def test_other_folders_are_skipped(tmp_path: Path, content: str) -> None:
    add_run(tmp_path / "good", scores(0.9))
    foreign = tmp_path / "foreign"
    (foreign / ".hydra").mkdir(parents=True)
    (foreign / "metrics.json").write_text("{}")
    (foreign / ".hydra" / "resolved.yaml").write_text(content)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "failed.json").write_text("{}")
    assert names(find_runs([tmp_path])) == ["good"]


def test_a_job_that_failed_at_once_has_its_overrides(tmp_path: Path) -> None:
    add_failed(tmp_path / "0_a", "lr must be positive", ["optim=adam", "optim.lr=-1.5", "+data.std=2"])
    [run] = find_runs([tmp_path])
    assert (run.status, run.error) == ("failed", "lr must be positive")
    assert run.hparams == {"optim": "adam", "optim.lr": -1.5, "data.std": 2}


def test_a_setting_has_the_name_that_it_has_in_hparams(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.9), ["optim.lr=0.1"], lr=0.1)
    add_run(tmp_path / "1_a", scores(0.9), ["optim.lr=0.2"], lr=0.2)
    add_failed(tmp_path / "2_a", overrides=["optim.lr=0.3"])
    assert [run.hparams["lr"] for run in find_runs([tmp_path])] == [0.1, 0.2, 0.3]
    assert differing(find_runs([tmp_path])) == ["lr"]
    other = {"optim": {"lr": 0.4}, "scheduler": {"lr": 0.5}}
    add_run(tmp_path / "3_a", scores(0.9), ["optim.lr=0.4", "scheduler.lr=0.5"], other, lr=0.4)
    assert differing(find_runs([tmp_path])) == ["lr", "scheduler.lr"]


def test_a_job_without_hydra_files_counts_in_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").touch()
    (tmp_path / "3_optim=adam").mkdir()
    (tmp_path / "3_optim=adam" / "failed.json").write_text('{"error": "killed"}')
    [run] = find_runs([tmp_path])
    assert (run.number, run.status, run.error, run.overrides) == (3, "failed", "killed", [])


def test_no_run_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=f"No run found in {tmp_path}, elsewhere"):
        find_runs([tmp_path, Path("elsewhere")])


# --- what differs --------------------------------------------------------------------------------


def test_ignored_settings_do_not_differ(tmp_path: Path) -> None:
    for number in range(2):
        ignored = {
            "sweep": {"resume": number, "ignore": ["data.dir", "trainer.accelerator"]},
            "hydra": {"job": number},
            "data": {"dir": f"data{number}", "name": "mnist"},
            "trainer": {"accelerator": ["cpu", "auto"][number], "max_epochs": 2},
        }
        more = {"trainer.accelerator": number, "sweep.x": number}
        add_run(tmp_path / f"{number}_a", scores(0.9), settings=ignored, seed=number, **more)
    runs = find_runs([tmp_path])
    assert runs[0].settings == runs[1].settings
    assert differing(runs) == ["seed"]


@pytest.mark.parametrize(
    ("swept", "key"), [("data.dir=fa,fb", "data.dir"), ("+trainer=auto,cpu", "trainer"), ("=(", None)]
)
def test_ignored_settings_differ_where_they_are_swept(swept: str, key: str | None, tmp_path: Path) -> None:
    OmegaConf.save({"hydra": {"overrides": {"task": ["seed=0", swept]}}}, tmp_path / "multirun.yaml")
    for number, (folder, device) in enumerate((("fa", "auto"), ("fb", "cpu"))):
        settings = {"data": {"dir": folder}, "trainer": {"accelerator": device}}
        given = {"data.dir": folder, "trainer": device}
        overrides = [] if key is None else [f"{key}={given[key]}"]
        add_run(tmp_path / f"{number}_a", scores(0.9), overrides, settings)
    runs = find_runs([tmp_path])
    assert (runs[0].settings != runs[1].settings) == (key is not None)
    assert differing(runs) == ([] if key is None else [key])
    assert len(group(runs)) == (1 if key is None else 2)


@pytest.mark.parametrize("settings", [{"data": {"name": "fashion"}}, {"trainer": {"max_epochs": 3}}])
def test_other_settings_differ(tmp_path: Path, settings: dict[str, Any]) -> None:
    add_run(tmp_path / "0_a", scores(0.9))
    add_run(tmp_path / "1_a", scores(0.9), settings=settings)
    first, second = find_runs([tmp_path])
    assert first.settings != second.settings


def test_a_missing_setting_differs_except_in_failed_runs(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.9))
    add_failed(tmp_path / "1_a", overrides=["optim=adam"])
    assert differing(find_runs([tmp_path])) == ["optim"]
    add_run(tmp_path / "2_a", scores(0.9), **{"optim.momentum": 0.9})
    assert differing(find_runs([tmp_path])) == ["optim", "optim.momentum"]


def test_swept_settings_are_those_that_were_set(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.9), ["optim=sgd"], lr=0.1)
    add_run(tmp_path / "1_a", scores(0.9), ["optim=adam"], lr=0.001, optim="adam")
    runs = find_runs([tmp_path])
    assert differing(runs) == ["optim", "lr"]
    assert swept(runs) == ["optim"]
    add_run(tmp_path / "2_a", scores(0.9), ["optim=adam", "optim.lr=0.1"], lr=0.1, optim="adam")
    assert swept(find_runs([tmp_path])) == ["optim", "lr"]


def test_groups_have_finished_runs_that_differ_in_their_seed(tmp_path: Path) -> None:
    for seed, acc in enumerate((0.95, 0.96, 0.97)):
        add_run(tmp_path / f"{seed}_a", scores(acc), seed=seed)
    add_run(tmp_path / "3_a", scores(0.5, status="pruned"), seed=3)
    add_run(tmp_path / "4_a", seed=4)
    add_run(tmp_path / "5_a", scores(0.98), lr=0.2)
    first, second = group(find_runs([tmp_path]))
    assert names(first) == ["5_a"]
    assert names(second) == ["2_a", "1_a", "0_a"]


def test_paths_in_the_folders_of_runs_do_not_part_them(tmp_path: Path) -> None:
    for name, seed in (("0_seed-0", 0), ("1_seed-1", 1)):
        paths = {"logger": {"save_dir": f"/moved/since/{name}", "file": f"/moved/since/{name}/log.csv"}}
        add_run(tmp_path / name, scores(0.9), settings=paths, seed=seed)
    add_run(tmp_path / "2_seed-2", scores(0.9), settings={"logger": {"save_dir": "/elsewhere"}}, seed=2)
    assert sorted(len(one) for one in group(find_runs([tmp_path]))) == [1, 2]


def test_a_value_with_the_number_of_a_run_in_it_is_a_setting(tmp_path: Path) -> None:
    for number in range(2):
        paths = {"fold": f"folds/{number}/train", "save_dir": f"/a/{tmp_path.name}/{number}"}
        add_run(tmp_path / str(number), scores(0.9), settings=paths)
    assert [len(one) for one in group(find_runs([tmp_path]))] == [1, 1]


@pytest.mark.parametrize(("seeds", "names_of_group"), [((0, 0, 1), "12"), ((None, None, None), "102")])
def test_groups_have_one_run_per_seed_and_all_without(
    seeds: tuple[int | None, ...], names_of_group: str, tmp_path: Path
) -> None:
    for number, (seed, acc) in enumerate(zip(seeds, (0.95, 0.96, 0.9), strict=True)):
        add_run(tmp_path / str(number), scores(acc), seed=seed, settings={"seed": seed})
    (one,) = group(find_runs([tmp_path]))
    assert names(one) == list(names_of_group)


# --- which is best -------------------------------------------------------------------------------


def test_runs_are_ranked_by_the_objective(tmp_path: Path) -> None:
    add_run(tmp_path / "3_a", {"test/acc": 0.99})
    add_run(tmp_path / "0_a", scores(0.8, seconds=1))
    add_run(tmp_path / "2_a")
    add_run(tmp_path / "1_a", scores(0.9, seconds=5))
    runs = find_runs([tmp_path])
    assert names(ranked(runs)) == ["1_a", "0_a", "2_a", "3_a"]
    assert names(ranked(runs, {"seconds": "minimize", "val/acc": "maximize"})) == ["0_a", "1_a", "2_a", "3_a"]


def test_the_best_run_is_chosen_by_validation(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", {"test/acc": 0.99}, lr=0.1)
    add_run(tmp_path / "1_a", {"val/acc": 0.9, "test/acc": 0.1}, lr=0.2)
    add_run(tmp_path / "2_a", {"val/acc": 0.8, "test/acc": 0.99}, lr=0.3)
    runs = find_runs([tmp_path])
    assert names(best(runs)) == ["1_a"]
    assert [names(one) for one in group(runs)] == [["1_a"], ["2_a"], ["0_a"]]


def test_the_best_run_is_of_the_group_best_on_average(tmp_path: Path) -> None:
    for number, (lr, acc) in enumerate(((0.1, 0.99), (0.1, 0.5), (0.2, 0.97), (0.2, 0.98))):
        add_run(tmp_path / f"{number}_a", scores(acc), lr=lr, seed=number)
    assert names(best(find_runs([tmp_path]))) == ["3_a"]


def test_only_finished_runs_with_the_objective_can_be_best(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.99, status="pruned"))
    add_run(tmp_path / "1_a", {"test/acc": 0.99})
    runs = find_runs([tmp_path])
    assert best(runs) == []
    assert best(runs, {"val/acc": "maximize", "seconds": "minimize"}) == []


def test_the_pareto_front_is_best_for_two_objectives(tmp_path: Path) -> None:
    points = [(0.9, 10), (0.95, 20), (0.94, 20), (0.99, 90), (0.9, 11), (0.99, 90)]
    for number, (acc, seconds) in enumerate(points):
        add_run(tmp_path / f"{number}_a", scores(acc, seconds=seconds), lr=number + 1)
    add_run(tmp_path / "6_a", scores(1.0, seconds=1, status="pruned"), lr=9)
    objectives = {"val/acc": "maximize", "seconds": "minimize"}
    # equal runs do not dominate each other
    assert names(best(find_runs([tmp_path]), objectives)) == ["3_a", "5_a", "1_a", "0_a"]


def test_the_goal_is_read_from_the_definition_of_a_sweep(tmp_path: Path) -> None:
    def goal(text: str) -> tuple[dict[str, str], list[str]]:
        (tmp_path / "multirun.yaml").write_text(text)
        found = goal_of_sweep(tmp_path)
        return dict(found.objectives), list(found.metrics or ())

    assert goal_of_sweep(tmp_path) == Goal({"result": "minimize"}, None)
    app = "objective: {metric: val/loss, mode: min}\nsweep: {metrics: [x]}\n"
    assert goal(app) == ({"val/loss": "minimize"}, ["x"])
    both = {"val/acc": "maximize", "seconds": "minimize"}
    search = "hydra: {sweeper: {objectives: {val/acc: maximize, seconds: minimize}}}"
    assert goal(app + search) == (both, ["x"])
    search = "hydra: {sweeper: {objectives: {val/acc: null, seconds: minimize}}}"
    assert goal(search)[0] == {"seconds": "minimize"}
    for broken in (
        "hydra: [",
        "hydra: {sweeper: {objectives: {a: up}}}",
        "hydra: {sweeper: {objectives: [a]}}",
        "objective: {metric: a, mode: up}",
        "objective: val/loss",
    ):
        assert goal(broken)[0] == {"result": "minimize"}
