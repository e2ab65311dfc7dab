"""Run the notebooks and write them to logs/notebooks as HTML pages that need no network.

nbconvert's pages load MathJax, Mermaid and RequireJS from the network to show formulas. Here the formulas
are converted to MathML, which browsers show without a script.
"""

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

from mnist_cnn.app.paths import ROOT
from mnist_cnn.files import atomic_write

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


def export(notebook: NotebookNode, name: str) -> str:
    """Return the page of a notebook with the title `name`; the notebook is not run."""
    exporter = OfflineExporter(raw_template=TEMPLATE, preprocessors=[LatexToMarkdown])
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": name}})
    return page


def main() -> None:
    """Run every notebook in its folder and write its page."""
    folder = ROOT / "logs" / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(__file__).parent.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        client = NotebookClient(
            notebook,
            resources={"metadata": {"path": str(path.parent)}},
            extra_arguments=["--log-level=ERROR"],  # without it each kernel warns about its TCP transport
        )
        client.execute()
        page = folder / f"{path.stem}.html"
        with atomic_write(page) as file:
            file.write_text(export(notebook, path.stem))
        print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
