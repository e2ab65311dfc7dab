"""The report of a sweep: tables, CSV, the command of the best job, figures."""

import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import add_failed, add_run, scores
from omegaconf import OmegaConf

from hydra_sweeps import __main__ as command
from hydra_sweeps.commands import AppCommand
from hydra_sweeps.goal import Goal
from hydra_sweeps.report import writing
from hydra_sweeps.runs import find_runs

GOAL = Goal({"val/acc": "maximize"}, ("test/acc", "test/loss", "images_per_second", "seconds"))
BOTH = Goal({"val/acc": "maximize", "seconds": "minimize"}, GOAL.metrics)


def cells(text: str) -> list[list[list[str]]]:
    """Return the cells of the Markdown tables in `text`, without the rule below the titles."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line[2:-2].split(" | ")])
        elif found[-1]:
            found.append([])
    return [[one[0], *one[2:]] for one in found if one]


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def add_grid(folder: Path) -> Path:
    """Make a sweep of two learning rates and two seeds each, and a pruned and a failed job."""
    for number, (lr, seed, acc) in enumerate(
        ((0.1, 0, 0.95), (0.1, 1, 0.97), (0.2, 0, 0.98), (0.2, 1, 0.982))
    ):
        overrides = [f"optim.lr={lr}", f"seed={seed}"]
        add_run(folder / f"{number}_lr", scores(acc), overrides, lr=lr, seed=seed)
    add_run(folder / "4_lr", {"val/acc": 0.5, "epochs": 1, "status": "pruned"}, ["optim.lr=0.3"], lr=0.3)
    (add_run(folder / "5_lr", None, ["optim.lr=9"], lr=9.0) / "failed.json").write_text(
        '{"error": "loss\\nis nan"}'
    )
    goal = {"objective": {"metric": "val/acc", "mode": "max"}, "sweep": {"metrics": list(GOAL.metrics or ())}}
    OmegaConf.save(goal, folder / "multirun.yaml")
    return with_command(folder)


def with_command(folder: Path) -> Path:
    """Keep the command with which a sweep was started, in this folder."""
    AppCommand(["train.py"], os.getcwd(), [], "s").write(folder)
    return folder


# --- tables --------------------------------------------------------------------------------------


def test_seeds_are_grouped(tmp_path: Path) -> None:
    [rows] = cells(writing.text(find_runs([add_grid(tmp_path)]), GOAL))
    assert rows[0][:7] == [
        "lr",
        "n",
        "val/acc",
        "val/acc min–max",
        "test/acc",
        "test/acc min–max",
        "test/loss",
    ]
    assert rows[1][:5] == ["0.2", "2", "98.10 ± 0.14%", "98.00–98.20%", "97.10 ± 0.14%"]
    assert rows[2][:5] == ["0.1", "2", "96.00 ± 1.41%", "95.00–97.00%", "95.00 ± 1.41%"]
    assert len(rows) == 3


def test_without_seeds_there_is_a_row_per_job(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.95), lr=0.1)
    add_run(tmp_path / "1_a", scores(0.97, images_per_second=1234.5), lr=0.123456789)
    text = writing.text(find_runs([tmp_path]), GOAL)
    [rows] = cells(text)
    assert rows == [
        ["job", "lr", "val/acc", "test/acc", "test/loss", "images_per_second", "seconds"],
        ["1", "0.1235", "97.00%", "96.00%", "0.5000", "1,234", "2"],
        ["0", "0.1", "95.00%", "94.00%", "0.5000", "", "2"],
    ]
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1


def test_the_markdown_has_tables_command_and_figures(tmp_path: Path) -> None:
    writing.write(add_grid(tmp_path), GOAL)
    message = (tmp_path / "sweep.md").read_text()
    assert [len(table) for table in cells(message)] == [3, 7]
    assert "rerun with: python train.py optim.lr=0.2 seed=1\n```" in message
    assert "![by_lr](figures/by_lr.png)" in message
    assert "\njob 5 (lr=9.0, seed=0) failed: loss is nan\n" in message
    # status, epochs and seed are shown since they differ
    _, rows = cells(message)
    assert rows[0][:6] == ["job", "lr", "seed", "status", "epochs", "val/acc"]
    assert rows[1][:6] == ["3", "0.2", "1", "finished", "2", "98.20%"]
    assert rows[-2][:6] == ["4", "0.3", "0", "pruned", "1", "50.00%"]
    assert rows[-1][:5] == ["5", "9.0", "0", "failed", ""]


def test_a_long_table_is_shortened(tmp_path: Path) -> None:
    for number in range(32):
        add_run(tmp_path / f"{number}_a", scores(0.9), lr=number + 1)
    runs = find_runs([tmp_path])
    [rows] = cells(writing.text(runs, GOAL))
    assert [row[0] for row in rows[1:]] == [str(number) for number in range(30)]
    assert "\n… and 2 more in sweep.csv\n" in writing.text(runs, GOAL)
    assert "more" not in writing.text(runs[:30], GOAL)


def test_bars_in_values_are_escaped(tmp_path: Path) -> None:
    assert writing.as_markdown([["a"], ["x|y\nz"]]).splitlines()[2] == "| x\\|y z |"


def test_texts_of_runs_do_not_control_the_terminal(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.95), note="\x1b[31mred\u202e")
    add_run(tmp_path / "1_a", scores(0.9), lr=0.2, note="é")
    add_failed(tmp_path / "2_a", "\x1b]0;title\x07")
    writing.write(tmp_path, GOAL)
    for text in (writing.text(find_runs([tmp_path]), GOAL), (tmp_path / "sweep.md").read_text()):
        assert "?[31mred?" in text
        assert "é" in text
        assert "?]0;title?" in text
        assert all(line.isprintable() for line in text.split("\n"))


def test_failures_are_listed_with_their_settings(tmp_path: Path) -> None:
    lines = writing.text(find_runs([add_grid(tmp_path)]), GOAL).splitlines()
    assert "4 ok, 1 pruned, 1 failed" in lines
    assert "job 5 (lr=9.0, seed=0) failed: loss is nan" in lines
    add_run(tmp_path / "other" / "6_lr", scores(0.9))
    assert "1 ok" in writing.text(find_runs([tmp_path / "other"]), GOAL).splitlines()


def test_a_setting_may_have_the_name_of_a_metric_or_of_a_column(tmp_path: Path) -> None:
    for number, (job, loss) in enumerate([(5, "l1"), (6, "l2")]):
        settings = {"loss": loss, "job": job, "folder": loss}
        overrides = [f"{key}={value}" for key, value in settings.items()]
        add_run(tmp_path / f"{number}_a", {"val/acc": 0.9, "loss": number + 0.5}, overrides, settings)
    runs = find_runs([tmp_path])
    title, *lines = writing.jobs_table(runs, Goal({"val/acc": "maximize"}, ("loss",)))
    assert title == ["job", "loss", "job", "folder", "val/acc", "loss"]
    assert lines[0] == ["0", "l1", "5", "l1", "90.00%", "0.5"]
    writing.write_csv(tmp_path / "all.csv", runs, GOAL)
    titles, first, _ = (line.split(",") for line in (tmp_path / "all.csv").read_text().splitlines())
    assert titles[:4] == ["job", "loss", "job", "folder"]
    assert first[:4] == ["0", "l1", "5", "l1"]
    assert first[-1] == "0_a"
    writing.write_csv(tmp_path / "all.csv", runs, Goal({"val/acc": "maximize"}, ("loss",)))
    assert "metric loss" in (tmp_path / "all.csv").read_text()


def test_runs_that_a_job_has_started_are_not_jobs_of_its_sweep(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.9))
    add_run(tmp_path / "0_a" / "inner" / "0_b", scores(0.99))
    assert "1 ok" in writing.write(tmp_path, GOAL)


def test_a_group_has_no_mean_of_what_one_of_its_runs_has_not(tmp_path: Path) -> None:
    for number in range(2):
        metrics = scores(0.9) | ({"test/loss": float("nan")} if number else {})
        add_run(tmp_path / f"{number}_a", metrics, seed=number)
    title, line = writing.groups_table(find_runs([tmp_path]), GOAL) or []
    assert dict(zip(title, line, strict=True)).get("test/loss", "") == ""


def test_strange_numbers_do_not_end_the_report(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", {"val/acc": 0.5, "epochs": 1, "status": "pruned"}, max_epochs=None)
    folder = add_run(tmp_path / "1_a", scores(0.9), lr=0.2)
    (folder / "metrics.json").write_text(f'{{"val/acc": 0.9, "test/acc": {"9" * 401}, "seconds": true}}')
    message = writing.write(tmp_path, GOAL)
    assert "1 ok, 1 pruned" in message.splitlines()
    assert "best by val/acc: job 1" in message


def test_a_sweep_with_only_failed_jobs_is_reported(tmp_path: Path) -> None:
    for number in range(2):
        add_failed(tmp_path / f"{number}_a", overrides=[f"optim.lr={-number}"])
    message = writing.write(tmp_path, GOAL)
    assert "job 1 (optim.lr=-1) failed: no such thing" in message
    assert "2 failed" in message and "rerun" not in message


# --- the command of the winner -------------------------------------------------------------------


def test_the_best_job_is_rerun_with_its_overrides(tmp_path: Path) -> None:
    overrides = [
        "optim=sgd",
        "data.dir=my data",
        "data.classes=['a','b']",
        "~callbacks.figures",
        "+trainer.x=1",
        "sweep.pruning=true",
        "++sweep.resume=x",
        "hydra.sweeper.trial=3",
    ]
    add_run(tmp_path / "0_a", scores(0.9), overrides)
    line = writing.text(find_runs([with_command(tmp_path)]), GOAL).splitlines()[-1]
    label, _, command = line.partition(", rerun with: ")
    assert label == "best by val/acc: job 0"
    assert shlex.split(command) == ["python", "train.py", *overrides[:5]]


def test_without_validation_no_job_is_best(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", {"test/acc": 0.99}, ["optim=sgd"])
    assert "train.py" not in writing.text(find_runs([tmp_path]), GOAL)


def test_the_pareto_front_is_marked(tmp_path: Path) -> None:
    for number, (acc, seconds) in enumerate(((0.9, 10), (0.95, 20), (0.94, 30))):
        add_run(tmp_path / f"{number}_a", scores(acc, seconds=seconds), [f"optim.lr={number}"], lr=number)
    message = writing.write(with_command(tmp_path), BOTH)
    [rows] = cells(message)
    assert [row[:3] for row in rows] == [
        ["job", "best", "lr"],
        ["1", "*", "1"],
        ["2", "", "2"],
        ["0", "*", "0"],
    ]
    assert [line.split(", rerun with: ")[1] for line in message.splitlines() if "rerun" in line] == [
        "python train.py optim.lr=1",
        "python train.py optim.lr=0",
    ]
    assert [row["best"] for row in csv_rows(tmp_path / "sweep.csv")] == ["*", "", "*"]


# --- files ---------------------------------------------------------------------------------------


def test_the_csv_has_unrounded_numbers(tmp_path: Path) -> None:
    writing.write(add_grid(tmp_path), GOAL)
    rows = csv_rows(tmp_path / "sweep.csv")
    assert list(rows[0]) == [
        "job",
        "lr",
        "seed",
        "status",
        "epochs",
        "val/acc",
        "test/acc",
        "test/loss",
        "images_per_second",
        "seconds",
        "error",
        "folder",
    ]
    assert [row["job"] for row in rows] == ["3", "2", "1", "0", "4", "5"]
    assert float(rows[0]["val/acc"]) == 0.982
    assert [row["folder"] for row in rows] == ["3_lr", "2_lr", "1_lr", "0_lr", "4_lr", "5_lr"]
    assert (rows[4]["status"], rows[4]["test/acc"]) == ("pruned", "")
    assert (rows[5]["status"], rows[5]["error"]) == ("failed", "loss\nis nan")


def test_figures_of_each_setting_and_each_pair(tmp_path: Path) -> None:
    for number in range(8):
        # lr and x/y are no grid
        choices = {"optim": ["sgd", "adam"][number % 2], "lr": 10.0**-number, "x/y": 0.1 + number}
        add_run(tmp_path / f"{number}_a", scores(0.9 + number / 100), **choices)
    writing.write(tmp_path, GOAL)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "by_lr.png",
        "by_optim.png",
        "by_x_y.png",
        "optim_x_lr.png",
        "optim_x_x_y.png",
    ]


def test_without_swept_settings_there_are_no_figures(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.9))
    writing.write(tmp_path, GOAL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0_a", "sweep.csv", "sweep.md"]


# --- python -m hydra_sweeps ------------------------------------------------------------------


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: Path | str) -> None:
    monkeypatch.setattr(sys, "argv", ["sweeps", *map(str, arguments)])
    command.main()


def test_the_command_writes_the_report_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    add_grid(tmp_path / "sweep")
    run_command(monkeypatch, "sweep")
    message = capsys.readouterr().out
    assert message.startswith(writing.text(find_runs([tmp_path]), GOAL))
    assert message.endswith("report: sweep/sweep.md\n")
    assert (tmp_path / "sweep" / "sweep.csv").is_file()


def test_the_command_compares_several_sweeps_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        add_run(tmp_path / name / "0_a", scores(0.9), lr=0.1 + len(name) + (name == "two"))
        (tmp_path / name / "multirun.yaml").touch()
    add_run(tmp_path / "runs" / "2026-01-01_simple", scores(0.8))
    path = tmp_path / "all.csv"
    monkeypatch.chdir(tmp_path)
    run_command(monkeypatch, "one", "two", "runs", "--csv", path)
    [rows] = cells(capsys.readouterr().out)
    assert [row[0] for row in rows[1:]] == ["one/0", "two/0", "2026-01-01_simple"]
    assert [row["job"] for row in csv_rows(path)] == ["one/0", "two/0", "2026-01-01_simple"]
    assert csv_rows(path)[2]["folder"] == "runs/2026-01-01_simple"
    assert not (tmp_path / "one" / "sweep.csv").exists()


def test_the_command_says_how_to_get_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(31):
        add_run(tmp_path / f"{number}_a", scores(0.9), lr=number + 1)
    run_command(monkeypatch, tmp_path)
    assert "\n… and 1 more (--csv PATH writes all)\n" in capsys.readouterr().out
    assert not (tmp_path / "sweep.csv").exists()  # no multirun.yaml: it is no sweep


def test_the_command_reports_user_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="No run found in nowhere"):
        run_command(monkeypatch, "nowhere")


def test_comparing_finished_runs_imports_nothing_slow(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.9))
    program = (
        f"import sys; sys.argv[1:] = [{str(tmp_path)!r}]\n"
        "from hydra_sweeps.__main__ import main\nmain()\n"
        "assert not {'torch', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
