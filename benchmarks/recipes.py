"""Run a recipe with several seeds and store the results: `python -m benchmarks.recipes best_simple`.

The recipe is conf/experiment/NAME.yaml, or `default` for train.py without arguments. Each seed is one run in
logs/recipes/NAME/SEED; finished runs are kept, interrupted ones resumed. The test accuracies and the wall
time of the whole command go to results/NAME.json, and from there into the README
(`python -m benchmarks.tables`). The networks are also evaluated as an ensemble and with shifted images, which
is reported apart.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


def run(folder: Path, overrides: list[str], threads: int | None = None) -> dict[str, Any]:
    """Return metrics.json of the run in `folder`, which is made where it does not exist yet.

    `wall_seconds` is added: the time of the whole command, or of its last part where it was resumed.
    """
    metrics = folder / "metrics.json"
    if not metrics.is_file():
        place = f"hydra.run.dir={folder}"
        if (folder / ".hydra" / "resolved.yaml").is_file():
            place, overrides = f"resume={folder}", []
        environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, ROOT / "train.py", *overrides, place],
            cwd=ROOT,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (folder / "wall_seconds.json").write_text(str(round(time.perf_counter() - start, 1)))
    result: dict[str, Any] = json.loads(metrics.read_text())
    return result | {"wall_seconds": float((folder / "wall_seconds.json").read_text())}


def run_all(runs: dict[Path, list[str]], jobs: int) -> list[dict[str, Any]]:
    """Return the results of runs, `jobs` at a time, each with its part of the cores."""
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda item: run(item[0], item[1], threads), runs.items()))


def write(name: str, result: dict[str, Any]) -> None:
    """Write results/NAME.json, with the machine that it was measured on."""
    from benchmarks import machine

    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result | {"machine": machine.describe()}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def spread(values: list[float]) -> dict[str, float]:
    """Return the number of values, their mean and their standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"n": len(values), "mean": statistics.mean(values), "std": deviation}


def evaluate(ckpts: list[Path], *overrides: str) -> dict[str, Any]:
    """Return evaluation.json of checkpoints, as an ensemble where there are several."""
    folder = ROOT / "logs" / "recipes" / "evaluations" / str(time.time_ns())
    paths = ",".join(f"'{path}'" for path in ckpts)
    subprocess.run(
        [sys.executable, ROOT / "evaluate.py", f"ckpt=[{paths}]", f"hydra.run.dir={folder}", *overrides],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    result: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return result


def checkpoint(name: str, seed: int) -> Path:
    """Return the checkpoint that is the result of a recipe's run."""
    folder = ROOT / "logs" / "recipes" / name / str(seed) / "checkpoints"
    return next(path for path in (folder / "best.ckpt", folder / "last.ckpt") if path.is_file())


def summarize(name: str, seeds: list[int], results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what results/NAME.json holds of the runs."""
    accuracies = [result["test/acc"] for result in results]
    return {
        "command": "python train.py" + ("" if name == "default" else f" experiment={name}"),
        "measured_by": f"python -m benchmarks.recipes {name}",
        "network": "CnnNet" if "cnnnet" in name else "SimpleCNN",
        "epochs": results[0]["epochs"],
        "seeds": seeds,
        "test/acc": accuracies,
        "seconds": round(statistics.mean(result["wall_seconds"] for result in results), 1),
    } | spread(accuracies)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="a file of conf/experiment, or default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    options = parser.parse_args()

    recipe = [] if options.name == "default" else [f"experiment={options.name}"]
    folder = ROOT / "logs" / "recipes" / options.name
    runs = {folder / str(seed): [*recipe, f"seed={seed}"] for seed in options.seeds}
    result = summarize(options.name, options.seeds, run_all(runs, options.jobs))
    result["runs_at_a_time"] = options.jobs
    ckpts = [checkpoint(options.name, seed) for seed in options.seeds]
    shifted = [evaluate([ckpt], "shifts=true")["test/acc"] for ckpt in ckpts]
    all_of_them = f"ensemble of {len(ckpts)}"
    both = evaluate(ckpts, "shifts=true")["test/acc"]
    result["ensembles"] = [
        {"label": "with shifted images (mean)", "n": len(ckpts), "test/acc": statistics.mean(shifted)},
        {"label": all_of_them, "n": 1, "test/acc": evaluate(ckpts)["test/acc"]},
        {"label": f"{all_of_them} with shifted images", "n": 1, "test/acc": both},
    ]
    write(options.name, result)


if __name__ == "__main__":
    main()
