"""Which file imports which: the package stands alone, and nothing in it imports its façade."""

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"


def imports(file: Path) -> set[str]:
    """Return all modules that a file imports, at any level."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, file
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def test_nothing_of_an_app_and_nothing_private_is_imported() -> None:
    files = list(SOURCE.rglob("*.py"))
    assert len(files) > 20
    for file in files:
        found = imports(file)
        assert not {name.split(".")[0] for name in found} & {"mnist_cnn", "lightning", "train"}, file
        assert not [name for name in found if "._" in name.replace(".__main__", "")], file


def test_nothing_inside_imports_the_facade() -> None:
    facade = {f"hydra_sweeps.{name}" for name in ("SweepError", "current_trial", "quote", "METRICS")}
    for file in (SOURCE / "hydra_sweeps").rglob("*.py"):
        assert not imports(file) & facade, file


def test_plugins_import_nothing_slow() -> None:
    program = (
        "import sys, hydra_plugins.hydra_sweeps, hydra_sweeps\n"
        "slow = {'torch', 'lightning', 'matplotlib', 'optuna', 'numpy', 'ray', 'submitit', 'tensorboard'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
