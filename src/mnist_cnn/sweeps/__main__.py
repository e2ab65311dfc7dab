"""`python -m mnist_cnn.sweeps logs/sweeps/SWEEP …`: compare finished runs, seeds taken together."""

import argparse
import sys
from pathlib import Path

from mnist_cnn.errors import UserError
from mnist_cnn.sweeps.compare import find_runs, group, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mnist_cnn.sweeps", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="runs, sweeps, or folders of them")
    try:
        print(table(group(find_runs(parser.parse_args().folders))))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
