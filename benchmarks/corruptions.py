"""Accuracy on corrupted digits of the networks of recipes: `python -m benchmarks.corruptions default robust`.

Takes the networks that `python -m benchmarks.recipes NAME` has trained, and writes the mean accuracies of the
seeds to results/corruptions.json.
"""

import argparse
import statistics

from benchmarks.recipes import checkpoint, evaluate, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="+", help="recipes: files of conf/experiment, or default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    options = parser.parse_args()
    networks = {}
    for name in options.names:
        parts = [evaluate([checkpoint(name, seed)], "data=mnist_c")["parts"] for seed in options.seeds]
        networks[name] = {part: statistics.mean(one[part] for one in parts) for part in parts[0]}
    result = {
        "command": "python evaluate.py ckpt=… data=mnist_c",
        "measured_by": f"python -m benchmarks.corruptions {' '.join(options.names)}",
        "seeds": options.seeds,
        "n": len(options.seeds),
        "networks": networks,
    }
    write("corruptions", result)


if __name__ == "__main__":
    main()
