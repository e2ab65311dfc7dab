"""What each ingredient of best_simple gives: `python -m benchmarks.ablation`.

Trains the recipe for fewer epochs, as it is and with one ingredient left out, with three seeds each and 5,000
images kept for validation, on which the accuracy is measured. Writes results/ablation.json.
"""

import argparse
import os
from pathlib import Path

from benchmarks.recipes import ROOT, run_all, spread, write

VARIANTS = {
    "best_simple": [],
    "without elastic distortions": ["augment=affine"],
    "without augmentation": ["augment=none"],
    "without weight averaging": ["callbacks=pictures"],
    "without label smoothing": ["loss.label_smoothing=0"],
    "with a constant learning rate": ["scheduler=none"],
    "without weight decay": ["optim.weight_decay=0"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8, help="default: 8")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="default: one for each core")
    options = parser.parse_args()

    common = ["experiment=best_simple", "data.val_size=5000", f"trainer.max_epochs={options.epochs}"]
    common += ["trainer.limit_test_batches=0"]  # the choice of ingredients is validation's
    folder = ROOT / "logs" / "recipes" / "ablation"
    runs: dict[Path, list[str]] = {}
    for label, changes in VARIANTS.items():
        for seed in options.seeds:
            name = f"{label.replace(' ', '_')}_{seed}"
            runs[folder / name] = [*common, *changes, f"seed={seed}"]
    results = run_all(runs, options.jobs)
    rows = []
    for index, label in enumerate(VARIANTS):
        start = index * len(options.seeds)
        accuracies = [result["val/acc"] for result in results[start : start + len(options.seeds)]]
        rows.append({"label": label, "val/acc": accuracies} | spread(accuracies))
    result = {
        "command": f"python -m benchmarks.ablation --epochs {options.epochs}",
        "epochs": options.epochs,
        "seeds": options.seeds,
        "rows": rows,
    }
    write("ablation", result)


if __name__ == "__main__":
    main()
