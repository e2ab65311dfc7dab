"""Files are written completely or not at all, also by several processes at a time."""

from pathlib import Path

import pytest

from mnist_cnn.files import atomic_write, data_folder
from tests.conftest import REPOSITORY


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as first:
        first.write_text("first")
        with atomic_write(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
        assert first.read_text() == "first"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("wrong"), OSError(28, "No space left on device")])
def test_failed_writing_leaves_the_file_as_it_was(error: Exception, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def fail() -> None:
        with atomic_write(path) as aside:
            aside.write_text("half")
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(path)


def test_data_sets_are_downloaded_to_the_repository_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert data_folder() == str(REPOSITORY.resolve() / "data")
    monkeypatch.chdir(REPOSITORY)
    assert data_folder() == "data"
