"""Run the notebooks and write them to logs/notebooks as HTML pages, in English and in Chinese.

The code of both is that of the notebook; the Chinese texts are in zh/, by the ids of the cells.
The pages need no network. nbconvert's own load MathJax, Mermaid and RequireJS to show formulas; here formulas
are converted to MathML, which browsers show without a script.
"""

import copy
import hashlib
import re
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode

from mnist_cnn.files import ROOT, atomic_write

NOTEBOOKS = Path(__file__).parent
TEMPLATE = """
{% extends 'index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}
<style>
main { max-width: 60rem; margin: 0 auto; }
math { font-size: 1.1em; }
math[display="block"] { margin: 1em 0; }
mtd { padding: 0.2em 0.4em; }
/* Delimiters are only as tall as a matrix where a math font is installed, so matrices are framed instead. */
mtable { border: solid; border-width: 0 1px; border-radius: 0.6em; }
mo:has(+ mtable), mtable + mo { display: none; }
</style>
{% endblock %}
"""


class Renderer(IPythonRenderer):
    """Render formulas as MathML, and links to notebooks as links to their pages."""

    def block_math(self, body: str) -> str:
        return convert(body, display="block")

    def inline_math(self, body: str) -> str:
        return convert(body)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return super().link(text, url.replace(".ipynb", ".html"), title)


class LatexToMarkdown(Preprocessor):
    """Turn the LaTeX output of SymPy into Markdown output, which `Renderer` converts."""

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> tuple[NotebookNode, Any]:
        for output in cell.get("outputs", []):
            if "text/latex" in output.get("data", {}):
                output.data["text/markdown"] = output.data.pop("text/latex")
        return cell, resources


class OfflineExporter(HTMLExporter):
    """Convert a notebook to an HTML page that loads nothing from the network."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        return MarkdownWithMath(renderer=Renderer(escape=False)).render(source)


def export(notebook: NotebookNode, name: str, language: str = "en") -> str:
    """Return the page of a notebook with the title `name`; the notebook is not run."""
    exporter = OfflineExporter(raw_template=TEMPLATE, preprocessors=[LatexToMarkdown], language_code=language)
    page, _ = exporter.from_notebook_node(copy.deepcopy(notebook), {"metadata": {"name": name}})
    return page


def fingerprint(source: str) -> str:
    """Return what tells whether an English text is still the one that was translated."""
    return hashlib.sha256(source.encode()).hexdigest()[:8]


def in_chinese(notebook: NotebookNode, path: Path) -> NotebookNode:
    """Return the notebook with the texts of `path`, each headed by the id and the fingerprint of its cell.

    Raises `ValueError` if a text is missing or if the English one has changed since it was translated.
    """
    translated = copy.deepcopy(notebook)
    parts = re.split(r"^<!-- ([\w-]+) (\w+) -->\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts = {
        (id_, version): text.strip()
        for id_, version, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }
    for cell in translated.cells:
        if cell.cell_type == "markdown":
            key = (cell.id, fingerprint(cell.source))
            if key not in texts:
                raise ValueError(f"{path}: translate the cell {cell.id} again and head it by {' '.join(key)}")
            cell.source = texts[key].replace(".ipynb)", ".zh.ipynb)")
    return translated


def main() -> None:
    """Run every notebook in its folder and write its two pages."""
    folder = ROOT / "logs" / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        client = NotebookClient(
            notebook,
            resources={"metadata": {"path": str(path.parent)}},
            extra_arguments=["--log-level=ERROR"],  # without it each kernel warns about its TCP transport
        )
        client.execute()
        chinese = in_chinese(notebook, NOTEBOOKS / "zh" / f"{path.stem}.md")
        for language, version, suffix in (("en", notebook, ""), ("zh", chinese, ".zh")):
            page = folder / f"{path.stem}{suffix}.html"
            with atomic_write(page) as file:
                file.write_text(export(version, page.stem, language), encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
