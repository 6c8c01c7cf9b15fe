from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich", reason="the command line is an extra: pip install 'planner-core[cli]'")
pytest.importorskip("yaml", reason="the command line is an extra: pip install 'planner-core[cli]'")

from planner_adapters.cli import main
from planner_core.predictors import BY_NAME

PROMISED_KEYS = ["predictor", "mae", "rmse", "mase", "pinball_90", "coverage_90", "ms_per_tick"]
FAST = ("--predictors", "constant,kalman")


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A slow climb with a tooth, of five minutes a step."""
    path = tmp_path / "climb.csv"
    path.write_text("t_s,requests\n" + "".join(f"{i * 300},{100 + 5 * i + i % 3}\n" for i in range(120)))
    return path


# What comes out


def test_json_is_a_list_with_the_promised_keys_first_and_the_best_first(
    shown_json: Callable[..., Any], series: Path
) -> None:
    found = shown_json("backtest", series, *FAST)
    assert [list(row)[: len(PROMISED_KEYS)] for row in found] == [PROMISED_KEYS] * 2
    assert [row["predictor"] for row in found] == ["kalman", "constant"]
    assert found[0]["mae"] < found[1]["mae"]
    assert (found[0]["horizon"], found[0]["interval_s"], found[0]["num_scored"]) == (1, 300, 96)


def test_all_fast_predictors_run_unless_some_are_named(
    shown_json: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "short.csv"
    path.write_text("t_s,value\n" + "".join(f"{i * 300},{i % 5}\n" for i in range(15)))
    found = shown_json("backtest", path)
    assert {row["predictor"] for row in found} == set(BY_NAME) - {"prophet"}


def test_several_horizons_have_rows_of_their_own(shown_json: Callable[..., Any], series: Path) -> None:
    found = shown_json("backtest", series, "--predictors", "constant", "--horizon", "3,1")
    assert [(row["horizon"], round(row["mae"])) for row in found] == [(1, 5), (3, 15)]


def test_equal_runs_print_equal_figures_but_for_the_times(
    shown_json: Callable[..., Any], series: Path
) -> None:
    runs = [shown_json("backtest", series, *FAST) for _ in range(2)]
    for row in (*runs[0], *runs[1]):
        for key in ("ms_per_tick", "ms_per_tick_median", "ms_per_tick_max"):
            assert row.pop(key) >= 0
    assert runs[0] == runs[1]


def test_flags_reach_the_series(shown_json: Callable[..., Any], series: Path) -> None:
    def mae(*flags: object) -> float:
        (row,) = shown_json("backtest", series, "--predictors", "constant", *flags)
        return float(row["mae"])

    assert mae("--interval-s", 900) == pytest.approx(45)  # three values of which each grows by 15
    assert mae("--interval-s", 900, "--aggregate", "mean") == pytest.approx(15)
    assert mae("--value-column", "t_s") == 300
    assert mae("--warmup", 0.98) == (3 + 6 + 6) / 3


def test_the_table_has_every_figure_marks_the_best_and_has_no_colours_in_a_pipe(
    capsys: pytest.CaptureFixture[str], series: Path
) -> None:
    assert main(["backtest", str(series), *FAST]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert "climb: 120 intervals of 300 s; 1 ahead, 96 scored" in out
    for words in ("MAE", "RMSE", "MASE", "pinball .5", ".9", ".95", "in 90 %", "ms/tick"):
        assert words in out
    first, second = (line.split()[1:3] for line in out.splitlines() if line.startswith("│"))
    assert (first, second) == (["kalman", "★"], ["constant", "│"])


def test_on_logarithms_a_steady_growth_is_a_straight_line(
    shown_json: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "growth.csv"
    path.write_text("t_s,value\n" + "".join(f"{i * 300},{100 * 1.1**i}\n" for i in range(80)))
    (plain,) = shown_json("backtest", path, "--predictors", "kalman")
    (logs,) = shown_json("backtest", path, "--predictors", "kalman", "--log1p")
    assert logs["mae"] < plain["mae"] / 2


def test_a_real_series_is_backtested(shown_json: Callable[..., Any], shared_data: Path) -> None:
    found = shown_json("backtest", shared_data / "rates" / "servegen_m_mid_14d_10min.csv.gz", *FAST)
    assert all(0.8 < row["coverage_90"] < 0.98 for row in found)
    (constant,) = (row for row in found if row["predictor"] == "constant")
    assert constant["mae_ratio"] == 1


# The plot


def test_the_plot_is_one_page_that_needs_no_network(
    shown_json: Callable[..., Any], series: Path, tmp_path: Path
) -> None:
    page = tmp_path / "plot.html"
    shown_json("backtest", series, *FAST, "--plot", page)
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=(?!.data:)", text) == []
    for words in ("truth", "kalman", "constant", "90 % interval", "warm-up"):
        assert words in text


def test_the_plot_of_a_long_series_stays_small_and_says_what_it_leaves_out(
    shown_json: Callable[..., Any], tmp_path: Path
) -> None:
    path, page = tmp_path / "long.csv", tmp_path / "plot.html"
    path.write_text("t_s,value\n" + "".join(f"{i * 300},{i * i % 97}\n" for i in range(30_000)))
    shown_json("backtest", path, "--predictors", "constant", "--plot", page)
    assert page.stat().st_size < 3e6
    assert "of 30,000 points" in page.read_text(encoding="utf-8")


# What is refused


def test_a_bad_row_gets_one_line_with_file_row_and_mend(refused: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("t_s,value\n0,1\n300,-5\n")
    assert f"{path}, row 3: the value -5 is negative" in refused("backtest", path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.csv"], "nowhere.csv: can't be read"),
        (["--time-column", "when"], "row 1: the header has no 'when', it is 't_s,requests'"),
        (["--value-column", "what"], "mend --value-column"),
        (["--interval-s", "60"], "shorter than the series' own step of 300 s"),
        (["--interval-s", "-60"], "must be a finite number above 0"),
        (["--interval-s", "9000"], "at least 10 are needed"),
        (["--interval-s", "day"], "--interval-s"),
        (["--horizon", "0"], "--horizon"),
        (["--horizon", "1,x"], "write 1, or 1,3"),
        (["--horizon", "120"], "no more than the horizon of 120"),
        (["--predictors", "arma"], "there is no predictor 'arma'; there are "),
        (["--predictors", ""], "there is no predictor ''"),
        (["--warmup", "1"], "warmup = 1.0"),
        (["--plot", "no/such/folder/plot.html"], "no/such/folder/plot.html: can't be written"),
    ],
)
def test_a_bad_flag_gets_one_line(
    refused: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    series: Path,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = arguments if arguments[0].endswith(".csv") else [str(series), *arguments]
    assert words in refused("backtest", *given)


def test_a_series_that_no_predictor_is_ready_for_is_said_to_be(
    refused: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "short.csv"
    path.write_text("t_s,value\n" + "".join(f"{i * 300},{i}\n" for i in range(12)))
    assert "nothing can be scored" in refused("backtest", path, "--predictors", "seasonal_naive")


# As a process


# The progress bar shows on a terminal alone, and Windows has no `pty` to make one of.
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("flag", "seen"), [("--horizon=1", True), ("--json", False)])
def test_a_progress_bar_is_shown_to_people_only(series: Path, flag: str, seen: bool) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "planner_adapters.cli", "backtest", str(series), *FAST, flag]
    with open(ours, "rb", buffering=0) as terminal:
        run = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"}
        )
        os.set_blocking(ours, False)
        drawn = terminal.read(100_000) or b""
        os.close(theirs)
    assert run.returncode == 0
    assert (b"backtest climb" in drawn) is seen
