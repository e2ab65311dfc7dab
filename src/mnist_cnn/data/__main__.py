"""`python -m mnist_cnn.data`: get a data set and verify it, without training."""

import argparse
import sys

from mnist_cnn.data import sources
from mnist_cnn.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mnist_cnn.data", description=__doc__)
    parser.add_argument("name", nargs="?", default="mnist", choices=sources.SOURCES)
    parser.add_argument("--dir", default="data", help="where the files are put (default: %(default)s)")
    options = parser.parse_args()
    try:
        source = sources.obtain(options.name, options.dir)
    except (UserError, OSError) as error:
        sys.exit(str(error))
    for split in ("train", "test"):
        images, targets = sources.read(options.name, options.dir, train=split == "train")
        print(f"{split:>5}: {len(images):,} images, labels {', '.join(map(str, targets[:5].tolist()))}, …")
    print(f"{options.name}: {source}")


if __name__ == "__main__":
    main()
