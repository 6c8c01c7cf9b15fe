"""Everything that is checked, each check by one name: `nox -l` lists them, plain `nox` runs the gate.

Each session works in an environment of its own and needs nothing but Python 3.11 or newer and PyPI.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"  # one installer for everybody, whether uv is there or not
# Quick answers first; the tests last, so that their summary closes the output.
nox.options.sessions = ["lint", "imports", "types", "security", "slim", "docs", "examples", "tests"]

PROJECT = nox.project.load_toml()
SHELLS = ".[cli,dashboard,dynamo,grafana,keda,kubernetes,prometheus,report,virtual]"
"""All shells that there are, with what each stands on; without the simulator of 249 MB."""
SLIM = {"numpy", "scipy", "attrs", "msgspec", "typing-extensions"}


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group; pip itself reads groups only since 25.1."""
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format. `nox -s lint -- --fix` mends what can be mended."""
    session.install(*group("lint"))
    fix = "--fix" in session.posargs
    session.run("ruff", "check", "--output-format", "concise", *(["--fix"] if fix else []))
    session.run("ruff", "format", *([] if fix else ["--check"]))


@nox.session
def imports(session: nox.Session) -> None:
    """import-linter: imports point down only, stages don't meet, the core stays pure."""
    session.install(*group("imports"))
    session.run("lint-imports", env={"PYTHONPATH": "adapters"})


@nox.session
def types(session: nox.Session) -> None:
    """Mypy strict on both packages, pyright strict on the core: they find different things."""
    session.install(SHELLS, *group("types"))
    session.run("mypy")
    session.run("pyright")


@nox.session
def slim(session: nox.Session) -> None:
    """The core's tests where statsmodels, prophet and filterpy are absent: the rest works without."""
    requirements = PROJECT["project"]["dependencies"]
    session.install(*(r for r in requirements if r.split(">=")[0] in SLIM), *group("tests"))
    session.install("--no-deps", ".")
    session.run("pytest", "tests/core", "-n", "2", "--hypothesis-profile", "quick", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages; a warning or a reference that leads nowhere fails. Pages: build/docs/index.html."""
    session.install(SHELLS, ".[testing]", *group("docs"))
    session.run("sphinx-build", "-n", "-W", "--keep-going", "-q", "-E", "docs", "build/docs")
    session.run("towncrier", "build", "--draft", "--version", "next")


@nox.session
def examples(session: nox.Session) -> None:
    """Run each script and notebook in examples/ with nothing installed but what its reader is told to install."""
    session.install(".[cli,virtual]", *group("examples"))
    for script in sorted(Path("examples").glob("*.py")):
        session.run("python", str(script))
    session.run("jupyter", "execute", *map(str, sorted(Path("examples").glob("*.ipynb"))))


@nox.session
def tests(session: nox.Session) -> None:
    """The tests and every code block of README and docs. `nox -s tests -- -m nightly` runs the long ones.

    Pictures of the pages go to build/screenshots, or to $SCREENSHOTS; they need a Chromium.
    """
    session.install(SHELLS, *group("tests"))
    env = {
        "OPENBLAS_NUM_THREADS": "1",  # two workers on two cores: more threads would only get in their way
        "SCREENSHOTS": os.environ.get("SCREENSHOTS", "build/screenshots"),
    }
    session.run("pytest", "-n", "2", *session.posargs, env=env)


@nox.session
def ray(session: nox.Session) -> None:
    """The policy with Ray Serve's own types; `nox -s ray -- -m nightly` in a Ray Serve that scales. Half a gigabyte."""
    session.install(".[ray]", *group("tests"))
    session.run("pytest", "tests/adapters/ray", *session.posargs)


@nox.session
def security(session: nox.Session) -> None:
    """Bandit on our code; pip-audit on what users install, where advisories can be had, else it says aloud that not."""
    session.install(SHELLS, "bandit>=1.8", "pip-audit>=2.9")
    # B604 takes any argument named `shell` for that of a subprocess; here it is a section of the configuration.
    session.run("bandit", "-q", "-r", "-ll", "-s", "B604", "planner_core", "adapters/planner_adapters")
    report = Path(session.create_tmp()) / "advisories.json"
    report.unlink(missing_ok=True)
    command = ("pip-audit", "--progress-spinner=off", "--timeout=10", "--skip-editable", "--format=json")
    session.run(*command, f"--output={report}", silent=True, success_codes=range(256))
    found = json.loads(report.read_text())["dependencies"] if report.exists() else []
    audited = [package for package in found if "vulns" in package and package["name"] != "planner-core"]
    bad = [f"{package['name']} {package['version']}" for package in audited if package["vulns"]]
    if bad:
        session.error(f"there are advisories against {', '.join(bad)}: see `pip-audit`")
    if not audited:
        session.warn("NOT AUDITED: no advisories could be had, so nothing is known of the packages' holes")
    else:
        session.log(f"no advisory against {len(audited)} of {len(found)} packages")


ON_REQUEST = {"closed_loop", "report_page", "simulators_agree", "tick_against_original", "whole_round"}
"""Benchmarks that take hours, or something beside ours: another planner, a browser, a Prometheus."""


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks, or those named: `nox -s bench -- tick`. They report; they gate nothing."""
    session.install(".[cli,dashboard,kubernetes,prometheus]", "playwright>=1.49")
    for script in sorted(Path("benchmarks").glob("[!_]*.py")):
        if script.stem in session.posargs if session.posargs else script.stem not in ON_REQUEST:
            session.run("python", str(script))
