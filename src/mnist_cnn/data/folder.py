"""Image files in one folder for each class."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_cnn.data.source import Source
from mnist_cnn.data.split import stratified_split
from mnist_cnn.errors import UserError
from mnist_cnn.files import natural_order
from mnist_cnn.preparation.finding import NothingFound
from mnist_cnn.preparation.grey_values import GreyValues, find_grey_values
from mnist_cnn.preparation.image_files import UnreadableImage

log = logging.getLogger(__name__)

NAMES = {  # of the folders of a data set's parts, whatever their case
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
NAMED = 5  # unreadable files that a warning names
DARK = 16  # of 255: if no pixel of a data set is brighter, its white is probably another number


class ImageFolder(Source):
    """Image files (PNG, JPEG, WebP, BMP, TIFF, GIF, PPM, JPEG 2000) in a folder for each class.

    The class folders lie in `data.dir`, or in its folders train, val and test, which may have other usual
    names, such as training, valid and testing. If there are only train and val, val holds the test images.
    Without a test folder, `test_size` images, or that fraction of them, are kept for the test: each class in
    proportion, the same ones in every run. A class is named after its folder; the order is alphabetical,
    numbers by value.

    Images are prepared as the settings of the data say. Files that cannot be read are left out with a
    warning. Hidden files are ignored.
    """

    def __init__(self, test_size: int | float) -> None:
        self.test_size = test_size

    def classes(self, directory: Path) -> list[str]:
        """Return the names of the class folders; raises `UserError` if they cannot be classes."""
        if not directory.is_dir():
            raise UserError(
                f"data.dir={directory}: there is no such folder. Give a folder that holds one folder of "
                f"images for each class: data.dir=PATH."
            )
        parent = _parts(directory)["train"]
        folders = _folders(parent)
        if len(folders) < 2:
            found = f"only the folder {folders[0].name}" if folders else "no folders"
            raise UserError(
                f"{parent} holds {found}. Put the images into at least two class folders, "
                f"such as {parent / 'cats'} and {parent / 'dogs'}, and give their parent as data.dir."
            )
        _refuse_parts_as_classes(folders)
        return [folder.name for folder in folders]

    def fetch(self, directory: Path) -> str:
        """Check the folders; raises `UserError` if they cannot be classes, and warns about unused ones."""
        self.classes(directory)
        parts = _parts(directory)
        if parts["train"] == directory:
            return str(directory)
        unused = [folder.name for folder in _folders(directory) if folder not in parts.values()]
        if unused:
            log.warning("%s: folders not used: %s", directory, ", ".join(unused))
        return f"{directory} ({', '.join(f'{part}: {folder.name}' for part, folder in parts.items())})"

    def grey_values(self, directory: Path) -> GreyValues | None:
        """Return black and white of the training images if they have more than 8 bits."""
        return find_grey_values(_files(_parts(directory)["train"]))

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, C, H, W), as prepared, and int64 targets (N,).

        Raises `UserError` if a class has no readable training image or there are no test images.
        """
        names, parts = self.classes(directory), _parts(directory)
        if "test" in parts:
            files, targets = _files_and_targets(parts["train" if train else "test"], names)
        else:
            files, targets = _files_and_targets(parts["train"], names)
            split = stratified_split(targets, self.test_size, seed=0, setting="data.source.test_size")
            rows = split[0 if train else 1]
            files, targets = [files[row] for row in rows.tolist()], targets[rows]
        images, targets = self._read(files, targets)
        if not train and not len(images):
            raise UserError(
                f"{directory} has no readable test images. Add some to {directory / 'test'}, or remove that "
                f"folder to keep data.source.test_size={self.test_size} of all images for the test."
            )
        empty = [name for label, name in enumerate(names) if not (targets == label).any()]
        if train and empty:
            raise UserError(
                f"No image of the class {empty[0]} in {directory} can be read for training. Add images to "
                "its folder or remove it."
            )
        if train and images.max() <= DARK:
            log.warning(
                f"No pixel of the training images is brighter than {images.max()} of 255: they are black "
                "to the network. If that is white in these files, write them again with 255 as white."
            )
        return images, targets

    def read_validation(self, directory: Path) -> tuple[Tensor, Tensor] | None:
        """Return the images of the validation folder; None if there is none."""
        folder = _parts(directory).get("val")
        if folder is None:
            return None
        return self._read(*_files_and_targets(folder, self.classes(directory)))

    def _read(self, files: list[Path], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images that can be read and their targets, and warn about the others."""
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside of the interpreter's lock
            loaded = list(pool.map(self._load, files))
        images = {row: image for row, image in enumerate(loaded) if not isinstance(image, str)}
        unreadable = [f"{files[row]}: {reason}" for row, reason in enumerate(loaded) if row not in images]
        if unreadable:
            named = "\n  ".join(unreadable[:NAMED] + ["…"] * (len(unreadable) > NAMED))
            log.warning("left out because they cannot be read as images (%d):\n  %s", len(unreadable), named)
        if not images:
            return torch.empty(0, 1, 1, 1, dtype=torch.uint8), targets[:0]
        return torch.from_numpy(np.stack(list(images.values()))), targets[list(images)]

    def _load(self, path: Path) -> NDArray[np.uint8] | str:
        """Return an image as uint8 (C, H, W), or why it cannot be read."""
        try:
            image: NDArray[np.uint8] = self.preparation.read(path).images[0]
            return image
        except (UnreadableImage, NothingFound) as reason:
            return str(reason)


def _parts(directory: Path) -> dict[str, Path]:
    """Return the folders of the parts of a data set by name, at least that of the training images."""
    folders = {folder.name.lower(): folder for folder in _folders(directory)}
    parts: dict[str, Path] = {}
    for part, names in NAMES.items():
        for name in names:
            if name in folders and _folders(folders[name]):  # a class may be called test
                parts[part] = folders[name]
    if "train" not in parts:
        return {"train": directory}
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    return parts


def _refuse_parts_as_classes(folders: list[Path]) -> None:
    """Raise `UserError` if what should be class folders hold class folders, as test/ may."""
    names = {folder.name for folder in folders}
    inner = {folder: [inside.name for inside in _folders(folder)] for folder in folders}
    first = inner[folders[0]]
    are_alike = len(first) > 1 and all(found == first for found in inner.values())
    for folder, found in inner.items():
        if are_alike or names & set(found):
            raise UserError(
                f"{folder} holds the folders {', '.join(found[:3])}: it looks like a part of a data set, not "
                f"like a class. Move the class folders for training to {folder.parent / 'train'}, those for "
                f"the test to {folder.parent / 'test'}."
            )


def _folders(directory: Path) -> list[Path]:
    found = [path for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: natural_order(path.name))


def _files(folder: Path) -> list[Path]:
    """Return the files in `folder` and in the folders within it, in an order that is always the same."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(
        path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _files_and_targets(parent: Path, names: list[str]) -> tuple[list[Path], Tensor]:
    unknown = [folder.name for folder in _folders(parent) if folder.name not in names]
    if unknown:
        raise UserError(
            f"{parent} holds the class {unknown[0]}, which has no training images. "
            f"Classes with training images: {', '.join(names)}."
        )
    by_class = [_files(parent / name) if (parent / name).is_dir() else [] for name in names]
    targets = torch.repeat_interleave(torch.arange(len(names)), torch.tensor([len(f) for f in by_class]))
    return [file for files in by_class for file in files], targets
