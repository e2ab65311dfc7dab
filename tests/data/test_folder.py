"""Image files in one folder for each class."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_cnn.data import ImageFolder
from mnist_cnn.errors import UserError

ORIENTATION = 0x0112  # the EXIF tag


def make_source(image_size: int = 8, in_channels: int = 1, test_size: float = 0.25) -> ImageFolder:
    return ImageFolder(image_size, in_channels, test_size)


def save(path: Path, image: Image.Image | int = 0, **options: object) -> None:
    """Save an image, or one that is all of that grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.new("L", (8, 8), image) if isinstance(image, int) else image).save(path, **options)


def read_one(
    tmp_path: Path, image: Image.Image, name: str = "a.png", channels: int = 1, **options: object
) -> torch.Tensor:
    """Return what becomes of one image, (channels, 8, 8)."""
    save(tmp_path / "train" / "one" / name, image, **options)
    save(tmp_path / "train" / "two" / "black.png")
    save(tmp_path / "test" / "two" / "black.png")
    images, targets = make_source(in_channels=channels).read(tmp_path, train=True)
    assert images.shape == (2, channels, 8, 8) and images.dtype == torch.uint8
    assert targets.tolist() == [0, 1] and targets.dtype == torch.int64
    return images[0]


# --- Folders and classes -------------------------------------------------------------------------


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    for name in ("10", "9", "b", "A", "image 2", "image 10", ".hidden"):
        save(tmp_path / name / "a.png")
    assert make_source().classes(tmp_path) == ["9", "10", "A", "b", "image 2", "image 10"]


def test_without_test_folder_a_stratified_share_is_kept(tmp_path: Path) -> None:
    for index in range(12):
        save(tmp_path / "a" / "deeper" / f"{index}.png", index)
    for index in range(4):
        save(tmp_path / "b" / f"{index}.png", 100 + index)
    source = make_source()
    assert source.fetch(tmp_path) == str(tmp_path)
    (train, train_targets), (test, test_targets) = (source.read(tmp_path, part) for part in (True, False))
    assert (train_targets.bincount().tolist(), test_targets.bincount().tolist()) == ([9, 3], [3, 1])
    levels = torch.cat([train, test])[:, 0, 0, 0].sort().values
    assert levels.tolist() == [*range(12), *range(100, 104)]
    assert torch.equal(source.read(tmp_path, False)[0], test)


def test_train_and_test_folders_are_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part, level in (("train", 10), ("test", 20), ("val", 30)):
        save(tmp_path / part / "a" / "x.png", level)
    save(tmp_path / "train" / "b" / "x.png", 11)  # no test image of this class
    source = make_source()
    source.fetch(tmp_path)
    assert "folders not used: val" in caplog.text
    for train, levels, labels in ((True, [10, 11], [0, 1]), (False, [20], [0])):
        images, targets = source.read(tmp_path, train)
        assert images[:, 0, 0, 0].tolist() == levels
        assert targets.tolist() == labels


def test_class_may_be_called_test(tmp_path: Path) -> None:
    for name in ("test", "train"):
        save(tmp_path / name / "a.png")
    assert make_source().classes(tmp_path) == ["test", "train"]


def test_test_folder_without_train_folder_is_refused(tmp_path: Path) -> None:
    for folder in ("a", "b", "test/a", "test/b"):
        save(tmp_path / folder / "x.png")
    with pytest.raises(UserError, match="move the class folders for training to"):
        make_source().fetch(tmp_path)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.dir=.*/none: there is no such folder.*data\.dir=PATH"):
        make_source().classes(tmp_path / "none")


@pytest.mark.parametrize(("file", "found"), [("a.png", "no folders"), ("one/a.png", "only the folder one")])
def test_fewer_than_two_class_folders_are_refused(tmp_path: Path, file: str, found: str) -> None:
    save(tmp_path / file)
    with pytest.raises(UserError, match=f"holds {found}. Put the images into at least two class folders"):
        make_source().classes(tmp_path)


def test_empty_class_folder_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a" / "a.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".DS_Store").touch()
    with pytest.raises(UserError, match=f"The class folder {tmp_path / 'b'} holds no images"):
        make_source().fetch(tmp_path)


def test_unknown_test_class_is_refused(tmp_path: Path) -> None:
    for path in ("train/a/x.png", "train/b/x.png", "test/c/x.png"):
        save(tmp_path / path)
    with pytest.raises(UserError, match=r"holds the class c, which .* Classes to train on: a, b"):
        make_source().read(tmp_path, train=False)


def test_no_test_images_are_refused(tmp_path: Path) -> None:
    for path in ("a/x.png", "b/x.png"):
        save(tmp_path / path)
    with pytest.raises(UserError, match=r"has no readable test images.*data\.source\.test_size=0"):
        make_source(test_size=0).read(tmp_path, train=False)


# --- Broken files --------------------------------------------------------------------------------


def test_broken_files_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(3):
        save(tmp_path / "train" / "a" / f"good {index}.png", 50 + index)
    save(tmp_path / "train" / "b" / "good.png", 60)
    save(tmp_path / "test" / "b" / "good.png")
    whole = (tmp_path / "train" / "b" / "good.png").read_bytes()
    jpeg = tmp_path / "train" / "a" / "cut.jpg"
    save(jpeg, Image.effect_noise((64, 64), 50))
    jpeg.write_bytes(jpeg.read_bytes()[:-200])
    broken = {"cut.png": whole[:50], "empty.png": b"", "notes.txt": b"hello", "z.png": b"x" * 99}
    for name, content in broken.items():
        (tmp_path / "train" / "a" / name).write_bytes(content)
    (tmp_path / "train" / "b" / "last.png").write_bytes(b"")

    images, targets = make_source().read(tmp_path, train=True)
    assert images[:, 0, 0, 0].tolist() == [50, 51, 52, 60]
    assert targets.tolist() == [0, 0, 0, 1]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    first, *named = record.getMessage().splitlines()
    assert first == "left out, because not readable as images (6):"
    files = [line.strip().split(": ")[0].rpartition("/")[2] for line in named]
    assert files == ["cut.jpg", "cut.png", "empty.png", "notes.txt", "z.png", "…"]


def test_class_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a" / "good.png")
    save(tmp_path / "test" / "a" / "good.png")
    (tmp_path / "train" / "b").mkdir()
    (tmp_path / "train" / "b" / "bad.png").write_bytes(b"bad")
    with pytest.raises(UserError, match=r"No image of the class b .* can be read for training"):
        make_source().read(tmp_path, train=True)


# --- Formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.tiff", "a.ppm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_formats_are_read_in_grey_and_colour(tmp_path: Path, name: str, channels: int) -> None:
    image = read_one(tmp_path, Image.new("RGB", (20, 20), (200, 100, 50)), name, channels)
    expected = [200, 100, 50] if channels == 3 else [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]
    assert image[:, 4, 4].tolist() == pytest.approx(expected, abs=4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_modes_are_read(tmp_path: Path, mode: str) -> None:
    arrays = {"I;16": np.uint16(65535), "I": np.int32(65535), "F": np.float32(1)}
    if mode in arrays:
        image = Image.fromarray(np.full((8, 8), arrays[mode]))
    else:
        image = Image.new("L", (8, 8), 255).convert(mode)
    assert image.mode == mode
    # Pillow 12 writes TIFF files in YCbCr that it cannot read.
    name = "a.jpg" if mode == "YCbCr" else "a.tiff" if mode in ("CMYK", "I", "F") else "a.png"
    pixels = read_one(tmp_path, image, name)
    assert pixels.unique().tolist() == [255]


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    levels = np.repeat(np.array([[0, 257 * 100, 257 * 200, 65535]], np.uint16), 4, axis=0)
    image = read_one(tmp_path, Image.fromarray(levels))
    assert image[0, 4, [0, 7]].tolist() == [0, 255]
    assert image.float().mean() == pytest.approx((100 + 200 + 255) / 4, abs=3)


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (4, 0, 8, 8))
    pixels = read_one(tmp_path, image, channels=3)
    assert pixels[:, 4, 1].tolist() == [255, 255, 255]
    assert pixels[:, 4, 6].tolist() == [255, 0, 0]


def test_transparent_palette_entry_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 10, 10, 20, 20, 20])
    assert read_one(tmp_path, image, transparency=0).unique().tolist() == [255]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 4))  # white above, black below
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned clockwise
    pixels = read_one(tmp_path, image, "a.jpg", quality=95, exif=exif)[0]
    assert pixels[:, :3].float().mean() < 20  # black to the left
    assert pixels[:, 5:].float().mean() > 235


def test_proportions_are_kept_and_padded_with_black(tmp_path: Path) -> None:
    pixels = read_one(tmp_path, Image.new("L", (400, 200), 255))[0]
    assert pixels[2:6].unique().tolist() == [255]
    assert pixels[[0, 1, 6, 7]].unique().tolist() == [0]


def test_large_images_are_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((80, 80), np.uint8)
    stripes[:, ::2] = 200
    pixels = read_one(tmp_path, Image.fromarray(stripes))[0]
    assert (pixels.float() - 100).abs().max() < 20


def test_image_of_more_pixels_than_the_limit_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two"):
        save(tmp_path / "train" / name / "good.png")
    save(tmp_path / "test" / "one" / "good.png")
    Image.new("1", (10_200, 5000)).save(tmp_path / "train" / "one" / "large.png")
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"  # for which Pillow would start Ghostscript
    (tmp_path / "train" / "one" / "page.eps").write_bytes(page)
    images, _ = make_source().read(tmp_path, train=True)
    assert len(images) == 2
    assert "large.png: 51.0 megapixels: larger than the limit" in caplog.text
    assert "page.eps: not an image of a known format" in caplog.text
