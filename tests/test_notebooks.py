"""The notebooks run from top to bottom in a fresh kernel, without an error or a warning."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def complaints(notebook: NotebookNode) -> list[str]:
    """Return what the cells wrote to stderr, where warnings go."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.text for output in outputs if output.get("name") == "stderr"]


def test_it_is_stored_without_outputs(path: Path) -> None:
    """Outputs are large, differ from one machine to the next, and make every change unreadable."""
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert not cell.metadata, cell.id
        assert not cell.get("outputs"), cell.id
        assert cell.get("execution_count") is None, cell.id


@pytest.mark.usefixtures("mnist")
def test_it_runs(path: Path) -> None:
    """From the folder it lies in, as Jupyter does; a failing cell raises with its traceback."""
    notebook = read(path)
    client = NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(path.parent)}})
    client.execute()
    assert complaints(notebook) == []
