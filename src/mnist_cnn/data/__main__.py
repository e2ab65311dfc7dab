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
    source = SOURCES[options.name]()
    try:
        origin = source.fetch(options.dir)
        for split in ("train", "test"):
            images, targets = source.read(options.dir, train=split == "train")
            first = ", ".join(map(str, targets[:5].tolist()))
            print(f"{split:>5}: {len(images):,} images, labels {first}, …")
    except (UserError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"{options.name}: {origin}")


if __name__ == "__main__":
    main()
