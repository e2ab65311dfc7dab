"""Image files of every kind, and files that are none."""

import os
import struct
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mnist_cnn.errors import UserError
from mnist_cnn.inference.files import find_images
from mnist_cnn.preparation.digits import to_mnist_form
from mnist_cnn.preparation.finding import prepare_file
from mnist_cnn.preparation.image_files import UnreadableImage
from mnist_cnn.preparation.loading import LONGEST, load_picture
from tests.preparation.drawing import FIVE, difference, draw

INK = np.pad(draw(FIVE), ((30, 60), (40, 20)))
EXPECTED = to_mnist_form(INK)


def drawing() -> Image.Image:
    """Return the digit in black on white, RGB."""
    return Image.fromarray(np.rint(255 * (1 - INK)).astype(np.uint8)).convert("RGB")


def grey_16_bits() -> Image.Image:
    return Image.fromarray((1000 + 40000 * (1 - INK)).astype(np.uint16))


def of_ink(red: int, green: int, blue: int) -> Image.Image:
    """Return the digit in one colour on transparent pixels."""
    image = Image.new("RGBA", drawing().size, (red, green, blue, 0))
    image.putalpha(Image.fromarray(np.rint(255 * INK).astype(np.uint8)))
    return image


IMAGES = {
    "black.png": drawing().convert("1"),
    "grey.png": drawing().convert("L"),
    "grey with alpha.png": drawing().convert("LA"),
    "colour.png": drawing(),
    "palette.png": drawing().quantize(8),
    "16 bits.png": grey_16_bits(),
    "transparent black.png": of_ink(0, 0, 0),
    "transparent white.png": of_ink(255, 255, 255),
    "transparent.webp": of_ink(0, 0, 90),
    "grey.jpg": drawing().convert("L"),
    "colour.jpeg": drawing(),
    "cmyk.jpg": drawing().convert("CMYK"),
    "colour.webp": drawing(),
    "colour.bmp": drawing(),
    "palette.bmp": drawing().convert("P"),
    "colour.tiff": drawing(),
    "16 bits.tif": grey_16_bits(),
    "32 bits.tif": Image.fromarray((1000000 * (1 - INK)).astype(np.int32)),
    "floats.tif": Image.fromarray((3 * INK).astype(np.float32)),
    "lab.tif": Image.merge("LAB", [drawing().convert("L"), *[Image.new("L", drawing().size, 128)] * 2]),
}


@pytest.mark.parametrize("name", IMAGES)
def test_every_format_and_mode_is_read(name: str, tmp_path: Path) -> None:
    IMAGES[name].save(tmp_path / name)
    picture = load_picture(tmp_path / name)
    assert picture.rgb.shape == (*INK.shape, 3)
    assert picture.rgb.dtype == np.uint8
    images = prepare_file(tmp_path / name)
    assert images.shape == (1, 1, 28, 28)
    assert difference(images[0, 0], EXPECTED) < 0.25


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ((200, 30, 40), (40, 129, 50)),  # of nearly the same luma
        ((240, 220, 40), (255, 255, 255)),
        ((255, 230, 80), (30, 60, 150)),
    ],
)
def test_colours_are_told_apart(ink: tuple[int, ...], paper: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.array(paper) + (np.array(ink) - np.array(paper)) * INK[..., None]
    Image.fromarray(np.rint(pixels).astype(np.uint8)).save(tmp_path / "colours.png")
    assert difference(prepare_file(tmp_path / "colours.png")[0, 0], EXPECTED) < 0.25


@pytest.mark.parametrize(("orientation", "turned"), [(3, 2), (6, 1), (8, 3)])
def test_photograph_is_turned_upright(orientation: int, turned: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.rot90(np.asarray(drawing()), turned)
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "photograph.jpg", exif=exif)
    assert difference(prepare_file(tmp_path / "photograph.jpg")[0, 0], EXPECTED) < 0.25


def test_50_megapixels_are_read_and_reduced(tmp_path: Path) -> None:
    large = drawing().convert("1").resize((5000, 5000), Image.Resampling.NEAREST)
    canvas = Image.new("1", (10_000, 5000), 1)
    canvas.paste(large, (2500, 0))
    canvas.save(tmp_path / "large.png", compress_level=1)
    picture = load_picture(tmp_path / "large.png")
    assert picture.grey.shape == (LONGEST // 2, LONGEST)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file that says how large it is and ends there."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + body + data


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


BROKEN = {
    "empty": (b"", "the file is empty"),
    "text": (b"a letter, not a digit", "not an image of a known format"),
    "other format": (encoded(drawing(), "GIF"), "not an image of a known format"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
    "truncated": (encoded(drawing(), "PNG")[:700], "damaged"),
    "truncated jpeg": (encoded(drawing(), "JPEG")[:900], "damaged"),
    "51 megapixels": (png_header(10_200, 5000), "51.0 megapixels: larger than the limit of 50"),
    "150 megapixels": (png_header(15_000, 10_000), "larger than the limit of 50 megapixels"),
    "10,000 megapixels": (png_header(100_000, 100_000), "larger than the limit of 50 megapixels"),
    "no pixels": (png_header(0, 10), "damaged|not an image"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_file_that_cannot_be_read_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    path = tmp_path / "digit.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=message) as caught:
        load_picture(path)
    assert "\n" not in str(caught.value)


def test_file_without_permission_or_existence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="No such file"):
        load_picture(tmp_path / "missing.png")
    with pytest.raises(UnreadableImage, match="directory"):
        load_picture(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither pipes nor devices in folders")
def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "link.png", "zero.png"):
        with pytest.raises(UnreadableImage, match="not a file"):
            load_picture(tmp_path / name)
    with pytest.raises(UserError, match="holds no images"):
        find_images(str(tmp_path))


def test_link_to_an_image_is_followed(tmp_path: Path) -> None:
    drawing().save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    assert load_picture(tmp_path / "b.png").rgb.shape == (*INK.shape, 3)


@pytest.mark.parametrize("profile", [b"", b"x" * 100, bytes(200)])
def test_broken_metadata_of_an_image_does_not_matter(profile: bytes, tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(40)
    for name in ("a.jpg", "a.png", "a.webp"):
        drawing().save(tmp_path / name, exif=exif, icc_profile=profile)
        assert difference(prepare_file(tmp_path / name)[0, 0], EXPECTED) < 0.25
