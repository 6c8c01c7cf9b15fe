"""Compare the predictors on a series of past traffic: each forecasts every step from what came before it.

A series is a CSV with a time and a value column (t_s,value; timestamp,requests; ...), plain or gzipped; of a
request trace (arrival_s, ...) the requests per interval are counted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import attrs

from planner_adapters.backtest.evaluation import BacktestRow, Forecasts, check_warmup, compare, roll
from planner_adapters.backtest.plot import write_plot
from planner_adapters.backtest.reading import load_series
from planner_adapters.backtest.series import Series, SeriesError
from planner_adapters.cli.terminal import page_file, print_table, progress
from planner_core.predictors import BY_NAME, Log1p, Predictor

HELP = "compare the predictors on a series: errors, intervals and time"

SLOW = ("prophet",)
"""Predictors that run only if they are named."""
HEADER = ("", "MAE", "÷ last", "RMSE", "MASE", "pinball .5", ".9", ".95", "in 90 %", "ms/tick")
USUAL = tuple(name for name in BY_NAME if name not in SLOW)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``planner backtest``."""
    add = parser.add_argument
    add("series", metavar="SERIES", help="CSV or request trace, plain or gzipped")
    add("--time-column", metavar="NAME", help="default: found by its name, such as t_s or timestamp")
    add("--value-column", metavar="NAME", help="default: found by its name, such as value or requests")
    add(
        "--interval-s",
        type=float,
        metavar="S",
        help="of a step (default: the series' own step, or 180 if that is shorter and 100 steps are left)",
    )
    add(
        "--aggregate",
        choices=("sum", "mean"),
        help="values of an interval (default: sum of counts such as requests, mean of others)",
    )
    add(
        "--horizon",
        type=_horizons,
        default=(1,),
        metavar="STEPS",
        help="steps ahead that are forecast; 1,3 does both (default: 1)",
    )
    add(
        "--predictors",
        type=_names,
        default=USUAL,
        metavar="NAMES",
        help=f"of {', '.join(BY_NAME)} (default: all but {', '.join(SLOW)})",
    )
    add(
        "--warmup",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="of the series that teaches and isn't scored (default: %(default)s)",
    )
    add("--log1p", action="store_true", help="let the predictors see log(1 + value)")
    add("--json", action="store_true", help="print one JSON list")
    add("--plot", type=page_file, metavar="FILE.html", help="draw forecasts and truth")


def run(arguments: argparse.Namespace) -> int:
    """Forecasts, compares and prints."""
    check_warmup(arguments.warmup)
    predictors = {name: _predictor(name, log1p=arguments.log1p) for name in arguments.predictors}
    series = load_series(
        arguments.series,
        time_column=arguments.time_column,
        value_column=arguments.value_column,
        interval_s=arguments.interval_s,
        add=None if arguments.aggregate is None else arguments.aggregate == "sum",
    )
    if max(arguments.horizon) >= len(series):
        raise SeriesError(
            f"{arguments.series}: has {len(series):,} intervals of {series.interval_s:g} s, no more than the horizon "
            f"of {max(arguments.horizon):,}; take a longer series, or a shorter interval or horizon"
        )
    forecasts: dict[str, Forecasts] = {}
    with progress(f"backtest {series.name}", len(predictors) * len(series), shown=not arguments.json) as show:
        for name, predictor in predictors.items():
            done = len(forecasts) * len(series)
            on_step = partial(_move, show, done)
            forecasts[name] = roll(predictor, series.values, horizons=arguments.horizon, on_step=on_step)
    rows = compare(series.values, forecasts, warmup=arguments.warmup)
    if rows[0].mae is None:
        raise SeriesError(
            f"{arguments.series}: nothing can be scored in {len(series)} intervals of {series.interval_s:g} s; "
            "take a longer series, a shorter interval, horizon or warm-up"
        )
    if arguments.json:
        print(json.dumps([attrs.asdict(row) | {"interval_s": series.interval_s} for row in rows]))  # noqa: T201
    else:
        _print(series, rows, log1p=arguments.log1p)
    if arguments.plot:
        title = f"{series.name}: forecast and truth, {arguments.horizon[0]} × {series.interval_s:g} s ahead"
        write_plot(
            arguments.plot,
            series,
            forecasts,
            title=title,
            warmup=arguments.warmup,
            shown=(rows[0].predictor,),
        )
    return 0


def _horizons(text: str) -> tuple[int, ...]:
    try:
        horizons = tuple(sorted(int(part) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of steps: write 1, or 1,3") from None
    if min(horizons) < 1 or len(set(horizons)) < len(horizons):
        raise argparse.ArgumentTypeError(f"{text!r}: must be different numbers of at least 1")
    return horizons


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().replace("-", "_") for name in text.split(",")))
    for name in names:
        if name not in BY_NAME:
            raise argparse.ArgumentTypeError(
                f"there is no predictor {name!r}; there are {', '.join(BY_NAME)}"
            )
    return names


def _predictor(name: str, *, log1p: bool) -> Predictor[Any]:
    predictor: Predictor[Any] = BY_NAME[name]()
    return Log1p(predictor) if log1p else predictor


def _move(show: Callable[[float], None], done: int, step: int) -> None:
    show(done + step + 1)


def _print(series: Series, rows: Sequence[BacktestRow], *, log1p: bool) -> None:
    unknown = len(series) - series.num_known
    title = f"{series.name}: {len(series):,} intervals of {series.interval_s:g} s"
    title += f", {unknown:,} not known" if unknown else ""
    title += ", on logarithms" if log1p else ""
    for horizon, group in groupby(rows, key=lambda row: row.horizon):
        of_horizon = list(group)
        most = max(row.num_scored for row in of_horizon)
        print_table(
            f"{title}; {horizon} ahead, {most:,} scored",
            (_cells(row, best=row is of_horizon[0]) for row in of_horizon),
            [
                f"{row.predictor} was ready for {row.num_scored:,} of the {most:,}: its errors are of those alone"
                for row in of_horizon
                if row.num_scored < most
            ],
            HEADER,
        )


def _cells(row: BacktestRow, *, best: bool) -> list[str]:
    errors = (row.mae, row.mae_ratio, row.rmse, row.mase, row.pinball_50, row.pinball_90, row.pinball_95)
    coverage = "–" if row.coverage_90 is None else f"{row.coverage_90:.1%}"
    name = f"{row.predictor} ★" if best else row.predictor
    return [name, *map(_number, errors), coverage, _number(row.ms_per_tick)]


def _number(value: float | None) -> str:
    """Four digits of it, or what stands before the point."""
    if value is None:
        return "–"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if value >= 1e-3 or value == 0 else f"{value:.1e}"
