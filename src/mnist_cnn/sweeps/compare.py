"""Finished runs as a table: what differs between them, and what came out."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mnist_cnn.errors import UserError

METRICS = ("val/acc", "test/acc", "test/loss", "images_per_second", "seconds")


@dataclass(frozen=True)
class Run:
    """A finished run: its settings as text, but for the seed; what it is told apart by; metrics.json."""

    folder: Path
    settings: str
    hparams: Mapping[str, Any]
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """The runs that differ in nothing but their seed, and what tells them from the others."""

    choices: Mapping[str, Any]
    runs: Sequence[Run]

    def values(self, metric: str) -> list[float]:
        """Return the values of `metric`, of the runs that have it."""
        return [run.metrics[metric] for run in self.runs if metric in run.metrics]


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Return the finished runs below `folders`; what is unfinished or of another kind is passed over."""
    runs = []
    # resolved, because folders may lie in each other
    for metrics in sorted({path.resolve() for folder in folders for path in folder.rglob("metrics.json")}):
        settings = metrics.parent / ".hydra" / "resolved.yaml"
        if settings.is_file():
            config = OmegaConf.to_container(OmegaConf.load(settings))
            assert isinstance(config, dict)
            hparams = config.pop("hparams")
            same = {key: value for key, value in config.items() if key not in ("seed", "resume", "hydra")}
            runs.append(Run(metrics.parent, str(same), hparams, json.loads(metrics.read_text())))
    if not runs:
        raise UserError(f"There is no finished run below {', '.join(map(str, folders))}.")
    return runs


def group(runs: Sequence[Run]) -> list[Group]:
    """Put runs together that differ in their seed only; the best by validation accuracy come first.

    Groups without a validation split are ordered after the others, by their folders' names.
    """
    keys = dict.fromkeys(key for run in runs for key in run.hparams if key != "seed")
    differing = [key for key in keys if len({run.hparams.get(key) for run in runs}) > 1]
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.settings, []).append(run)
    groups = [
        Group({key: alike[0].hparams.get(key, "") for key in differing}, alike) for alike in found.values()
    ]
    return sorted(groups, key=lambda one: -statistics.fmean(one.values("val/acc") or [0.0]))


def table(groups: Sequence[Group]) -> str:
    """Return the groups as a Markdown table: n, the settings that differ, mean ± standard deviation."""
    choices = list(groups[0].choices)
    rows = [[*choices, "n", *METRICS]]
    for one in groups:
        row = [str(one.choices[key]) for key in choices]
        rows.append([*row, str(len(one.runs)), *(_summary(metric, one.values(metric)) for metric in METRICS)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


def _summary(metric: str, values: list[float]) -> str:
    if not values:
        return ""
    scale, form = (100, ".2f") if metric.endswith("/acc") else (1, ".4f" if "/" in metric else ",.0f")
    unit = "%" if scale == 100 else ""
    mean = f"{statistics.fmean(values) * scale:{form}}"
    if len(values) == 1:
        return mean + unit
    return f"{mean} ± {statistics.stdev(values) * scale:{form}}{unit}"
