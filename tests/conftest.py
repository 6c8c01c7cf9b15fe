from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]

# No deadline and no health check of speed: a slow machine is not a wrong planner. In CI the examples are
# derived from the test alone, so that a failure there is a failure here.
settings.register_profile(
    "normal",
    derandomize="CI" in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("nightly", settings.get_profile("normal"), max_examples=10_000)
settings.register_profile("quick", settings.get_profile("normal"), max_examples=10)


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores interrupts, and so would the commands that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.getoption("--hypothesis-profile"):
        nightly = config.getoption("markexpr") == "nightly"
        settings.load_profile("nightly" if nightly else "normal")


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real traces, profiles and rates, which lies beside the project and not in it."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        # The traces have licences of their own and stay outside the project; whoever clones it alone has none.
        pytest.skip("needs the real traces of ../shared/data, which is not there")
    return path
