"""Request traces in files: three formats, plain or gzipped, told apart by what is in them.

- CSV with a header that has ``arrival_s,input_tokens,output_tokens`` (and ``prefix_hit_tokens`` if known);
- the Azure LLM inference traces as published: CSV with ``TIMESTAMP,ContextTokens,GeneratedTokens``;
- JSON lines as of Mooncake: ``timestamp`` (ms), ``input_length``, ``output_length``, ``hash_ids`` if known.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NoReturn

import msgspec

from planner_adapters.simulation.workload import Workload, WorkloadError

BLOCK_TOKENS = 512
"""Tokens behind one of Mooncake's hash ids."""

_FORMATS = (
    "a trace is a CSV with the header arrival_s,input_tokens,output_tokens or "
    "TIMESTAMP,ContextTokens,GeneratedTokens, or JSON lines of timestamp, input_length, output_length"
)


def load_workload(path: str | Path, *, block_tokens: int = BLOCK_TOKENS) -> Workload:
    """The requests of a trace file, plain or gzipped.

    ``block_tokens`` is the size of the blocks behind ``hash_ids``, from which the prefix hits of an ideal,
    infinite cache follow. :class:`WorkloadError` names file, row (1 is the file's first line) and mend.
    """
    path = Path(path)
    try:
        with open_text(path) as file:
            start = file.read(1)
            file.seek(0)
            read = _read_jsonl if start == "{" else _read_csv
            rows = read(path, file, block_tokens)
    except UnicodeDecodeError:
        raise WorkloadError(f"{path}: is not text; {_FORMATS}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise WorkloadError(
            f"{path}: is not readable as gzip ({error}); fetch or compress it again"
        ) from None
    except OSError as error:
        raise WorkloadError(f"{path}: can't be read ({error.strerror or error})") from None
    return rows.workload(path)


def open_text(path: Path) -> IO[str]:
    """The file, read as UTF-8, and through gzip where it begins or ends like that."""
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b" or path.suffix == ".gz"
    if is_gzip:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


class _Rows:
    """Columns that grow, and the line of the file that each request stands on."""

    def __init__(self) -> None:
        self.arrival_s, self.hits = array("d"), array("q")
        self.inputs, self.outputs, self.lines = array("q"), array("q"), array("q")

    def workload(self, path: Path) -> Workload:
        if not self.lines:
            raise WorkloadError(f"{path}: holds no request; {_FORMATS}")
        name = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
        hits = self.hits or None
        try:
            return Workload(
                name=name,
                arrival_s=self.arrival_s,
                input_tokens=self.inputs,
                output_tokens=self.outputs,
                prefix_hit_tokens=hits,
            )
        except WorkloadError as error:
            where = "" if error.request is None else f", row {self.lines[error.request]}"
            raise WorkloadError(f"{path}{where}: {error}", error.request) from None


def _refuse(path: Path, line: int, problem: str) -> NoReturn:
    raise WorkloadError(f"{path}, row {line}: {problem}")


# CSV


def _read_csv(path: Path, file: IO[str], block_tokens: int) -> _Rows:
    reader = csv.reader(file)
    rows = _Rows()
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if not header:
            return rows
        is_azure = "TIMESTAMP" in header
        names = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"] if is_azure else _OURS[:3]
        missing = [name for name in names if name not in header]
        if missing:
            found = ",".join(header)
            found = found if len(found) <= 80 else found[:77] + "..."
            _refuse(path, 1, f"the header has no {' and no '.join(missing)}, it is {found!r}; {_FORMATS}")
        names += [name for name in _OURS[3:] if name in header]
        time_of = _since_first() if is_azure else float
        _fill(path, reader, rows, [(name, header.index(name)) for name in names], time_of)
    except csv.Error as error:
        _refuse(path, reader.line_num, f"is not CSV ({error})")
    return rows


_OURS = ["arrival_s", "input_tokens", "output_tokens", "prefix_hit_tokens"]


def _fill(
    path: Path, reader: Any, rows: _Rows, columns: list[tuple[str, int]], time_of: Callable[[str], float]
) -> None:
    targets = [rows.arrival_s, rows.inputs, rows.outputs, rows.hits]
    parsers: list[Callable[[str], Any]] = [time_of, _whole, _whole, _whole]
    appends: list[Callable[[Any], None]] = [column.append for column in targets]  # type: ignore[attr-defined]
    plan = [(place, parse, add) for (_, place), parse, add in zip(columns, parsers, appends, strict=False)]
    note_line = rows.lines.append
    for row in reader:
        if not row:
            continue
        try:
            for place, parse, append in plan:
                append(parse(row[place]))
        except (ValueError, OverflowError, IndexError):
            _explain(path, reader.line_num, row, columns, parsers)
        note_line(reader.line_num)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = float(text)  # 12.0 is as whole as 12
        if not number.is_integer():
            raise
        return int(number)


def _since_first() -> Callable[[str], float]:
    """Turns dates into seconds since the first one."""
    first: list[datetime] = []

    def seconds(text: str) -> float:
        moment = datetime.fromisoformat(text.strip())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        first.append(moment) if not first else None
        return (moment - first[0]).total_seconds()

    return seconds


def _explain(
    path: Path, line: int, row: list[str], columns: list[tuple[str, int]], parsers: list[Callable[[str], Any]]
) -> NoReturn:
    for (name, place), parse in zip(columns, parsers, strict=False):
        if place >= len(row):
            _refuse(path, line, f"has {len(row)} cells and none for {name}; complete or drop the row")
        kind = {"TIMESTAMP": "date", "arrival_s": "number"}.get(name, "whole number of tokens")
        try:
            array("q" if "tokens" in kind else "d", [parse(row[place])])
        except (ValueError, OverflowError):
            _refuse(path, line, f"{name} = {row[place]!r} is no {kind}; mend or drop the row")
    raise AssertionError("a row that could not be read can be read")


# JSON lines


class _Line(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] | None = None


def _read_jsonl(path: Path, file: IO[str], block_tokens: int) -> _Rows:
    rows = _Rows()
    decode = msgspec.json.Decoder(_Line).decode
    seen: set[int] = set()
    any_hashes = False
    for line, text in _numbered(file):
        try:
            request = decode(text)
            rows.arrival_s.append(request.timestamp / 1e3)
            rows.inputs.append(request.input_length)
            rows.outputs.append(request.output_length)
            hits = _ideal_hits(request.hash_ids or [], seen) * block_tokens
            rows.hits.append(min(hits, max(request.input_length, 0)))
        except (msgspec.MsgspecError, UnicodeError) as error:
            _refuse(
                path,
                line,
                f"{error}; a line is an object of timestamp, input_length, output_length",
            )
        except OverflowError:
            _refuse(path, line, "has a number that is too large; mend or drop the line")
        any_hashes = any_hashes or request.hash_ids is not None
        rows.lines.append(line)
    if not any_hashes:
        rows.hits = array("q")
    return rows


def _numbered(file: IO[str]) -> Iterator[tuple[int, str]]:
    return ((line, text) for line, text in enumerate(file, 1) if not text.isspace())


def _ideal_hits(hash_ids: list[int], seen: set[int]) -> int:
    """How many leading blocks an earlier request had; remembers these."""
    hits = 0
    for block in hash_ids:
        if block not in seen:
            break
        hits += 1
    seen.update(hash_ids)
    return hits
