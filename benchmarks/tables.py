"""The tables of docs, made from results/*.json.

`python -m benchmarks.tables` replaces what stands between `<!-- results: NAME -->` and `<!-- end -->` in the
pages, NAME being the name of a function here.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGES = ("docs/results.md", "docs/recipes.md", "docs/speed.md")
_MARKED = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def bench(result: Mapping[str, Any]) -> str:
    """Return the table of `make bench`."""
    rates = {
        (row["network"], row["batch_size"], row["loop"]): row["images_per_second"] for row in result["rows"]
    }
    rows = []
    for row in result["rows"]:
        network, batch_size, rate = row["network"], row["batch_size"], row["images_per_second"]
        shown = [network, batch_size, row["loop"], f"{rate:,}", f"{row['slowest']:,}–{row['fastest']:,}"]
        for loop in ("tutorial", "lean"):
            base = rates.get((network, batch_size, loop))
            shown.append(f"{rate / base:.2f}" if base else "")
        rows.append([*shown, f"{row['start_seconds']:.1f} s", f"{row['peak_memory_mb']:,} MB"])
    header = ["network", "batch", "loop", "images/s", "min–max", "× tutorial", "× lean", "start", "memory"]
    return _table(header, rows)


def recipes() -> str:
    """Return the accuracies of the recipes, one row for each experiment and each ensemble."""
    rows: list[list[object]] = []
    for name in ("default", "sprint", "best_simple", "best_cnnnet", "robust"):
        result = _result(name)
        seconds = result["seconds"]
        duration = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
        row = [f"`{result['command']}`", result["network"], result["epochs"], result["n"], accuracy(result)]
        rows.append([*row, duration, result["machine"]["cpu"]])
        ensembles = result.get("ensembles", [])
        rows += [[one["label"], name, "", one["n"], f"{one['test/acc']:.2%}", "", ""] for one in ensembles]
    return _table(["recipe", "network", "epochs", "n", "test accuracy", "time per run", "machine"], rows)


def accuracy(result: Mapping[str, Any]) -> str:
    """Return mean ± standard deviation of several seeds in percent, and the value of a single one."""
    spread = f" ± {100 * result['std']:.2f}" if result["n"] > 1 else ""
    return f"{result['mean']:.2%}{spread}"


def corruptions() -> str:
    """Return the accuracies on corrupted digits of the default run's network and of the recipes."""
    networks = _result("corruptions")["networks"]
    parts = next(iter(networks.values()))
    rows = [[part, *(f"{accuracies[part]:.2%}" for accuracies in networks.values())] for part in parts]
    return _table(["test images", *networks], rows)


def own_digits(name: str = "own_digits") -> str:
    """Return the accuracies on rendered digits by condition."""
    result = _result(name)
    rows = [
        [condition, *(f"{rate:.2%}" for rate in rates)] for condition, rates in result["accuracy"].items()
    ]
    return _table(["condition", *(f"`{command}`" for command in result["networks"])], rows)


def foreign_digits() -> str:
    """Return the accuracies on digits of another collection, by the form of the scan."""
    return own_digits("foreign_digits")


def ablation() -> str:
    """Return what each ingredient of best_simple gives."""
    rows = [[row["label"], row["n"], accuracy(row)] for row in _result("ablation")["rows"]]
    return _table(["", "n", "validation accuracy"], rows)


def speed() -> str:
    """Return the table of `make bench`."""
    return bench(_result("bench"))


TABLES: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (recipes, corruptions, own_digits, foreign_digits, ablation, speed)
}


def updated(page: str) -> str:
    """Return the text of a page with its tables made anew."""
    return _MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]().strip()}\n{found[3]}", page)


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def main() -> None:
    for name in PAGES:
        path = ROOT / name
        path.write_text(updated(path.read_text()))


if __name__ == "__main__":
    main()
