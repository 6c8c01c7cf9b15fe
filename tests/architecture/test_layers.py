from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

LINT_IMPORTS = "from importlinter.cli import lint_imports_command as main; main()"


def test_imports_point_down_and_the_core_is_pure(project_root: Path) -> None:
    """The contracts stand in pyproject.toml; here they meet the packages as they are installed."""
    found = map(importlib.util.find_spec, ("planner_core", "planner_adapters"))
    folders = {str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin}
    run = subprocess.run(
        [sys.executable, "-c", LINT_IMPORTS, "--no-cache"],
        cwd=project_root,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sorted(folders))},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
