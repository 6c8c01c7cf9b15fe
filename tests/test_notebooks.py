"""The notebooks in examples/: committed without outputs, and each runs from its first cell to its last."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
KERNEL = ("nbclient", "ipykernel", "matplotlib", "yaml")
by_name = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)


@by_name
def test_a_notebook_is_committed_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["source"] for cell in code if cell["outputs"] or cell["execution_count"]] == []
    assert len(cells) == len({cell["id"] for cell in cells})


@by_name
def test_a_notebook_runs(notebook: Path) -> None:
    absent = [name for name in KERNEL if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"needs {', '.join(absent)} of the dependency group `examples`, where nox runs them too")
    run = subprocess.run(
        [sys.executable, "-m", "jupyter_core", "execute", str(notebook)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
