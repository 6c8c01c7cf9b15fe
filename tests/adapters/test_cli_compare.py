from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich", reason="the command line is an extra: pip install 'planner-core[cli]'")
pytest.importorskip("yaml", reason="the command line is an extra: pip install 'planner-core[cli]'")

from planner_adapters.cli import main

HEADER = "arrival_s,input_tokens,output_tokens\n"
FEW = ("--policies", "planner,static,oracle", "--workers", "1", "--mode", "agg", "--startup-s", "20")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Two minutes of ten requests a second."""
    path = tmp_path / "trace.csv"
    path.write_text(HEADER + "".join(f"{i / 10},2000,20\n" for i in range(1200)))
    return path


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DYN_NAMESPACE", "PROMETHEUS_ENDPOINT", "PLANNER_PROMETHEUS_PORT"):
        monkeypatch.delenv(variable, raising=False)


# What comes out


def test_json_is_one_list_of_runs(shown_json: Callable[..., Any], trace: Path) -> None:
    found = shown_json("compare", trace, *FEW)
    assert {row["policy"] for row in found} == {"planner", "static", "oracle"}
    for row in found:
        assert {"trace", "params", "sla_attainment", "gpu_hours", "direction_changes"} <= row.keys()
        assert (row["trace"], row["requests"]) == ("trace", 1200)


def test_workers_change_nothing_but_the_time(shown_json: Callable[..., Any], trace: Path) -> None:
    assert shown_json("compare", trace, *FEW) == shown_json("compare", trace, *FEW, "--workers", 2)


def test_the_table_shows_every_policy_and_the_bound(capsys: pytest.CaptureFixture[str], trace: Path) -> None:
    assert main(["compare", str(trace), *FEW]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    for words in (
        "planner ★",
        "oracle ★",
        "static",
        "GPU-hours",
        "÷ oracle",
        "no policy can stay below",
        "than planner ★: ",
    ):
        assert words in out
    assert max(map(len, out.splitlines())) <= 120


def test_traces_are_compared_one_after_the_other(
    shown_json: Callable[..., Any], trace: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.csv").write_text(HEADER + "".join(f"{i / 2},500,20\n" for i in range(100)))
    found = shown_json("compare", trace, tmp_path / "other.csv", *FEW)
    assert list(dict.fromkeys(row["trace"] for row in found)) == ["trace", "other"]


def test_arrivals_are_scaled_and_cut(shown_json: Callable[..., Any], trace: Path) -> None:
    few = ("--policies", "planner", *FEW[2:])
    (row, *_) = shown_json("compare", trace, *few, "--scale", 2, "--minutes", 1)
    assert (row["trace"], row["requests"]) == ("trace x2", 1200)


def test_the_planner_runs_as_it_is_meant_to(shown_json: Callable[..., Any], trace: Path) -> None:
    """Target sla with both loops, without a budget, over its one headroom knob."""
    few = ("--policies", "planner", *FEW[2:])
    found = shown_json("compare", trace, *few)
    assert [row["params"]["sla_quantile"] for row in found] == [None, 0.9, 0.95, 0.999]
    assert [row["is_default"] for row in found] == [True, False, False, False]


def test_a_budget_holds_for_every_policy(shown_json: Callable[..., Any], trace: Path) -> None:
    found = shown_json(
        "compare", trace, "--workers", 1, "--mode", "agg", "--max-gpus", 2, "--scale", 6, "--minutes", 1,
        "--policies", "planner,hpa-queue,keda,kpa,unit,oracle",
    )  # fmt: skip
    assert {row["peak_replicas"] for row in found} <= {1, 2}


def test_the_page_is_written(shown_json: Callable[..., Any], trace: Path, tmp_path: Path) -> None:
    shown_json("compare", trace, *FEW, "--html", tmp_path / "page.html")
    assert "Replicas over the load" in (tmp_path / "page.html").read_text(encoding="utf-8")


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.csv"], "nowhere.csv: can't be read"),
        ([], "TRACE"),
        (["trace.csv", "--policies", "planner,hpx"], "no policy 'hpx'; there are planner, static"),
        (["trace.csv", "--workers", "0"], "must be a whole number of at least 1"),
        (["trace.csv", "--scale", "0"], "--scale 0: must be above 0"),
        (["trace.csv", "--minutes", "nan"], "--minutes nan: must be above 0"),
        (["trace.csv", "--window-s", "-1"], "--window-s -1: must be above 0"),
        (["trace.csv", "trace.csv"], "a trace of the name trace is there already"),
        (["trace.csv", "--html", "no/such/folder/page.html"], "can't be written"),
        (["trace.csv", "--set", "load_predicter=arima"], "did you mean load_predictor?"),
        (["trace.csv", "--ttft-ms", "-5"], "ttft_ms = -5"),
        (["trace.csv", "--profile", "nowhere.npz"], "nowhere.npz: no such file"),
        (["trace.csv", "--replicas", "agg=2"], "mode = 'disagg' has prefill and decode alone"),
    ],
)
def test_bad_input_gets_one_line(
    refused: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    trace: Path,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(trace.parent)
    assert words in refused("compare", *arguments)


# As a process


def planner(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "planner_adapters.cli", "compare", *map(str, arguments)]


# Only the progress bar tells that work has begun; it shows on a terminal alone, and Windows has no `pty` to make one.
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_control_c_ends_it_and_its_processes_without_a_traceback(trace: Path) -> None:
    ours, theirs = pty.openpty()  # the bar says when the work has begun
    run = subprocess.Popen(
        planner(trace, "--scale", 6, "--workers", 2),
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
        start_new_session=True,
    )
    os.close(theirs)
    with open(ours, "rb", buffering=0) as terminal:
        assert terminal.read(1)
        time.sleep(0.5)
        os.killpg(run.pid, signal.SIGINT)
        out, _ = run.communicate()
        os.set_blocking(ours, False)
        told = terminal.read(100_000) or b""
    assert (run.returncode, out) == (130, b"")
    assert b"Traceback" not in told
    assert b"planner: interrupted" in told
