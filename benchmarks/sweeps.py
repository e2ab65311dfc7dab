"""`python -m benchmarks.sweeps`: the tutorial's twelve combinations, run in three ways.

One after another in one process (`-m`), several at a time (`-m hydra/launcher=pool`), and as twelve commands
one after another. Prints the wall time of each, and its ratio to the first.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SWEPT = {"model": ("cnnnet", "simple"), "optim": ("sgd", "adam", "rmsprop"), "loss": ("ce", "mse")}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="repetitions, interleaved")
    arguments = parser.parse_args()
    common = [f"trainer.max_epochs={arguments.epochs}", f"data.dir={ROOT / 'data'}"]
    grid = [f"{key}={','.join(values)}" for key, values in SWEPT.items()]
    combinations = [
        [f"{key}={value}" for key, value in zip(SWEPT, values, strict=True)]
        for values in itertools.product(*SWEPT.values())
    ]
    ways = {
        "one after another": [["-m", *grid, *common]],
        "in the pool": [["-m", "hydra/launcher=pool", *grid, *common]],
        "twelve commands": [[*combination, *common] for combination in combinations],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way, commands in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                for command in commands:
                    train(command, folder)
                seconds[way].append(time.perf_counter() - began)
            print(f"{way}: {seconds[way][-1]:.0f} s", flush=True)
    first, *_ = middles = {way: sorted(taken)[len(taken) // 2] for way, taken in seconds.items()}
    for way, taken in middles.items():
        print(f"{way:<18} {taken:6.0f} s   {taken / middles[first]:.2f}")


def train(arguments: list[str], folder: str) -> None:
    """Run train.py; raises `CalledProcessError` where it fails."""
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
