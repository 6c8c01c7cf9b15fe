from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_adapters.backtest import (
    BacktestRow,
    SeriesError,
    backtest,
    compare,
    count_arrivals,
    load_series,
    resample,
    roll,
)
from planner_adapters.simulation.workload import WorkloadError
from planner_core import ConfigError
from planner_core.predictors import Constant, Forecast, Kalman

NAN = math.nan


@attrs.frozen
class Drift:
    """Adds 1 per step to the last value, and is as unsure as it is told to be; ready after a few values."""

    std: float = 0.0
    ready_after: int = 1

    def init(self) -> tuple[float, ...]:
        return ()

    def observe(self, state: tuple[float, ...], value: float) -> tuple[float, ...]:
        return (*state, value)

    def forecast(self, state: tuple[float, ...], steps: int = 1) -> Forecast | None:
        if len(state) < self.ready_after:
            return None
        return Forecast(mean=state[-1] + np.arange(1, steps + 1), std=np.full(steps, self.std))


def row_of(predictor: Any, values: Any, **options: Any) -> BacktestRow:
    (row,) = backtest(values, {"p": predictor}, **options)
    return row


# The figures


def test_figures_are_those_that_a_hand_computes() -> None:
    # Forecasts 3, 5, 3, 7 of 4, 2, 6, 6: errors 1, -3, 3, -1.
    row = row_of(Drift(std=2.0), [2, 4, 2, 6, 6], warmup=0.0)
    assert row.num_scored == 4
    assert row.mae == 2
    assert row.rmse == pytest.approx(math.sqrt(5))
    assert row.mae_ratio == 2 / ((2 + 2 + 4 + 0) / 4)
    above = 2 * 1.2815515655446004
    expected = [0.1 * (above - 1), 0.1 * (above + 3), 0.9 * (3 - above), 0.1 * (above + 1)]
    assert row.pinball_90 == pytest.approx(np.mean(expected))
    assert row.coverage_90 == 1.0  # ± 3.29
    assert row_of(Drift(std=1.0), [2, 4, 2, 6, 6], warmup=0.0).coverage_90 == 0.5  # ± 1.645


def test_the_interval_is_cut_off_at_zero() -> None:
    made = roll(Drift(std=10.0), [1, 0, 0])
    low, high = made.interval_90()
    assert low[0, 1:].tolist() == [0, 0]
    assert (high[0, 1:] > 10).all()


def test_mase_is_scaled_by_the_last_values_error_in_the_warm_up() -> None:
    row = row_of(Constant(), [0, 2, 1, 4, 4, 10, 10, 10, 10, 12], warmup=0.5)
    assert row.mae == (6 + 0 + 0 + 0 + 2) / 5
    assert row.mase == row.mae / ((2 + 1 + 3 + 0) / 4)
    assert row_of(Constant(), [5, 5, 5, 5, 6, 7], warmup=0.5).mase is None  # the scale is zero


def test_constant_agrees_with_one_line_of_numpy(shared_data: Path) -> None:
    values = load_series(shared_data / "rates" / "azure24_code_1week_10s.csv.gz").values
    assert len(values) == 3360  # 180 s of a week
    first = len(values) // 5
    one, three = backtest(values, {"constant": Constant()}, horizons=(1, 3))
    assert one.mae == pytest.approx(np.abs(np.diff(values))[first - 1 :].mean())
    assert three.mae == pytest.approx(np.abs(values[3:] - values[:-3])[first - 3 :].mean())
    assert one.mae_ratio == three.mae_ratio == 1
    assert one.num_scored == three.num_scored == len(values) - first


@given(st.lists(st.floats(0, 1e6), min_size=10, max_size=40))
def test_the_medians_pinball_loss_is_half_the_mae(values: list[float]) -> None:
    row = row_of(Constant(), values)
    assert row.mae is not None
    assert row.pinball_50 == pytest.approx(row.mae / 2)


def test_rows_come_by_horizon_and_error() -> None:
    values = np.arange(40.0)
    rows = backtest(values, {"constant": Constant(), "drift": Drift()}, horizons=(3, 1))
    assert [(row.horizon, row.predictor) for row in rows] == [
        (1, "drift"),
        (1, "constant"),
        (3, "drift"),
        (3, "constant"),
    ]
    assert [row.mae for row in rows] == [0, 1, 0, 3]


def test_who_was_hardly_scored_ranks_last() -> None:
    rows = backtest(np.arange(40.0), {"late": Drift(ready_after=20), "constant": Constant()})
    assert [(row.predictor, row.num_scored) for row in rows] == [("constant", 32), ("late", 20)]
    never = row_of(Drift(ready_after=99), np.arange(40.0))
    assert (never.mae, never.coverage_90, never.num_scored) == (None, None, 0)


# The steps


def test_each_forecast_stands_at_the_step_that_it_is_of() -> None:
    made = roll(Drift(), [10, 20, 30, 40, 50], horizons=(1, 3))
    np.testing.assert_array_equal(made.mean[0], [NAN, 11, 21, 31, 41])
    np.testing.assert_array_equal(made.mean[1], [NAN, NAN, NAN, 13, 23])


@pytest.mark.parametrize("predictor", [Constant(), Drift(), Kalman()])
@given(
    past=st.lists(st.floats(0, 1e6) | st.just(NAN), min_size=1, max_size=30),
    futures=st.tuples(*[st.lists(st.floats(0, 1e6) | st.just(NAN), min_size=5, max_size=5)] * 2),
)
def test_the_future_changes_no_forecast_made_before_it(
    predictor: Any, past: list[float], futures: tuple[list[float], list[float]]
) -> None:
    one, other = (roll(predictor, past + future, horizons=(1, 3)) for future in futures)
    for place, horizon in enumerate((1, 3)):
        made_before = len(past) + horizon
        np.testing.assert_array_equal(one.mean[place, :made_before], other.mean[place, :made_before])
        np.testing.assert_array_equal(one.std[place, :made_before], other.std[place, :made_before])


def test_what_is_not_known_is_neither_observed_nor_scored() -> None:
    known = [1, 2, NAN, NAN, 5, 6, 7, 8, 9, 10]
    made = roll(Drift(), known)
    assert len(made.tick_ms) == 8
    np.testing.assert_array_equal(made.mean[0], [NAN, *range(2, 11)])  # its own forecasts lead across
    row = row_of(Drift(), known, warmup=0.0)
    assert (row.num_scored, row.mae) == (7, 0)
    assert row_of(Constant(), [1, 2, NAN, 3], warmup=0.0).mae == 1


def test_a_long_outage_is_not_filled_in() -> None:
    made = roll(Drift(), [1, *[NAN] * 500, 1, 1])
    assert made.mean[0, 500] == made.mean[0, 300]
    assert made.mean[0, -1] == 2


def test_the_first_values_of_a_series_may_be_unknown() -> None:
    assert row_of(Constant(), [NAN, NAN, 1, 1, 2], warmup=0.0).mae == 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"horizons": ()}, "horizons"),
        ({"horizons": (0,)}, "horizons"),
        ({"horizons": (1, 1)}, "horizons"),
        ({"warmup": 1.0}, "warmup"),
        ({"warmup": NAN}, "warmup"),
        ({"values": [1, -1]}, "values"),
        ({"values": [1, math.inf]}, "values"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        backtest(**{"values": [1, 2, 3], "predictors": {"c": Constant()}, **options})


def test_nothing_compared_is_no_row() -> None:
    assert compare([1, 2, 3], {}) == ()


# The series


def test_a_series_keeps_its_own_step_unless_it_is_finer_than_the_planners_interval() -> None:
    assert resample("s", np.arange(50) * 300.0, np.ones(50)).interval_s == 300
    assert resample("s", np.arange(50) * 10.0, np.ones(50)).interval_s == 10  # too short for 180 s
    assert resample("s", np.arange(1800) * 10.0, np.ones(1800)).interval_s == 180


def test_counts_add_up_and_rates_are_averaged() -> None:
    time_s, values = np.arange(60) * 10.0, np.arange(60.0)
    expected = values.reshape(20, 3)
    added = resample("s", time_s, values, 30, add=True)
    np.testing.assert_allclose(added.values, expected.sum(axis=1))
    np.testing.assert_allclose(resample("s", time_s, values, 30).values, expected.mean(axis=1))


def test_an_interval_of_which_less_than_half_is_known_is_not_known() -> None:
    values = np.full(60, 4.0)
    values[[0, 1, 5, *range(10, 20)]] = NAN
    rows = np.ones(60, dtype=bool)
    rows[40:45] = False  # rows that are missing altogether
    series = resample("s", np.arange(60)[rows] * 10.0, values[rows], 40, add=True)
    expected = [16, 16, 16, NAN, NAN, 16, 16, 16, 16, 16, NAN, 16, 16, 16, 16]
    np.testing.assert_array_equal(series.values, expected)
    assert series.num_known == 12


def test_jitter_moves_no_sample_to_another_interval() -> None:
    jitter = np.tile([0.0, -3.0, 3.0, 1.0], 25)
    series = resample("s", np.arange(100) * 15.0 + jitter, np.arange(100.0), 15)
    np.testing.assert_array_equal(series.values, np.arange(100.0))


def test_arrivals_are_counted_and_a_silence_is_a_zero() -> None:
    arrival_s = np.sort(np.concatenate([np.arange(0, 50, 0.5), np.arange(80, 121, 0.5)]))
    series = count_arrivals("t", arrival_s, 10)
    assert series.values.tolist() == [20] * 5 + [0] * 3 + [20] * 4
    assert count_arrivals("t", arrival_s).interval_s == 1


# Files


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_columns_are_found_by_their_names_or_given(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i * 60},{i + 1}\n" for i in range(20))
    path = write(tmp_path / "s.csv", "other,t_s,requests\n" + rows)
    series = load_series(path)
    assert (series.name, series.interval_s, series.values[-1]) == ("s", 60, 20)
    assert load_series(path, value_column="other").values[-1] == 19
    two = write(tmp_path / "two.csv", "Time,gpu_load\n" + "".join(f"{i},{i}\n" for i in range(20)))
    assert load_series(two).values[-1] == 19


@pytest.mark.parametrize(
    "written",
    [
        lambda s: str(s),
        lambda s: str(s * 1000),
        lambda s: datetime.fromtimestamp(s, UTC).isoformat(),
        lambda s: datetime.fromtimestamp(s, UTC).strftime("%Y-%m-%d %H:%M:%S"),  # without a zone
        lambda s: datetime.fromtimestamp(s, timezone(timedelta(hours=9))).isoformat(),
    ],
    ids=["seconds", "milliseconds", "UTC", "no zone", "Tokyo"],
)
def test_times_are_seconds_milliseconds_or_dates(tmp_path: Path, written: Callable[[int], str]) -> None:
    rows = "".join(f"{written(1768000000 + 300 * i)},{i}\n" for i in range(20))
    series = load_series(write(tmp_path / "s.csv", "timestamp,value\n" + rows))
    assert (series.start_s, series.interval_s, len(series)) == (1768000000, 300, 20)


def test_an_empty_value_is_not_known(tmp_path: Path) -> None:
    cells = ["1", "", "NaN", "null", " 2 ", *"345678901"]
    path = write(tmp_path / "s.csv", "t_s,value\n" + "".join(f"{i},{c}\n" for i, c in enumerate(cells)))
    np.testing.assert_array_equal(load_series(path).values[:5], [1, NAN, NAN, NAN, 2])


def test_a_row_that_was_not_collected_is_not_known_whatever_stands_in_it(tmp_path: Path) -> None:
    gaps = ["0", "1", "TRUE", "false", "", "yes", *"0000000"]
    rows = "".join(f"{i},{i},{gap}\n" for i, gap in enumerate(gaps))
    series = load_series(write(tmp_path / "s.csv", "t_s,requests,Gap\n" + rows))
    np.testing.assert_array_equal(series.values[:6], [0, NAN, NAN, 3, 4, NAN])
    itself = load_series(
        write(tmp_path / "gap.csv", "t_s,gap\n" + "".join(f"{i},{i % 2}\n" for i in range(12)))
    )
    assert itself.values.tolist() == [0, 1] * 6


def test_a_request_trace_is_counted(tmp_path: Path, shared_data: Path) -> None:
    series = load_series(shared_data / "traces" / "azure23_conv.csv.gz", interval_s=60)
    assert len(series) == 58
    assert 0.9 * 19_366 < series.values.sum() <= 19_366
    lines = "".join(f'{{"timestamp": {i * 500}, "input_length": 9, "output_length": 9}}\n' for i in range(99))
    assert load_series(write(tmp_path / "m.jsonl", lines), interval_s=4).values.tolist() == [8] * 12
    azure = "".join(f"2023-11-16 18:15:{i:02}.1234567,9,9\n" for i in range(50))
    azure = load_series(write(tmp_path / "a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n" + azure))
    assert azure.values.tolist() == [1] * 49


@pytest.mark.parametrize(
    ("name", "count", "unknown"),
    [
        ("azure24_code_1week_10s", 3360, 0),
        ("nab_elb_request_count_5min", 4040, 8),
        ("servegen_m_mid_14d_10min", 2016, 84),
    ],
)
def test_real_series_are_read(shared_data: Path, name: str, count: int, unknown: int) -> None:
    series = load_series(shared_data / "rates" / f"{name}.csv.gz")
    assert (len(series), len(series) - series.num_known) == (count, unknown)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("t_s,value\n", "holds no row"),
        ("t_s,value\n0,1\n", "holds one row"),
        ("a,b,c\n1,2,3\n", "row 1: the header 'a,b,c' has no time column"),
        ("t_s,b,c\n1,2,3\n", "row 1: the header 't_s,b,c' has no value column"),
        ("t_s,value\n0,1\n\n20,x\n", "row 4: value = 'x' is no number"),
        ("t_s,value\n0,1\n20\n", "row 3: has 1 cells and none for value"),
        ("t_s,value,gap\n0,1,0\n20,1,some\n", "row 3: gap = 'some' is neither 1 nor 0"),
        ("t_s,value\n0,1\nsoon,2\n", "row 3: t_s = 'soon' is no number"),
        ("date,value\n2026-01-01,1\n5,2\n", "row 3: date = '5' is no date"),
        ("t_s,value\n0,1\nnan,2\n", "row 3: the time nan is not finite"),
        ("t_s,value\n0,1\n10,-4\n", "row 3: the value -4 is negative"),
        ("t_s,value\n0,1\n10,1e999\n", "row 3: the value inf is not finite"),
        ("t_s,value\n0,1\n20,1\n10,1\n", "row 4: is earlier than the row before"),
        ("t_s,value\n0,1\n0,1\n10,1\n", "row 3: has the time of the row before"),
        ("t_s,value\n0,1\n1,1\n2,1\n", "at least 10 are needed"),
        ("t_s,value\n0,1\n1,1\n2,1\n1e11,1\n", "look for a wrong time"),
        ("t_s,value\n0,1\x00\n1,1\n", "row 2: "),
    ],
)
def test_a_bad_file_gets_one_line_with_row_and_mend(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path / "bad.csv", text)
    with pytest.raises(SeriesError) as caught:
        load_series(path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_of_rows_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "cut.csv.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\xff")
    write(tmp_path / "trace.jsonl", '{"timestamp": 0}\n')
    for name, error, words in (
        ("cut.csv.gz", SeriesError, "gzip"),
        ("binary.csv", SeriesError, "is not text"),
        ("nowhere.csv", SeriesError, "can't be read"),
        ("trace.jsonl", WorkloadError, "row 1"),
    ):
        with pytest.raises(error, match=words):
            load_series(tmp_path / name)


def test_an_interval_that_cannot_be_is_refused() -> None:
    time_s, values = np.arange(20) * 60.0, np.ones(20)
    for interval_s, words in (
        (30, "shorter than the series' own step of 60 s"),
        (-1, "above 0"),
        (NAN, "finite"),
    ):
        with pytest.raises(SeriesError, match=words):
            resample("s", time_s, values, interval_s)
