"""Which package imports which: `hydra_sweeps` stands alone, and an app sees only its interface."""

import ast
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def imports(folder: Path) -> set[str]:
    """Return all modules that the files in `folder` import, at any level."""
    found = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, file
                found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def test_hydra_sweeps_imports_nothing_of_app() -> None:
    found = imports(REPOSITORY / "hydra-sweeps" / "src")
    assert "hydra_sweeps.interface" in found
    assert not [name for name in found if name.split(".")[0] in ("mnist_cnn", "lightning", "train")]


def test_app_imports_only_interface() -> None:
    found = imports(REPOSITORY / "src" / "mnist_cnn")
    used = {name for name in found if name.split(".")[0] in ("hydra_sweeps", "hydra_plugins")}
    assert {name for name in used if name.count(".") > 1} == set()
    assert "hydra_sweeps" in used


def test_plugins_import_nothing_slow() -> None:
    program = (
        "import sys, hydra_plugins.hydra_sweeps, hydra_sweeps.interface\n"
        "slow = {'torch', 'lightning', 'matplotlib', 'optuna', 'numpy', 'ray', 'submitit', 'tensorboard'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
