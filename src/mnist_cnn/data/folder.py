"""Image files in one folder for each class."""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mnist_cnn.data.source import Source
from mnist_cnn.data.split import stratified_split
from mnist_cnn.errors import UserError
from mnist_cnn.files import natural_order
from mnist_cnn.preparation.image_files import FORMATS, UnreadableImage, open_image

log = logging.getLogger(__name__)

# Pillow also knows formats for which it starts other programs.
READ = (*FORMATS, "GIF", "PPM", "JPEG2000", "TGA", "ICO")
NAMED = 5  # unreadable files that a warning names


class ImageFolder(Source):
    """Image files (PNG, JPEG, WebP, BMP, TIFF, GIF, PPM and others) in a folder for each class.

    The class folders lie in `data.dir`, or in its folders `train` and `test`. Without a test folder
    `test_size` images, or that fraction of them, are kept for the test: each class in proportion, the same
    ones in every run. A class is named after its folder; the order is alphabetical, numbers by value.

    Images are scaled to (in_channels, image_size, image_size), with their proportions kept and padded with
    black. Transparent pixels become white, and photographs are turned upright by their EXIF data. Files that
    cannot be read are left out with a warning. Hidden files are ignored.
    """

    def __init__(self, image_size: int, in_channels: int, test_size: int | float) -> None:
        self.image_size = image_size
        self.in_channels = in_channels
        self.test_size = test_size

    def classes(self, directory: Path) -> list[str]:
        """Return the names of the class folders; raises `UserError` if there are fewer than two."""
        if not directory.is_dir():
            raise UserError(
                f"data.dir={directory}: there is no such folder. Give a folder that holds one folder of "
                f"images for each class: data.dir=PATH."
            )
        parent = _training_folder(directory)
        names = [path.name for path in _folders(parent)]
        if len(names) < 2:
            found = f"only the folder {names[0]}" if names else "no folders"
            raise UserError(
                f"{parent} holds {found}. Put the images into at least two class folders, "
                f"such as {parent / 'cats'} and {parent / 'dogs'}, and give their parent as data.dir."
            )
        return sorted(names, key=natural_order)

    def fetch(self, directory: Path) -> str:
        """Check that each class folder holds files; raises `UserError` if not."""
        names = self.classes(directory)
        parent = _training_folder(directory)
        test = _part(directory, "test")
        if parent == directory and test and {path.name for path in _folders(test)} & set(names):
            raise UserError(
                f"{test} holds classes, and {directory} the same: move the class folders for training to "
                f"{directory / 'train'}, or remove {test}."
            )
        for name in names:
            if not _files(parent / name):
                raise UserError(f"The class folder {parent / name} holds no images. Add some or remove it.")
        if parent != directory:
            used = [name for name in ("train", "test") if _part(directory, name)]
            unused = sorted(path.name for path in _folders(directory) if path.name not in used)
            if unused:
                log.warning("%s: folders not used: %s", directory, ", ".join(unused))
        return str(directory)

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, in_channels, image_size, image_size) and int64 targets (N,).

        Raises `UserError` if a class has no readable training image or there are no test images.
        """
        names = self.classes(directory)
        files, targets = self._select(directory, names, train)
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside of the interpreter's lock
            load = partial(_load, size=self.image_size, mode="L" if self.in_channels == 1 else "RGB")
            loaded = list(pool.map(load, files))
        pairs = zip(files, loaded, strict=True)
        unreadable = [f"{file}: {result}" for file, result in pairs if isinstance(result, str)]
        if unreadable:
            named = "\n  ".join(unreadable[:NAMED] + ["…"] * (len(unreadable) > NAMED))
            log.warning("left out, because not readable as images (%d):\n  %s", len(unreadable), named)

        kept = [index for index, result in enumerate(loaded) if not isinstance(result, str)]
        targets = targets[kept]
        if not train and not kept:
            raise UserError(
                f"{directory} has no readable test images. Add some to {directory / 'test'}, or remove that "
                f"folder to keep data.source.test_size={self.test_size} of all images for the test."
            )
        empty = [name for label, name in enumerate(names) if train and not (targets == label).any()]
        if empty:
            raise UserError(
                f"No image of the class {empty[0]} in {directory} can be read for training. "
                "Add images to its folder or remove it."
            )
        images = torch.from_numpy(np.stack([loaded[index] for index in kept]))  # (N, H, W) or (N, H, W, 3)
        images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
        return images, targets

    def _select(self, directory: Path, names: list[str], train: bool) -> tuple[list[Path], Tensor]:
        """Return the files of one part and their targets (N,), int64."""
        test_folder = _part(directory, "test")
        parent = _training_folder(directory)
        if test_folder and parent != directory:
            unknown = [path.name for path in _folders(test_folder) if path.name not in names]
            if unknown:
                raise UserError(
                    f"{test_folder} holds the class {unknown[0]}, which {parent} does not hold. "
                    f"Classes to train on: {', '.join(names)}."
                )
            return _files_and_targets(parent if train else test_folder, names)
        files, targets = _files_and_targets(parent, names)
        split = stratified_split(targets, self.test_size, seed=0, setting="data.source.test_size")
        rows = split[0 if train else 1]
        return [files[row] for row in rows.tolist()], targets[rows]


def _part(directory: Path, name: str) -> Path | None:
    """Return the folder `name` of `directory` if it holds class folders, not images of a class."""
    folder = directory / name
    return folder if folder.is_dir() and _folders(folder) else None


def _training_folder(directory: Path) -> Path:
    return _part(directory, "train") or directory


def _folders(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _files(folder: Path) -> list[Path]:
    """Return the files in `folder` and in the folders within it, in an order that is always the same."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(
        path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _files_and_targets(parent: Path, names: list[str]) -> tuple[list[Path], Tensor]:
    by_class = [_files(parent / name) for name in names]
    targets = torch.repeat_interleave(torch.arange(len(names)), torch.tensor([len(f) for f in by_class]))
    return [file for files in by_class for file in files], targets


def _load(path: Path, size: int, mode: str) -> np.ndarray | str:
    """Return an image as uint8 (size, size) or (size, size, 3), or why it cannot be read."""
    try:
        upright = open_image(path, 2 * size, READ)
        flat = _without_transparency(_to_8_bit(upright)).convert(mode)
        return np.asarray(ImageOps.pad(flat, (size, size), color=0))
    except UnreadableImage as reason:
        return str(reason)
    except Exception as error:  # Pillow's decoders raise whatever the broken bytes lead to
        return str(error).splitlines()[0] if str(error) else type(error).__name__


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale grey images of 16 bits, and float images in [0, 1], to 8 bits; Pillow's convert clips them."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32) / 257
    elif image.mode == "F":
        values = np.asarray(image) * 255
    else:
        return image
    return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))


def _without_transparency(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))
