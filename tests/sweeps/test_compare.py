"""Which runs are taken together, in which order, and what the table says of them."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mnist_cnn.errors import UserError
from mnist_cnn.sweeps.compare import find_runs, group, table


def add_run(folder: Path, lr: float, seed: int, acc: float, **more: float) -> None:
    (folder / ".hydra").mkdir(parents=True)
    config = {
        "seed": seed,
        "optim": {"lr": lr, "_target_": "torch.optim.SGD"},
        "hydra": {"x": seed},
        "hparams": {"seed": seed, "optim": "sgd", "lr": lr},
    }
    OmegaConf.save(OmegaConf.create(config), folder / ".hydra" / "resolved.yaml")
    metrics = {"val/acc": acc, "test/acc": acc - 0.01, "test/loss": 0.5, "seconds": 2.0} | more
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_runs_that_differ_in_their_seed_only_are_one_row_and_the_best_comes_first(tmp_path: Path) -> None:
    for seed, acc in enumerate((0.95, 0.96, 0.97)):
        add_run(tmp_path / f"{seed}", lr=0.1, seed=seed, acc=acc)
    add_run(tmp_path / "alone", lr=0.2, seed=0, acc=0.98)
    lines = table(group(find_runs([tmp_path]))).splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    assert cells[0][:4] == ["lr", "n", "val/acc", "test/acc"]
    assert cells[2][:4] == ["0.2", "1", "98.00%", "97.00%"]
    assert cells[3][:4] == ["0.1", "3", "96.00 ± 1.00%", "95.00 ± 1.00%"]
    assert len({len(line) for line in lines}) == 1


def test_unfinished_and_foreign_folders_are_passed_over(tmp_path: Path) -> None:
    add_run(tmp_path / "good", lr=0.1, seed=0, acc=0.9)
    (tmp_path / "unfinished" / ".hydra").mkdir(parents=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "metrics.json").write_text("{}")
    assert [run.folder.name for run in find_runs([tmp_path])] == ["good"]


def test_runs_without_validation_come_last(tmp_path: Path) -> None:
    add_run(tmp_path / "a", lr=0.1, seed=0, acc=0.5)
    add_run(tmp_path / "b", lr=0.2, seed=0, acc=0.9)
    (tmp_path / "b" / "metrics.json").write_text('{"test/acc": 0.9}')
    assert [one.choices["lr"] for one in group(find_runs([tmp_path]))] == [0.1, 0.2]


def test_nothing_to_compare_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run below"):
        find_runs([tmp_path])
