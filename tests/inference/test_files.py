"""The image files that a user names."""

from pathlib import Path

import pytest

from mnist_cnn.errors import UserError
from mnist_cnn.inference.files import find_images


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for name in ("10.png", "9.PNG", "b.jpeg", "c.gif", "notes.txt", ".hidden.png", "below/1.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def test_folder_gives_its_images_in_the_order_of_their_numbers(scans: Path) -> None:
    assert [path.name for path in find_images(str(scans))] == ["9.PNG", "10.png", "b.jpeg", "c.gif"]


def test_pattern_and_file_give_what_they_name(scans: Path) -> None:
    assert find_images(f"{scans}/**/1*.png") == [scans / "10.png", scans / "below" / "1.png"]
    assert find_images(f"{scans}/notes.txt") == [scans / "notes.txt"]


def test_file_whose_name_is_a_pattern_is_found(scans: Path) -> None:
    (scans / "scan [1].png").touch()
    assert find_images(f"{scans}/scan [1].png") == [scans / "scan [1].png"]


def test_nothing_found_is_reported_with_what_was_given(scans: Path) -> None:
    (scans / "none").mkdir()
    for pattern, part in ((f"{scans}/none", "holds no images"), (f"{scans}/*.bmp", "no file matches")):
        with pytest.raises(UserError, match=part) as caught:
            find_images(pattern)
        assert pattern in str(caught.value)
    for nothing in (None, ""):
        with pytest.raises(UserError, match="images=PATH is missing"):
            find_images(nothing)
