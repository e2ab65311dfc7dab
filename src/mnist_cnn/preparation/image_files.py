"""Image files that may come from anybody, opened with limits."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from mnist_cnn.errors import UserError, one_line

# Those for which Pillow starts no other program, and the ends of their files' names.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how files of this format begin
MAX_PIXELS = 50_000_000
TOO_LARGE = f"larger than the limit of {MAX_PIXELS / 1e6:,.0f} megapixels"
MAX_BYTES = 250_000_000  # 50 megapixels of 4 bytes, uncompressed, and some more


class UnreadableImage(UserError):
    """A file that is not an image, is damaged, or is too large."""


def open_image(path: Path, longest: int) -> Image.Image:
    """Return the image in a file, decoded and turned upright; of several images the first.

    A JPEG may come at a smaller scale, with a longer side of at least `longest` pixels. Raises
    `UnreadableImage` that says why the file cannot be read.
    """
    with _opened(path) as image:
        if image.mode in ("L", "RGB"):
            image.draft(None, (longest, longest))
        image.load()
        upright = ImageOps.exif_transpose(image)
        return _as_tagged(upright, image.tag_v2) if isinstance(image, TiffImageFile) else upright


def mode_of(path: Path) -> str:
    """Return Pillow's mode of the image in a file, without decoding it; raises `UnreadableImage`."""
    with _opened(path) as image:
        return image.mode


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UnreadableImage("not a file")  # opening a pipe or a device can block
        if size == 0:
            raise UnreadableImage("the file is empty")
        if size > MAX_BYTES:
            raise UnreadableImage(f"{size / 1e6:,.0f} MB; at most {MAX_BYTES / 1e6:,.0f} MB are read")
        content = BytesIO(path.read_bytes())
        with warnings.catch_warnings():
            # Pillow's own limit of pixels warns first and refuses twice as many; metadata out of order
            # does not matter.
            warnings.simplefilter("ignore")
            image = Image.open(content, formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImage(TOO_LARGE)
            yield image
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        if content.getvalue().startswith(TIFF):
            raise UnreadableImage(
                "a damaged TIFF, or one with pixels that are not read: write it with 8 or 16 bits, or in "
                "grey with 32-bit floats"
            ) from None
        raise UnreadableImage(f"not an image of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise UnreadableImage(TOO_LARGE) from None
    except OSError as error:
        raise UnreadableImage(error.strerror or f"damaged: {one_line(error)}") from None
    except Exception as error:  # Pillow's decoders raise whatever the broken bytes lead to
        raise UnreadableImage(f"damaged: {one_line(error)}") from None


def _as_tagged(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Return a TIFF with more than 8 bits as its tags say; Pillow ignores these two."""
    if image.mode.startswith("I;16") and tags.get(PHOTOMETRIC_INTERPRETATION) == 0:  # 0 is white
        return Image.fromarray((65535 - np.asarray(image)).astype(np.uint16))
    if image.mode == "I" and tags.get(SAMPLEFORMAT, (1,)) == (1,):  # unsigned
        return Image.fromarray(np.asarray(image).view(np.uint32).astype(np.float32))
    return image
