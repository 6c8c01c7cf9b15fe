from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ["statsmodels", "prophet", "filterpy", "pandas", "scipy.stats"]


def python(code: str) -> str:
    """Run code in a fresh interpreter that sees the installed packages and not the working directory."""
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_importing_the_core_loads_nothing_heavy() -> None:
    loaded = python("import planner_core, sys; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_importing_the_core_loads_no_shell() -> None:
    loaded = python("import planner_core, sys; print(*sys.modules)").split()
    assert not [name for name in loaded if name.startswith("planner_adapters")]


@pytest.mark.parametrize("guest", ["statsmodels", "prophet", "filterpy", "pandas"])
def test_the_core_imports_where_a_heavy_guest_is_absent(guest: str) -> None:
    python(f"import sys; sys.modules[{guest!r}] = None; import planner_core")
