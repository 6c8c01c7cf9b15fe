"""Series in files: a CSV of times and values, or a request trace, which is counted; plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import zlib
from array import array
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NoReturn

import attrs

from planner_adapters.backtest.series import Series, SeriesError, count_arrivals, resample
from planner_adapters.simulation.traces import load_workload, open_text

ARRIVAL_COLUMNS = ("arrival_s", "arrival_time", "arrived_at")
TIME_COLUMNS = ("t_s", "time_s", "timestamp", "time", "datetime", "date", "ts", "t", "ds", *ARRIVAL_COLUMNS)
COUNT_COLUMNS = ("requests", "num_requests", "request_count", "count", "invocations", "arrivals")
"""Values that are added up over an interval; of others the mean is taken."""
VALUE_COLUMNS = ("value", *COUNT_COLUMNS, "rate", "rps", "requests_per_second", "request_rate", "qps", "y")
TOKEN_COLUMNS = ("input_tokens", "contexttokens")
"""What tells a request trace from a series."""
UNKNOWN = ("", "nan", "null", "none", "na", "n/a", "-")
"""Cells that say that a value isn't known."""
GAP_COLUMN = "gap"
"""Says of each row whether it wasn't collected: its value isn't known, whatever stands there."""
GAP, NO_GAP = ("1", "1.0", "true", "yes"), (*UNKNOWN, "0", "0.0", "false", "no")
"""Cells that say so, and cells that don't."""
PER_SECOND = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""A number of at least the first, as a time, counts nano-, micro- or milliseconds since 1970."""


@attrs.frozen(kw_only=True)
class _Samples:
    """The columns of a file, and the line that each row stands on."""

    time_s: array[float]
    values: array[float] | None
    """``None``: every row is a request."""
    are_counts: bool = False
    lines: Sequence[int] = ()


def load_series(
    path: str | Path,
    *,
    time_column: str | None = None,
    value_column: str | None = None,
    interval_s: float | None = None,
    add: bool | None = None,
) -> Series:
    """The series of a CSV file with a header, or the requests per interval of a trace.

    Columns are found by their names unless they are given. Times are seconds, dates (ISO 8601; without a zone,
    UTC), or milliseconds since 1970, told by their size. An empty value is not known, nor is one whose row has a 1 in
    a column ``gap``. ``add`` says whether values are summed up over an interval; by default they are if the column's
    name says that it counts.
    :class:`SeriesError` names file, row (1 is the file's first line) and mend; ``WorkloadError`` does of JSON lines.
    """
    path = Path(path)
    samples = _read(path, time_column, value_column)
    name = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    try:
        if samples.values is None:
            return count_arrivals(name, samples.time_s, interval_s)
        add = samples.are_counts if add is None else add
        return resample(name, samples.time_s, samples.values, interval_s, add=add)
    except SeriesError as error:
        where = f", row {samples.lines[error.sample]}" if error.sample is not None and samples.lines else ""
        raise SeriesError(f"{path}{where}: {error}", error.sample) from None


def _read(path: Path, time_column: str | None, value_column: str | None) -> _Samples:
    try:
        with open_text(path) as file:
            is_json = file.read(1) == "{"
            file.seek(0)
            if not is_json:
                return _read_csv(path, file, time_column, value_column)
    except UnicodeDecodeError:
        raise SeriesError(f"{path}: is not text; a series is a CSV with a header") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SeriesError(f"{path}: is not readable as gzip ({error}); fetch or compress it again") from None
    except OSError as error:
        raise SeriesError(f"{path}: can't be read ({error.strerror or error})") from None
    return _Samples(time_s=array("d", load_workload(path).arrival_s), values=None)


def _read_csv(path: Path, file: IO[str], time_column: str | None, value_column: str | None) -> _Samples:
    reader = csv.reader(file)
    time_s, values, lines = array("d"), array("d"), array("q")
    try:
        header = [cell.strip() for cell in next(reader, [])]
        time_at, value_at = _columns(path, header, time_column, value_column)
        gap_at = _gap_column(header, value_at)
        seconds: Callable[[str], float] | None = None
        for row in reader:
            if not row:
                continue
            line = reader.line_num
            text = _cell(path, line, row, time_at, header)
            seconds = seconds or _reader_of_times(text)
            try:
                time_s.append(seconds(text))
            except ValueError:
                kind = "number" if seconds is not _date else "date (such as 2026-01-31T12:00:00)"
                _refuse(path, line, f"{header[time_at]} = {text!r} is no {kind}; mend or drop the row")
            if value_at is not None:
                value = _value(path, line, _cell(path, line, row, value_at, header), header[value_at])
                missed = gap_at is not None and _is_gap(path, line, _cell(path, line, row, gap_at, header))
                values.append(float("nan") if missed else value)
            lines.append(line)
    except csv.Error as error:
        _refuse(path, reader.line_num, f"is not CSV ({error})")
    return _Samples(
        time_s=time_s,
        values=None if value_at is None else values,
        are_counts=value_at is not None and header[value_at].lower() in COUNT_COLUMNS,
        lines=lines,
    )


def _columns(
    path: Path, header: list[str], time_column: str | None, value_column: str | None
) -> tuple[int, int | None]:
    """Where time and value stand; no value where every row is a request."""
    if not header:
        raise SeriesError(f"{path}: is empty; a series is a CSV with a header, such as t_s,value")
    names = [name.lower() for name in header]
    time_at = _find(path, header, time_column, TIME_COLUMNS, "time")
    if value_column is None and not any(name in VALUE_COLUMNS for name in names):
        if names[time_at] in ARRIVAL_COLUMNS or any(name in names for name in TOKEN_COLUMNS):
            return time_at, None
        if len(header) == 2:
            return time_at, 1 - time_at
    return time_at, _find(path, header, value_column, VALUE_COLUMNS, "value")


def _gap_column(header: list[str], value_at: int | None) -> int | None:
    """Where it is said which rows weren't collected, if that is said."""
    names = [name.lower() for name in header]
    found = names.index(GAP_COLUMN) if GAP_COLUMN in names else None
    return None if found == value_at else found


def _find(path: Path, header: list[str], given: str | None, usual: tuple[str, ...], what: str) -> int:
    names = [name.lower() for name in header]
    found = ",".join(header)
    found = found if len(found) <= 80 else found[:77] + "..."
    if given is not None:
        if given not in header:
            _refuse(path, 1, f"the header has no {given!r}, it is {found!r}; mend --{what}-column")
        return header.index(given)
    place = next((names.index(name) for name in usual if name in names), None)
    if place is None:
        _refuse(
            path,
            1,
            f"the header {found!r} has no {what} column that we know (such as {', '.join(usual[:4])}); "
            f"name it with --{what}-column",
        )
    return place


def _cell(path: Path, line: int, row: list[str], place: int, header: list[str]) -> str:
    if place >= len(row):
        _refuse(path, line, f"has {len(row)} cells and none for {header[place]}; complete or drop the row")
    return row[place].strip()


def _reader_of_times(text: str) -> Callable[[str], float]:
    """How the times of a file are read, told by the first of them."""
    try:
        size = abs(float(text))
    except ValueError:
        return _date
    unit = next((unit for least, unit in PER_SECOND if size >= least), 1.0)
    return float if unit == 1.0 else lambda text: float(text) / unit


def _date(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _value(path: Path, line: int, text: str, name: str) -> float:
    try:
        return float("nan") if text.lower() in UNKNOWN else float(text)
    except ValueError:
        _refuse(path, line, f"{name} = {text!r} is no number; mend it, or leave it empty if it isn't known")


def _is_gap(path: Path, line: int, text: str) -> bool:
    if text.lower() not in GAP + NO_GAP:
        _refuse(path, line, f"gap = {text!r} is neither 1 nor 0; write 1 where nothing was collected, else 0")
    return text.lower() in GAP


def _refuse(path: Path, line: int, problem: str) -> NoReturn:
    raise SeriesError(f"{path}, row {line}: {problem}")
