"""What the report of a sweep says and leaves: tables, the csv, the command of the winner, the pictures."""

import csv
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mnist_cnn.sweeps import __main__ as command
from mnist_cnn.sweeps import report
from mnist_cnn.sweeps.compare import find_runs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.sweeps.test_compare import add_checkpoint, add_failed, add_run, scores

from mnist_cnn.errors import UserError

BOTH = {"val/acc": "maximize", "seconds": "minimize"}


def tables(text: str) -> list[list[list[str]]]:
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
    """Make a sweep of two learning rates and two seeds each, with a pruned and a failed job beside."""
    for number, (lr, seed, acc) in enumerate(
        ((0.1, 0, 0.95), (0.1, 1, 0.97), (0.2, 0, 0.98), (0.2, 1, 0.982))
    ):
        overrides = [f"optim.lr={lr}", f"seed={seed}"]
        run = add_run(folder / f"{number}_lr", scores(acc), overrides, lr=lr, seed=seed)
        add_checkpoint(run, "best.ckpt")
    add_run(folder / "4_lr", {"val/acc": 0.5, "epochs": 1, "status": "pruned"}, ["optim.lr=0.3"], lr=0.3)
    (add_run(folder / "5_lr", None, ["optim.lr=9"], lr=9.0) / "failed.json").write_text(
        '{"error": "loss\\nis nan"}'
    )
    (folder / "multirun.yaml").touch()
    return folder


# --- tables --------------------------------------------------------------------------------------


def test_runs_that_differ_in_their_seed_only_are_one_row(tmp_path: Path) -> None:
    [rows] = tables(report.text(find_runs([add_grid(tmp_path)])))
    assert rows[0][:7] == [
        *("lr", "n", "val/acc", "val/acc min–max", "test/acc", "test/acc min–max", "test/loss"),
    ]
    assert rows[1][:5] == ["0.2", "2", "98.10 ± 0.14%", "98.00–98.20%", "97.10 ± 0.14%"]
    assert rows[2][:5] == ["0.1", "2", "96.00 ± 1.41%", "95.00–97.00%", "95.00 ± 1.41%"]
    assert len(rows) == 3


def test_without_seeds_there_is_a_row_for_each_job(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.95), lr=0.1)
    add_run(tmp_path / "1_a", scores(0.97, images_per_second=1234.5), lr=0.123456789)
    text = report.text(find_runs([tmp_path]))
    [rows] = tables(text)
    assert rows == [
        ["job", "lr", "val/acc", "test/acc", "test/loss", "images_per_second", "seconds"],
        ["1", "0.1235", "97.00%", "96.00%", "0.5000", "1,234", "2"],
        ["0", "0.1", "95.00%", "94.00%", "0.5000", "", "2"],
    ]
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1


def test_status_epochs_and_seed_are_shown_where_they_differ(tmp_path: Path) -> None:
    report.write(add_grid(tmp_path))
    _, rows = tables((tmp_path / "sweep.md").read_text())
    assert rows[0][:6] == ["job", "lr", "seed", "status", "epochs", "val/acc"]
    assert rows[1][:6] == ["3", "0.2", "1", "finished", "2", "98.20%"]
    assert rows[-2][:6] == ["4", "0.3", "0", "pruned", "1", "50.00%"]
    assert rows[-1][:5] == ["5", "9.0", "0", "failed", ""]


def test_a_long_table_is_cut_and_says_where_the_rest_is(tmp_path: Path) -> None:
    for number in range(31):
        add_run(tmp_path / f"{number}_a", scores(0.9), lr=number + 1)
    runs = find_runs([tmp_path])
    [rows] = tables(report.text(runs))
    assert [row[0] for row in rows[1:]] == [str(number) for number in range(20)]
    assert "\n… and 11 more in sweep.csv\n" in report.text(runs)
    [rows] = tables(report.text(runs[:30]))
    assert len(rows) == 31


def test_a_bar_in_a_value_does_not_end_its_cell(tmp_path: Path) -> None:
    assert report.table([["a"], ["x|y\nz"]]).splitlines()[2] == "| x\\|y z |"


def test_the_counts_name_only_what_there_is_and_failures_their_settings(tmp_path: Path) -> None:
    lines = report.text(find_runs([add_grid(tmp_path)])).splitlines()
    assert "4 ok, 1 pruned, 1 failed" in lines
    assert "job 5 (lr=9.0, seed=0) failed: loss is nan" in lines
    add_run(tmp_path / "other" / "6_lr", scores(0.9))
    assert "1 ok" in report.text(find_runs([tmp_path / "other"])).splitlines()


def test_a_sweep_of_failed_jobs_alone_is_told(tmp_path: Path) -> None:
    for number in range(2):
        add_failed(tmp_path / f"{number}_a", overrides=[f"optim.lr={-number}"])
    said = report.write(tmp_path)
    assert "job 1 (optim.lr=-1) failed: no such thing" in said
    assert "2 failed" in said and "again" not in said


# --- the command of the winner -------------------------------------------------------------------


def test_the_winner_is_run_again_by_its_own_overrides(tmp_path: Path) -> None:
    overrides = [
        *("optim=sgd", "data.dir=my data", "data.classes=['a','b']", "~callbacks.pictures", "+trainer.x=1"),
        *("resume=logs/x", "sweep.pruning=true", "++sweep.resume=x", "hydra.sweeper.trial=3"),
    ]
    add_run(tmp_path / "0_a", scores(0.9), overrides)
    line = report.text(find_runs([tmp_path])).splitlines()[-1]
    told, _, again = line.partition(", again by: ")
    assert told == "best by val/acc: job 0"
    assert shlex.split(again) == ["python", "train.py", *overrides[:5]]


def test_without_validation_nothing_wins(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", {"test/acc": 0.99}, ["optim=sgd"])
    assert "train.py" not in report.text(find_runs([tmp_path]))


def test_the_pareto_front_is_marked_and_each_of_it_can_be_run_again(tmp_path: Path) -> None:
    for number, (acc, seconds) in enumerate(((0.9, 10), (0.95, 20), (0.94, 30))):
        add_run(tmp_path / f"{number}_a", scores(acc, seconds=seconds), [f"optim.lr={number}"], lr=number)
    said = report.write(tmp_path, BOTH)
    [rows] = tables(said)
    assert [row[:3] for row in rows] == [
        ["job", "best", "lr"],
        ["1", "*", "1"],
        ["2", "", "2"],
        ["0", "*", "0"],
    ]
    assert [line.split(", again by: ")[1] for line in said.splitlines() if "again" in line] == [
        "python train.py optim.lr=1",
        "python train.py optim.lr=0",
    ]
    assert [row["best"] for row in csv_rows(tmp_path / "sweep.csv")] == ["*", "", "*"]


def test_no_more_than_five_of_the_front_are_given(tmp_path: Path) -> None:
    for number in range(7):
        add_run(tmp_path / f"{number}_a", scores(0.9 + number / 100, seconds=number), lr=number)
    assert report.text(find_runs([tmp_path]), BOTH).count("python train.py") == 5


def test_an_objective_of_its_own_is_a_column(tmp_path: Path) -> None:
    for number, loss in enumerate((0.3, 0.1)):
        add_run(tmp_path / f"{number}_a", scores(0.9, **{"val/loss": loss}), lr=number)
    said = report.write(tmp_path, {"val/loss": "minimize"})
    [rows] = tables(said)
    assert [(row[0], row[-1]) for row in rows] == [("job", "val/loss"), ("1", "0.1000"), ("0", "0.3000")]
    assert "best by val/loss: job 1" in said


# --- files ---------------------------------------------------------------------------------------


def test_the_csv_has_every_job_with_its_numbers_as_they_are(tmp_path: Path) -> None:
    report.write(add_grid(tmp_path))
    rows = csv_rows(tmp_path / "sweep.csv")
    assert list(rows[0]) == [
        *("job", "lr", "seed", "status", "epochs", "val/acc", "test/acc", "test/loss"),
        *("images_per_second", "seconds", "checkpoint", "error"),
    ]
    assert [row["job"] for row in rows] == ["3", "2", "1", "0", "4", "5"]
    assert float(rows[0]["val/acc"]) == 0.982
    assert (tmp_path / rows[0]["checkpoint"]).is_file()
    assert (rows[4]["status"], rows[4]["test/acc"], rows[4]["checkpoint"]) == ("pruned", "", "")
    assert (rows[5]["status"], rows[5]["error"]) == ("failed", "loss\nis nan")


def test_the_markdown_has_both_tables_the_command_and_the_pictures(tmp_path: Path) -> None:
    report.write(add_grid(tmp_path))
    said = (tmp_path / "sweep.md").read_text()
    assert [len(table) for table in tables(said)] == [3, 7]
    assert "```bash\npython train.py optim.lr=0.2 seed=1\n```" in said
    assert "![by_lr](pictures/by_lr.png)" in said
    assert "- job 5 (lr=9.0, seed=0) failed: loss is nan" in said


def test_pictures_of_each_setting_and_each_pair(tmp_path: Path) -> None:
    for number in range(8):
        choices = {"optim": ["sgd", "adam"][number % 2], "lr": 10.0**-number, "optim.x/y": number // 4}
        add_run(tmp_path / f"{number}_a", scores(0.9 + number / 100), **choices)
    report.write(tmp_path)
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        *("by_lr.png", "by_optim.png", "by_optim_x_y.png"),
        *("lr_x_optim_x_y.png", "optim_x_lr.png", "optim_x_optim_x_y.png"),
    ]


def test_a_search_of_two_numbers_is_drawn_in_the_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mnist_cnn.reporting import sweep_figures

    drawn = []
    plane = sweep_figures.plane
    monkeypatch.setattr(
        sweep_figures, "plane", lambda names, *rest: drawn.append(names) or plane(names, *rest)
    )
    for number in range(13):
        choices = {"optim": ["sgd", "adam"][number % 2], "lr": 0.1 + number, "batch_size": 2**number}
        add_run(tmp_path / f"{number}_a", scores(0.9), **choices)
    report.write(tmp_path)
    assert drawn == [("lr", "batch_size")]
    # thirteen values against two names are neither a plane nor a table to be read
    assert not (tmp_path / "pictures" / "optim_x_lr.png").exists()


def test_five_settings_are_too_many_to_be_drawn_in_pairs(tmp_path: Path) -> None:
    for number in range(2):
        add_run(tmp_path / f"{number}_a", scores(0.9), **dict.fromkeys("abcde", number))
    report.write(tmp_path)
    assert len(list((tmp_path / "pictures").iterdir())) == 5


def test_tensorboard_shows_each_picture_once_however_often_it_is_reported(tmp_path: Path) -> None:
    add_grid(tmp_path)
    (tmp_path / "0_lr" / "events.out.tfevents.1.sweep").touch()  # of a job, not of the report
    for _ in range(2):
        report.write(tmp_path)
    [events] = tmp_path.glob("events.out.tfevents.*")
    shown = EventAccumulator(str(events)).Reload()
    assert shown.Tags()["images"] == ["sweep/lr"]
    assert len(shown.Images("sweep/lr")) == 1
    assert (tmp_path / "0_lr" / "events.out.tfevents.1.sweep").exists()


def test_a_picture_that_is_no_longer_of_the_report_goes_and_others_stay(tmp_path: Path) -> None:
    add_grid(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in ("by_optim.png", "optim_x_loss.png", "mine.png"):
        (tmp_path / "pictures" / name).touch()
    report.write(tmp_path)
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["by_lr.png", "mine.png"]


def test_nothing_to_draw_leaves_no_pictures(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.9))
    report.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0_a", "sweep.csv", "sweep.md"]


def test_a_folder_without_a_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run below"):
        report.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- python -m mnist_cnn.sweeps ------------------------------------------------------------------


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: Path | str) -> None:
    monkeypatch.setattr(sys, "argv", ["sweeps", *map(str, arguments)])
    command.main()


def test_the_command_writes_the_report_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_grid(tmp_path / "sweep")
    monkeypatch.chdir(tmp_path)
    run_command(monkeypatch, "sweep")
    said = capsys.readouterr().out
    assert said.startswith(report.text(find_runs([tmp_path])))
    assert said.endswith("report: sweep/sweep.md\n")
    assert (tmp_path / "sweep" / "sweep.csv").is_file()


def test_the_command_takes_several_sweeps_and_runs_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        add_run(tmp_path / name / "0_a", scores(0.9), lr=0.1 + len(name) + (name == "two"))
        (tmp_path / name / "multirun.yaml").touch()
    add_checkpoint(add_run(tmp_path / "runs" / "2026-01-01_simple", scores(0.8)), "best.ckpt")
    path = tmp_path / "all.csv"
    monkeypatch.chdir(tmp_path)
    run_command(monkeypatch, "one", "two", "runs", "--csv", path)
    [rows] = tables(capsys.readouterr().out)
    assert [row[0] for row in rows[1:]] == ["one/0", "two/0", "2026-01-01_simple"]
    assert [row["job"] for row in csv_rows(path)] == ["one/0", "two/0", "2026-01-01_simple"]
    assert Path(csv_rows(path)[2]["checkpoint"]).is_file()
    assert not (tmp_path / "one" / "sweep.csv").exists()


def test_the_command_says_how_to_get_the_rows_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(31):
        add_run(tmp_path / f"{number}_a", scores(0.9), lr=number + 1)
    run_command(monkeypatch, tmp_path)
    assert "\n… and 11 more (--csv PATH writes all)\n" in capsys.readouterr().out
    assert not (tmp_path / "sweep.csv").exists()  # no multirun.yaml: it is no sweep


@pytest.mark.parametrize(("arguments", "said"), [(["nowhere"], "not a folder"), (["."], "no run below")])
def test_the_command_ends_with_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=said):
        run_command(monkeypatch, *arguments)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path / "0_a", scores(0.9))
    with pytest.raises(SystemExit, match=r"cannot write .*nowhere.*: No such file"):
        run_command(monkeypatch, tmp_path, "--csv", tmp_path / "nowhere" / "all.csv")


def test_comparing_finished_runs_imports_nothing_slow(tmp_path: Path) -> None:
    add_run(tmp_path / "0_a", scores(0.9))
    program = (
        f"import sys; sys.argv[1:] = [{str(tmp_path)!r}]\n"
        "from mnist_cnn.sweeps.__main__ import main\nmain()\n"
        "assert not {'torch', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
