from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, metadata
from pathlib import Path
from zipfile import ZipFile

import pytest


@pytest.fixture(scope="module")
def wheel(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """The wheel that a release would publish, built with the hatchling that is installed here."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    run = subprocess.run(command, cwd=project_root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return ZipFile(next(folder.glob("planner_core-*.whl")))


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel: ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"planner_core", "planner_adapters"}


def test_every_module_of_the_tree_is_in_the_wheel(wheel: ZipFile, project_root: Path) -> None:
    names = set(wheel.namelist())
    for root in (project_root, project_root / "adapters"):
        for package in ("planner_core", "planner_adapters"):
            modules = {path.relative_to(root).as_posix() for path in (root / package).rglob("*.py")}
            assert modules <= names


@pytest.mark.parametrize("package", ["planner_core", "planner_adapters"])
def test_both_packages_say_that_they_are_typed(wheel: ZipFile, package: str) -> None:
    assert f"{package}/py.typed" in wheel.namelist()


def test_the_licences_travel_with_the_wheel(wheel: ZipFile) -> None:
    ours, plotly = sorted(
        (name for name in wheel.namelist() if "licenses/" in name), key=lambda name: name.count("/")
    )
    assert b"Apache License" in wheel.read(ours)
    assert b"Plotly" in wheel.read(plotly)


def test_what_a_report_is_made_of_is_in_the_wheel(wheel: ZipFile, project_root: Path) -> None:
    folder = project_root / "adapters/planner_adapters"
    parts = {path.relative_to(folder.parent).as_posix() for path in folder.rglob("*.js")}
    assert parts <= set(wheel.namelist())


def test_the_import_name_adapters_is_left_to_others(project_root: Path) -> None:
    assert not (project_root / "adapters" / "__init__.py").exists()


def test_the_command_planner_can_be_loaded() -> None:
    pytest.importorskip("rich", reason="the command line is an extra: pip install 'planner-core[cli]'")
    (command,) = entry_points(group="console_scripts", name="planner")
    assert callable(command.load())


def test_every_extra_that_is_documented_exists() -> None:
    extras = set(metadata("planner-core").get_all("Provides-Extra") or ())
    assert extras >= {
        "kubernetes",
        "prometheus",
        "keda",
        "ray",
        "report",
        "dashboard",
        "dynamo",
        "cli",
        "all",
    }
