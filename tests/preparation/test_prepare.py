"""Image files of every kind as images for a network, and files that are none."""

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
from mnist_cnn.preparation.grey_values import find_grey_values
from mnist_cnn.preparation.image_files import UnreadableImage, open_image
from mnist_cnn.preparation.prepare import LONGEST, LONGEST_OF_SEVERAL, Preparation, prepare_file
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
    "palette.gif": drawing(),
    "colour.ppm": drawing(),
    "colour.jp2": drawing(),
    "16 bits.tif": grey_16_bits(),
    "32 bits.tif": Image.fromarray((1000000 * (1 - INK)).astype(np.int32)),
    "floats.tif": Image.fromarray((3 * INK).astype(np.float32)),
    "lab.tif": Image.merge("LAB", [drawing().convert("L"), *[Image.new("L", drawing().size, 128)] * 2]),
}


@pytest.mark.parametrize("name", IMAGES)
def test_digit_is_found_in_every_format_and_mode(name: str, tmp_path: Path) -> None:
    IMAGES[name].save(tmp_path / name)
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
    for split, longest in ((False, LONGEST), (True, LONGEST_OF_SEVERAL)):
        prepared = Preparation("digits", 1, 28).read(tmp_path / "large.png", split)
        assert prepared.original.size == (longest, longest // 2)


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


def tagged(content: bytes, tag: int, old: int, new: int) -> bytes:
    """Return a TIFF file with another value of a tag."""
    before, after = (struct.pack("<HHIHH", tag, 3, 1, value, 0) for value in (old, new))
    assert content.count(before) == 1
    return content.replace(before, after)


FLOATS = encoded(Image.new("F", (8, 8)), "TIFF")
BROKEN = {
    "empty": (b"", "the file is empty"),
    "text": (b"a letter, not a digit", "not an image of a known format"),
    "other format": (encoded(drawing(), "ICO"), "not an image of a known format"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
    "64-bit floats": (tagged(FLOATS, 258, 32, 64), "a damaged TIFF, or one with pixels that are not read"),
    "truncated": (encoded(drawing(), "PNG")[:700], "damaged"),
    "truncated jpeg": (encoded(drawing(), "JPEG")[:900], "damaged"),
    "51 megapixels": (png_header(10_200, 5000), "larger than the limit of 50 megapixels"),
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
        prepare_file(path)
    assert "\n" not in str(caught.value)


def test_file_without_permission_or_existence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="No such file"):
        prepare_file(tmp_path / "missing.png")
    with pytest.raises(UnreadableImage, match="not a file"):
        prepare_file(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither pipes nor devices in folders")
def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "link.png", "zero.png"):
        with pytest.raises(UnreadableImage, match="not a file"):
            prepare_file(tmp_path / name)
    with pytest.raises(UserError, match="holds no images"):
        find_images(str(tmp_path))


def test_link_to_an_image_is_followed(tmp_path: Path) -> None:
    drawing().save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    assert difference(prepare_file(tmp_path / "b.png")[0, 0], EXPECTED) < 0.25


@pytest.mark.parametrize("profile", [b"", b"x" * 100, bytes(200)])
def test_broken_metadata_of_an_image_does_not_matter(profile: bytes, tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(40)
    for name in ("a.jpg", "a.png", "a.webp"):
        drawing().save(tmp_path / name, exif=exif, icc_profile=profile)
        assert difference(prepare_file(tmp_path / name)[0, 0], EXPECTED) < 0.25


# --- Whole images --------------------------------------------------------------------------------


def resized(
    tmp_path: Path, image: Image.Image, channels: int = 1, name: str = "a.png", **options: Any
) -> Any:
    """Return what becomes of an image that is resized, (channels, 8, 8)."""
    image.save(tmp_path / name, **options)
    (pixels,) = Preparation("resize", channels, 8, GREY_VALUES).read(tmp_path / name).images
    assert pixels.shape == (channels, 8, 8) and pixels.dtype == np.uint8
    return pixels.astype(int)


GREY_VALUES = (0, 1000)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_white_is_white_in_every_mode(tmp_path: Path, mode: str, channels: int) -> None:
    arrays = {"I;16": np.uint16(1000), "I": np.int32(1000), "F": np.float32(1000)}
    image = Image.new("L", (8, 8), 255).convert(mode) if mode not in arrays else None
    image = image or Image.fromarray(np.full((8, 8), arrays[mode]))
    assert image.mode == mode
    # Pillow 12 writes TIFF files in YCbCr that it cannot read.
    name = "a.jpg" if mode == "YCbCr" else "a.tiff" if mode in ("CMYK", "I", "F") else "a.png"
    assert np.unique(resized(tmp_path, image, channels, name)).tolist() == [255]


def test_colour_is_kept_or_reduced_to_luma(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 20), (200, 100, 50))
    assert resized(tmp_path, image, 3)[:, 4, 4].tolist() == [200, 100, 50]
    assert resized(tmp_path, image)[:, 4, 4].tolist() == [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]


def test_deep_grey_is_scaled_by_the_grey_values_and_clipped(tmp_path: Path) -> None:
    levels = np.repeat(np.array([[0, 100, 500, 2000]], np.uint16), 4, axis=0).repeat(2, 0).repeat(2, 1)
    assert resized(tmp_path, Image.fromarray(levels))[0, 4, ::2].tolist() == [0, 26, 128, 255]


def test_16_bits_of_which_0_is_white_are_inverted(tmp_path: Path) -> None:
    levels = np.repeat(np.array([[65535, 65035, 64535, 0]], np.uint16), 8, axis=0).repeat(2, 1)
    pixels = resized(tmp_path, Image.fromarray(levels), name="a.tif", tiffinfo={262: 0})
    assert pixels[0, 4, ::2].tolist() == [0, 128, 255, 255]


def test_32_bits_without_a_sign_are_read_as_such(tmp_path: Path) -> None:
    levels = np.array([[0, 2**31 - 1, 2**31, 2**32 - 1]], np.uint32)
    content = encoded(Image.fromarray(levels.view(np.int32)), "TIFF")
    (tmp_path / "a.tif").write_bytes(tagged(content, 339, 2, 1))
    assert np.asarray(open_image(tmp_path / "a.tif", 8)).tolist() == [[0, 2**31, 2**31, 2**32]]


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (4, 0, 8, 8))
    pixels = resized(tmp_path, image, 3)
    assert (pixels[:, 4, 1].tolist(), pixels[:, 4, 6].tolist()) == ([255, 255, 255], [255, 0, 0])
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 10, 10, 20, 20, 20])
    assert np.unique(resized(tmp_path, palette, transparency=0)).tolist() == [255]


def test_proportions_are_kept_and_padded_with_black(tmp_path: Path) -> None:
    pixels = resized(tmp_path, Image.new("L", (400, 200), 255))[0]
    assert np.unique(pixels[2:6]).tolist() == [255]
    assert np.unique(pixels[[0, 1, 6, 7]]).tolist() == [0]


def test_large_images_are_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((80, 80), np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(resized(tmp_path, Image.fromarray(stripes)) - 100).max() < 20


# --- Grey values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([3, 900], np.uint16), (0, 1023)),
        (np.array([0, 4000], np.uint16), (0, 4095)),
        (np.array([0, 40_000], np.uint16), (0, 65_535)),
        (np.array([0, 1_000_000], np.int32), (0, 1_000_000)),
        (np.array([-1000, 2000], np.int32), (-1000, 2000)),
        (np.array([0, 0.9], np.float32), (0, 1)),
        (np.array([-0.9, 0.8], np.float32), (-1, 1)),
        (np.array([0, 200], np.float32), (0, 255)),
        (np.array([0, 3], np.float32), (0, 3)),
        (np.array([np.nan, np.inf, 0.5], np.float32), (0, 1)),
    ],
)
def test_grey_values_are_found_out_for_a_data_set(
    values: Any, expected: tuple[float, float], tmp_path: Path
) -> None:
    dark = values.copy()
    dark[dark == dark.max()] = 0  # one image does not decide
    files = [tmp_path / name for name in ("dark.tif", "none.txt", "8 bits.png", "light.tif")]
    for file, pixels in ((files[0], dark), (files[3], values)):
        Image.fromarray(np.resize(pixels, (4, 4))).save(file)
    files[1].write_text("no image")
    drawing().save(files[2])
    assert find_grey_values(files) == expected
    assert find_grey_values(files[1:3]) is None
