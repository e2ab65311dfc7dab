"""The time to 99.01 % test accuracy, the tutorial's result: `python -m benchmarks.sprint`.

Measures the wall time of whole processes, in turn for each seed: `train.py experiment=sprint`, which
reaches the accuracy on average, and the tutorial's loop (benchmarks.tutorial), which looks at the test images
after each epoch, until it first reaches it. Compares the medians. Writes results/sprint.json.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time

from benchmarks.recipes import ROOT, run, summarize, write

GOAL = 0.9901


def tutorial(seed: int) -> None:
    """Train as the tutorial does until the test accuracy reaches the goal; print the epochs."""
    import torch
    from torch.utils.data import DataLoader

    from benchmarks import tutorial as loop

    torch.manual_seed(seed)
    train, test = (
        DataLoader(loop.mnist("simple", train=part), batch_size=64, shuffle=part) for part in (True, False)
    )
    model = loop.network("simple")
    optimizer = loop.optimizer(model)
    accuracy, epochs = 0.0, 0
    while accuracy < GOAL and epochs < 25:
        for _ in loop.train(model, optimizer, train):
            pass
        accuracy, epochs = loop.accuracy(model, test), epochs + 1
    if accuracy < GOAL:
        sys.exit(f"The tutorial's loop has not reached {GOAL:.2%} in {epochs} epochs (seed {seed}).")
    print(json.dumps({"epochs": epochs, "accuracy": accuracy}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="default: 0 1 2 3 4")
    parser.add_argument("--tutorial", type=int, metavar="SEED", help="internal")
    options = parser.parse_args()
    if options.tutorial is not None:
        tutorial(options.tutorial)
        return
    folder = ROOT / "logs" / "recipes" / "sprint"
    runs, loops = [], []
    for seed in options.seeds:
        shutil.rmtree(folder / str(seed), ignore_errors=True)  # else its time would be that of an earlier day
        runs.append(run(folder / str(seed), ["experiment=sprint", f"seed={seed}"]))
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.sprint", "--tutorial", str(seed)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        loops.append(json.loads(done.stdout) | {"seconds": round(time.perf_counter() - start, 1)})
        print(
            f"seed {seed}: {runs[-1]['wall_seconds']} s, the tutorial's loop {loops[-1]['seconds']} s",
            flush=True,
        )
    seconds = [one["wall_seconds"] for one in runs]
    result = summarize("sprint", options.seeds, runs) | {
        "measured_by": "python -m benchmarks.sprint",
        "seconds": statistics.median(seconds),
        "seconds_of_each": seconds,
        "tutorial": loops,
    }
    times = statistics.median(loop["seconds"] for loop in loops) / result["seconds"]
    result["times_faster"] = round(times, 1)
    write("sprint", result)


if __name__ == "__main__":
    main()
