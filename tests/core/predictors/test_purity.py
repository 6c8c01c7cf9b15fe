"""A predictor computes and does nothing else; what it needs for that is imported when it is built."""

from __future__ import annotations

import subprocess
import sys

import pytest

from planner_core.codec import from_data, to_data
from planner_core.predictors import BY_NAME, Log1p, SkipIdle

UNDER_AUDIT = """
import sys
from planner_core.predictors import *
name = sys.argv[1]
predictor = BY_NAME[name](**({"period": 8} if name == "seasonal_naive" else {}))
events = []
watching = False
sys.addaudithook(lambda event, args: events.append((event, args)) if watching else None)
watching = True
state = predictor.init()
for number in range(50):
    state = predictor.observe(state, 50.0 + number % 8 + number % 3)
    predictor.forecast(state, 3)
watching = False
print(*events[:5])
"""
WITHOUT = """
import sys
sys.modules[sys.argv[2]] = None
from planner_core import MissingExtraError
from planner_core.predictors import BY_NAME
try:
    BY_NAME[sys.argv[1]]()
except MissingExtraError as error:
    print(error)
"""


def python(code: str, *arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code, *arguments], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "prophet"])
def test_a_predictor_touches_nothing_outside_itself(name: str) -> None:
    if name in ("arima", "holt_winters"):
        pytest.importorskip("statsmodels")
    assert python(UNDER_AUDIT, name) == ""


@pytest.mark.parametrize(
    ("name", "package"), [("arima", "statsmodels"), ("holt_winters", "statsmodels"), ("prophet", "prophet")]
)
def test_a_missing_package_is_named_when_the_predictor_is_built(name: str, package: str) -> None:
    predictor = BY_NAME[name].__name__
    assert python(WITHOUT, name, package) == f"{predictor} needs {package}: pip install {package}"


@pytest.mark.parametrize("name", ["constant", "kalman", "lag_regression", "seasonal_naive", "ensemble"])
def test_what_is_the_default_needs_nothing_heavy(name: str) -> None:
    code = (
        "import sys; from planner_core.predictors import BY_NAME; BY_NAME[sys.argv[1]](); print(*sys.modules)"
    )
    assert not {"statsmodels", "prophet", "filterpy", "pandas", "scipy"} & set(python(code, name).split())


@pytest.mark.parametrize("name", ["constant", "kalman", "lag_regression", "seasonal_naive", "ensemble"])
@pytest.mark.parametrize("wrap", [None, Log1p, SkipIdle], ids=["bare", "Log1p", "SkipIdle"])
def test_predictors_and_what_they_know_travel_as_json(name: str, wrap: type | None) -> None:
    predictor = BY_NAME[name]() if wrap is None else wrap(BY_NAME[name]())
    state = predictor.init()
    for number in range(60):
        state = predictor.observe(state, 50.0 + number % 8)
    assert from_data(to_data(predictor), type(predictor)) == predictor
    again = from_data(to_data(state), type(state))
    assert again == state
    assert predictor.forecast(again, 9) == predictor.forecast(state, 9)
    assert predictor.observe(again, 1.0) == predictor.observe(state, 1.0)
