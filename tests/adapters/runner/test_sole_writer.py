"""Two `planner run` processes and one file: the second one stops, and a killed one leaves nothing in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="needs the extra: pip install 'planner-core[prometheus]'")

from planner_adapters.runner import InUseError, sole_writer

NOBODY = "http://127.0.0.1:9"
COMMAND = [sys.executable, "-P", "-m", "planner_adapters.cli", "run", "--health", "off"]
KEYS = (
    "environment=virtual",
    "mode=agg",
    f"prometheus_endpoint={NOBODY}",
    "live_dashboard_port=0",
    "report_interval_hours=null",
    "load_adjustment_interval=3600",  # no tick, so that nothing is written while a test looks
    "throughput_adjustment_interval=7200",
)


def start(folder: Path, *options: object) -> subprocess.Popen[str]:
    told = {
        "PLANNER_VIRTUAL_STORE": f"sqlite:{folder / 'store'}",
        "PLANNER_ENGINE_TARGETS": f"agg={NOBODY}/metrics",
    }
    keys = [word for key in KEYS for word in ("--set", key)]
    return subprocess.Popen(
        [*COMMAND, *keys, *map(str, options)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | told,
    )


@contextmanager
def running(folder: Path, *options: object) -> Iterator[subprocess.Popen[str]]:
    """A planner whose loop turns."""
    with start(folder, *options) as planner:
        assert planner.stderr is not None
        lines: list[str] = []
        while not any("event=begin" in line for line in lines):
            lines.append(planner.stderr.readline())
            assert lines[-1], "".join(lines)
        try:
            yield planner
        finally:
            planner.kill()


@pytest.mark.parametrize("option", ["--state", "--journal"])
def test_a_second_planner_on_the_same_file_stops_with_one_line(tmp_path: Path, option: str) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(file)
    with running(tmp_path, option, file) as first:
        before = file.read_bytes()
        for same in (file, link):
            second = start(tmp_path, option, same)
            _, said = second.communicate()
            assert second.returncode == 2
            assert said == (
                f"planner run: {same}: another planner writes it (process {first.pid}): stop that one, or name "
                "another file\n"
            )
        assert file.read_bytes() == before
        with running(tmp_path, option, tmp_path / "another"):
            assert first.poll() is None


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
def test_a_planner_that_ended_in_any_way_leaves_the_file_to_the_next(
    tmp_path: Path, signal_: signal.Signals
) -> None:
    files = ("--state", tmp_path / "state", "--journal", tmp_path / "journal")
    with running(tmp_path, *files) as first:
        first.send_signal(signal_)
        first.wait()
    with running(tmp_path, *files):
        pass


def test_what_is_no_file_is_anybodys(tmp_path: Path) -> None:
    with sole_writer(Path(os.devnull), None), sole_writer(Path(os.devnull)):
        pass
    with sole_writer(tmp_path / "file"), pytest.raises(InUseError), sole_writer(tmp_path / "file"):
        pass
    with sole_writer(tmp_path / "file"):
        pass
