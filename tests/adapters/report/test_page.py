from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from planner_adapters.cli import main
from planner_adapters.journal import Journal
from planner_adapters.report import PeriodicReport, html_of, series_of, write_report
from planner_core import PlannerConfig, ShellSettings

Run = Callable[..., Any]
MOST_BYTES = 15_000_000
WEEK = 7 * 24 * 3600 // 5


def data_in(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_hostile_strings_stay_text(noisy_run: Run, hostile: tuple[str, ...]) -> None:
    shell = ShellSettings(model_name=hostile[0], namespace=hostile[1])
    html = html_of(series_of(noisy_run(3, notes=hostile, shell=shell)), title=hostile[0])
    without_scripts = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    for text in ("<script", "<img", "<!--", '<a href="java'):
        assert text not in without_scripts
    data = data_in(html)  # up to the first end of a script element
    assert hostile[0] in data["facts"]["about"]
    for text in hostile:
        assert text in data["now"]["latest"][0]["sentence"]


def test_what_scripts_may_run_is_said_by_their_hashes(noisy_run: Run) -> None:
    html = html_of(series_of(noisy_run(2)))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'")
    assert len(re.findall("'sha256-", policy[1])) == 3
    assert "unsafe" not in policy[1].split("script-src")[1]


def test_plotly_is_the_file_that_its_note_names(project_root: Path) -> None:
    folder = project_root / "adapters/planner_adapters/report/plotly_js"
    bundle, note = (folder / name for name in ("plotly-basic.min.js", "README.md"))
    assert hashlib.sha256(bundle.read_bytes()).hexdigest() in note.read_text(encoding="utf-8")


@pytest.mark.parametrize("num_ticks", [6000, pytest.param(WEEK, marks=pytest.mark.nightly)])
def test_a_week_in_which_everything_changes_all_the_time_is_less_than_15_mb(
    noisy_run: Run, num_ticks: int
) -> None:
    notes = ("one engine of three hasn't reported for 125 s: worker-7f9c6d-x2v4k",)
    series = series_of(noisy_run(num_ticks, notes=notes))
    assert series.totals["ticks"] == num_ticks
    assert len(html_of(series).encode()) < MOST_BYTES


def test_explanations_without_end_are_cut(noisy_run: Run) -> None:
    html = html_of(series_of(noisy_run(3000, notes=("endless " * 1000,))))
    assert len(html.encode()) < MOST_BYTES


def test_equal_series_are_equal_pages(noisy_run: Run) -> None:
    assert html_of(series_of(noisy_run(50))) == html_of(series_of(noisy_run(50)))


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    write_report(tmp_path / "empty.html", series_of([]))
    assert data_in((tmp_path / "empty.html").read_text())["curves"] == {}


def test_reports_come_after_so_many_hours_of_tick_time(
    noisy_run: Run, config: PlannerConfig, tmp_path: Path
) -> None:
    shell = ShellSettings(report_interval_hours=0.1, report_output_dir=str(tmp_path / "reports"))
    with PeriodicReport(attrs.evolve(config, shell=shell)) as report:
        for tick in noisy_run(160, start_s=0.0):
            report.add(*tick)
    names = ["planner_00000005s.html", "planner_00000365s.html", "planner_00000725s.html"]
    assert [path.name for path in report.written] == names
    shown = [data_in(path.read_text())["now"]["cards"][3][1] for path in report.written]
    assert shown == ["72", "72", "16"]
    assert report.problem is None


def test_a_report_that_cannot_be_written_is_a_problem_and_stops_nothing(
    noisy_run: Run, config: PlannerConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    shell = ShellSettings(report_interval_hours=0.1, report_output_dir=str(tmp_path / "file"))
    with PeriodicReport(attrs.evolve(config, shell=shell)) as report:
        for tick in noisy_run(80):
            report.add(*tick)
    assert report.problem is not None
    assert str(tmp_path / "file") in report.problem


def test_without_an_interval_nothing_is_written(
    noisy_run: Run, config: PlannerConfig, tmp_path: Path
) -> None:
    shell = ShellSettings(report_interval_hours=None, report_output_dir=str(tmp_path / "reports"))
    with PeriodicReport(attrs.evolve(config, shell=shell)) as report:
        for tick in noisy_run(20):
            report.add(*tick)
    assert not (tmp_path / "reports").exists()


@pytest.fixture
def journal(noisy_run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for tick in noisy_run(40, start_s=0.0):
            journal.append(*tick)
    return path


def test_planner_report_writes_the_page(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = journal.with_suffix(".html")
    assert (
        main(["report", str(journal), "-o", str(page), "--from", "50", "--to", "150", "--title", "A & B"])
        == 0
    )
    html = page.read_text()
    assert "<h1>A &amp; B</h1>" in html
    assert data_in(html)["now"]["cards"][3][1] == "21"
    assert "21 ticks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent.jsonl"], "absent.jsonl: can't be read"),
        (["journal.jsonl", "--from", "1e6"], "has no tick in that time; it holds 40"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str],
    says: str,
    journal: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(journal.parent)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_page_that_cannot_be_written_is_named_before_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["report", "absent.jsonl", "-o", "absent/page.html"])
    error = capsys.readouterr().err
    assert "absent/page.html: can't be written" in error
    assert error.count("\n") == 1
