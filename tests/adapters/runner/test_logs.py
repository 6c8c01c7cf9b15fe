from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_adapters.runner.logs import MAX_VALUE, LogfmtFormatter, decision_line, log, logfmt
from planner_core import FpmBatch, PlannerConfig, Role, TickInput, WorkerCounts, initial_state, tick


def test_a_line_reads_like_one() -> None:
    line = logfmt("reloaded", at_s=5.0, gpus=8, advisory=True, nothing=None, why="it's time")
    assert line == """event=reloaded at_s=5.000 gpus=8 advisory=true why="it's time\""""


@given(st.text())
def test_no_value_breaks_its_line_or_forges_a_field(text: str) -> None:
    line = logfmt("x", value=text)
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert " level=" not in line.split('"')[0]


@pytest.mark.parametrize(
    "name",
    [
        'pod"\nevent=decision agg=99',
        "\x1b[2Jgone",
        "a\u2028b",
        "\u202egnp.exe",
        "\udc80half",
        "\x00",
        "a\r\nb",
    ],
)
def test_a_hostile_engine_stays_on_its_line(name: str) -> None:
    config = PlannerConfig.from_mapping({"mode": "agg"})
    inputs = TickInput(
        config=config,
        state=initial_state(config, 0.0),
        now_s=5.0,
        workers={Role.AGG: WorkerCounts(ready=2)},
        fpm={Role.AGG: FpmBatch(worker_id=[name], wall_time_s=[0.01])},
    )
    line = decision_line(5.0, tick(inputs), unfed=name)
    assert line.isprintable()
    assert line.count("event=") == 1 + name.count("event=")
    assert line.startswith("event=decision at_s=5.000 ")


def test_a_long_value_is_cut() -> None:
    line = logfmt("x", value="a" * 1_000_000)
    assert len(line) < MAX_VALUE + 100
    assert "(996000 more)" in line


def test_a_foreign_library_gets_one_line_too() -> None:
    foreign = logging.LogRecord("httpx", logging.WARNING, "", 1, "two\n%s", ("lines",), None)
    line = LogfmtFormatter().format(foreign)
    assert line.endswith(r'level=WARNING event=log logger=httpx message="two\nlines"')
    ours = logging.LogRecord(log.name, logging.INFO, "", 1, "event=begin", (), None)
    assert LogfmtFormatter().format(ours).endswith("Z level=INFO event=begin")
