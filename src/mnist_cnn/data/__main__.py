"""Download MNIST and verify it, without training: `make data`."""

import sys
from pathlib import Path

from mnist_cnn.data import MNIST
from mnist_cnn.errors import UserError
from mnist_cnn.files import data_folder


def main() -> None:
    try:
        print(MNIST().fetch(Path(data_folder())))
    except (UserError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
