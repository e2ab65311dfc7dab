"""The image files that a user names."""

import glob
from pathlib import Path

from mnist_cnn.errors import UserError
from mnist_cnn.files import natural_order
from mnist_cnn.preparation.image_files import SUFFIXES


def find_images(pattern: str | None) -> list[Path]:
    """Return the files of a file name, a folder or a pattern, numbers in their names in order.

    Of a folder these are the files whose names end as those of images do. Raises `UserError` where there
    is none.
    """
    if not pattern:  # empty where a variable of the shell is not set
        raise UserError("images=PATH is missing: give an image file, a folder, or a pattern in quotes.")
    path = Path(pattern)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file()]
        found = [file for file in found if not file.name.startswith(".")]
        problem = f"images={pattern}: the folder holds no images ({', '.join(SUFFIXES)})."
    else:
        found = [Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file()]
        problem = f"images={pattern}: there is no such file or folder, and no file matches it as a pattern."
    if not found:
        raise UserError(problem)
    return sorted(found, key=lambda path: natural_order(str(path)))
