"""Download a data set and verify it, without training."""

import argparse
import sys
from pathlib import Path

from mnist_cnn.data import CIFAR10, KMNIST, MNIST, FashionMNIST
from mnist_cnn.errors import UserError
from mnist_cnn.files import data_folder

SOURCES = {"mnist": MNIST, "fashion_mnist": FashionMNIST, "kmnist": KMNIST, "cifar10": CIFAR10}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mnist_cnn.data", description=__doc__)
    parser.add_argument("name", nargs="?", default="mnist", choices=SOURCES)
    parser.add_argument(
        "--dir", default=data_folder(), type=Path, help="folder of files (default: %(default)s)"
    )
    options = parser.parse_args()
    try:
        print(SOURCES[options.name]().fetch(options.dir))
    except (UserError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
