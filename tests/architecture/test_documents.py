"""What we show is run: examples in docstrings, and code blocks in README and docs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import planner_core

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
MODULES = [module.name for module in pkgutil.walk_packages(planner_core.__path__, "planner_core.")]
PYTHON_BLOCK = re.compile(r"^```(?:python|pycon)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", ["planner_core", *MODULES])
def test_the_examples_in_docstrings_hold(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_python_block_of_a_page_is_written_so_that_pytest_runs_it(page: Path) -> None:
    blocks = PYTHON_BLOCK.findall(page.read_text(encoding="utf-8"))
    assert [block for block in blocks if not block.startswith(">>> ")] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_example_runs(script: Path) -> None:
    run = subprocess.run([sys.executable, "-P", str(script)], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert run.stdout


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "planner_core.md").read_text(encoding="utf-8")
    shown = re.findall(r"auto(?:class|function|exception):: planner_core\.(\w+)", page)
    assert sorted(shown) == sorted(planner_core.__all__)
