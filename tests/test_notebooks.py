"""The notebooks run without errors and warnings, and their HTML pages work without a network."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from notebooks.export import export, in_chinese
from tests.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def translation_of(path: Path) -> Path:
    return path.parent / "zh" / f"{path.stem}.md"


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


@each_notebook
def test_notebook_is_stored_without_outputs(path: Path) -> None:
    """Outputs are large, depend on the machine, and hide the changes in a diff."""
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert not cell.metadata, cell.id
        assert not cell.get("outputs"), cell.id
        assert cell.get("execution_count") is None, cell.id


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """Start a kernel in the folder of the notebooks, like Jupyter; its imports take seconds."""
    manager = KernelManager()
    manager.start_kernel(cwd=str(REPOSITORY / "notebooks"))
    yield manager
    manager.shutdown_kernel(now=True)


@each_notebook
@pytest.mark.usefixtures("mnist")
@pytest.mark.xdist_group("notebooks")  # one kernel
def test_notebook_runs_without_warnings(path: Path, kernel: KernelManager) -> None:
    """An error in a cell is raised with its traceback."""
    notebook = read(path)
    notebook.cells.insert(0, new_code_cell("%reset -f"))  # no names of the notebook before
    client = NotebookClient(notebook, km=kernel, timeout=240)
    client.execute()
    client.kc.stop_channels()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


@each_notebook
@pytest.mark.parametrize("language", ["en", "zh"])
def test_page_loads_nothing_and_shows_formulas_as_mathml(path: Path, language: str) -> None:
    notebook = read(path)
    if language == "zh":
        notebook = in_chinese(notebook, translation_of(path))
    page = BeautifulSoup(export(notebook, path.stem, language), "html.parser")
    assert page.title is not None
    assert page.title.text == path.stem
    assert page.html is not None
    assert page.html["lang"] == language
    assert not page.select("script, link, iframe")
    assert all(image["src"].startswith("data:") for image in page.select("img"))
    contents = [link["href"] for link in page.select("li > a[href^='#']")]
    assert len(contents) >= 6
    assert {href.removeprefix("#") for href in contents} <= {heading["id"] for heading in page.select("h2")}

    formulas = page.select("math")
    assert formulas
    for formula in formulas:
        assert not set(formula.text) & set("\\&"), formula.text  # a command that was not converted
    for text in page.select(".jp-RenderedMarkdown"):
        for code in text.select("code, pre"):
            code.clear()
        assert "$" not in text.text


@each_notebook
def test_chinese_texts_have_the_formulas_and_the_code_of_the_english_ones(path: Path) -> None:
    english = read(path)
    for cell, translated in zip(english.cells, in_chinese(english, translation_of(path)).cells, strict=True):
        if cell.cell_type == "code":
            assert cell == translated
        for pattern in (r"\$\$[^$]+\$\$|\$[^$]+\$", r"`[^`]+`"):
            assert sorted(re.findall(pattern, cell.source)) == sorted(re.findall(pattern, translated.source))


def test_changed_text_has_to_be_translated_again() -> None:
    notebook = read(NOTEBOOKS[0])
    notebook.cells[0].source += " Another sentence."
    with pytest.raises(ValueError, match="translate the cell title again"):
        in_chinese(notebook, translation_of(NOTEBOOKS[0]))


def test_page_converts_latex_outputs_and_links_to_notebooks() -> None:
    output = new_output("execute_result", {"text/latex": r"$\displaystyle \frac{1}{2}$", "text/plain": "1/2"})
    cells = [new_code_cell("half", outputs=[output]), new_markdown_cell("[next](3_training.ipynb)")]
    page = BeautifulSoup(export(new_notebook(cells=cells), "title"), "html.parser")
    assert page.select_one("math mfrac") is not None
    assert page.select_one("a[href='3_training.html']") is not None
