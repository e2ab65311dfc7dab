"""Accuracy on corrupted digits of the networks of recipes: `python -m benchmarks.corruptions default robust`.

Takes the first seed of each recipe, trained by `python -m benchmarks.recipes NAME`, and writes
results/corruptions.json.
"""

import argparse
import json

from benchmarks import machine
from benchmarks.recipes import RESULTS, checkpoint, evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="+", help="recipes: files of conf/experiment, or default")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    options = parser.parse_args()
    result = {
        "command": "python evaluate.py ckpt=… data=mnist_c",
        "measured_by": f"python -m benchmarks.corruptions {' '.join(options.names)}",
        "machine": machine.describe(),
        "seed": options.seed,
        "networks": {
            name: evaluate([checkpoint(name, options.seed)], "data=mnist_c")["parts"]
            for name in options.names
        },
    }
    (RESULTS / "corruptions.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["networks"], indent=1))


if __name__ == "__main__":
    main()
