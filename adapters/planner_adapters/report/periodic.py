"""A report every so many hours of tick time, whether those are lived through or simulated."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from planner_adapters.report.builder import SeriesBuilder
from planner_adapters.report.page import write_report
from planner_adapters.report.series import Series
from planner_core import Decision, PlannerConfig, TickInput


class PeriodicReport:
    """Takes ticks, and writes a page to ``report_output_dir`` after every ``report_interval_hours`` of them.

    Writing is done in a thread; what can't be written is a problem, not an exception. Close it, by ``with`` or
    :meth:`close`, to have the rest written. With no interval it does nothing.
    """

    def __init__(self, config: PlannerConfig) -> None:
        hours = config.shell.report_interval_hours
        self._interval_s = None if hours is None else 3600 * hours
        self._folder = Path(config.shell.report_output_dir)
        self._builder = SeriesBuilder()
        self._start_s: float | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[Path] | None = None
        self.problem: str | None = None
        """Why the last report could not be written; ``None``: it could."""
        self.written: list[Path] = []
        """The last few pages, oldest first."""
        if hours is not None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="planner-report")

    def add(self, inputs: TickInput, decision: Decision) -> None:
        """Takes a tick; every so often it begins a new report, and has the old one written."""
        if self._interval_s is None:
            return
        if self._start_s is None:
            self._start_s = inputs.now_s
        elif inputs.now_s >= self._start_s + self._interval_s:
            self._write()
            self._start_s, self._builder = inputs.now_s, SeriesBuilder()
        self._builder.add(inputs, decision)

    def _write(self) -> None:
        if self._thread is None or self._builder.last is None:
            return
        self._wait()  # one at a time: a simulation is faster than a disk
        self._writing = self._thread.submit(_write, self._folder, self._builder)

    def _wait(self) -> None:
        if self._writing is None:
            return
        try:
            self.written = [*self.written[-9:], self._writing.result()]
            self.problem = None
        except OSError as error:
            self.problem = f"{error.filename or self._folder}: {error.strerror or error}"
        self._writing = None

    def close(self) -> None:
        """Writes what came since the last report."""
        self._write()
        self._wait()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def __enter__(self) -> PeriodicReport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _write(folder: Path, builder: SeriesBuilder) -> Path:
    series = builder.series()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"planner_{_stamp(series)}.html"
    write_report(path, series)
    return path


def _stamp(series: Series) -> str:
    """Of the first tick: ``20261124T181500Z``, or seconds since the start of a simulation."""
    if series.since_epoch:
        return f"{datetime.fromtimestamp(series.start_s, UTC):%Y%m%dT%H%M%SZ}"
    return f"{series.start_s:08.0f}s"
