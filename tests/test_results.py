"""The tables of the pages are those of the files that the commands wrote."""

import json
import re
import statistics

import pytest
import yaml

from benchmarks import tables

RECIPES = ("sprint", "best_simple", "best_cnnnet", "robust")


@pytest.mark.parametrize("page", tables.PAGES)
def test_tables_are_made_from_the_results(page: str) -> None:
    text = (tables.ROOT / page).read_text()
    assert "<!-- results: " in text
    assert tables.updated(text) == text, "run: python -m benchmarks.tables"


def test_tables_outside_of_the_pages_follow_their_results() -> None:
    page = "<!-- results: speed -->\nold\n<!-- end -->\n"
    updated = tables.updated(page)
    assert "old" not in updated
    assert tables.updated(updated) == updated


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_has_its_evidence(name: str) -> None:
    result = json.loads((tables.RESULTS / f"{name}.json").read_text())
    accuracies = result["test/acc"]
    assert result["n"] == len(accuracies) == len(result["seeds"])
    assert result["mean"] == pytest.approx(statistics.mean(accuracies))
    assert {"date", "cpu", "cores", "torch"} <= result["machine"].keys()

    recipe = tables.ROOT / "conf" / "experiment" / f"{name}.yaml"
    comments = re.match(r"(#.*\n)+", recipe.read_text())
    assert comments is not None
    assert f"python train.py experiment={name}" in comments[0]
    assert tables.accuracy(result) in comments[0]
    assert isinstance(yaml.safe_load(recipe.read_text()), dict)
