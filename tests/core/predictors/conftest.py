"""Where a package that a predictor needs isn't installed, its tests have nothing to say; the others run."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = (
    []
    if all(find_spec(name) for name in ("statsmodels", "filterpy", "prophet"))
    else ["test_arima.py", "test_kalman.py", "test_purity.py", "test_seasons.py", "test_spread.py"]
)
