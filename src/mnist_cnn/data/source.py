"""The interface of a data set: get its files and read them."""

from abc import ABC, abstractmethod
from pathlib import Path

from torch import Tensor

from mnist_cnn.errors import UserError
from mnist_cnn.preparation.grey_values import GreyValues
from mnist_cnn.preparation.prepare import Preparation


class DataUnavailable(UserError):
    """The files of a data set could not be obtained, or they do not belong together."""


class Source(ABC):
    """A data set on disk.

    To add one, write a subclass and name it as `source._target_` in a file `conf/data/NAME.yaml`.
    `directory` is the setting `data.dir`. Mistakes of the user are raised as `UserError`.
    """

    preparation: Preparation  # how image files become images, by the settings; `ImageData` sets it

    @abstractmethod
    def fetch(self, directory: Path) -> str:
        """Make sure that the files are in `directory` and intact; return a phrase that says from where.

        Called once on each machine before `read`.
        """

    @abstractmethod
    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return the training or the test images.

        Images are uint8 (N, C, H, W) with one (grey) or three (RGB) channels, targets int64 (N,).
        """

    def read_validation(self, directory: Path) -> tuple[Tensor, Tensor] | None:
        """Return the validation images of the data set, or None to take some of the training images."""
        return None

    @property
    def parts(self) -> list[str]:
        """Names of equally long consecutive parts of the test images that evaluate.py reports separately."""
        return []

    def classes(self, directory: Path) -> list[str] | None:
        """Return the class names by target if the files name them, otherwise None. Must be fast."""
        return None

    def grey_values(self, directory: Path) -> GreyValues | None:
        """Return black and white of image files with more than 8 bits, otherwise None. Must be fast."""
        return None
