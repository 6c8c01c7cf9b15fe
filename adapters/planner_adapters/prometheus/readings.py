"""From the series of one worker's scrape to what each of its engines says."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from os.path import commonprefix
from typing import TypeAlias

import attrs

from planner_adapters.prometheus.engine_series import (
    MEANINGS,
    RANK_LABEL,
    SERIES,
    TWIN_LABELS,
    Framework,
    Named,
    Quantity,
    names_of,
)
from planner_core import MissingExtraError

try:
    from prometheus_client.parser import text_string_to_metric_families
except ImportError:
    raise MissingExtraError(
        "reading engines' metrics needs prometheus-client: pip install 'planner-core[prometheus]'"
    ) from None

MOST_RANKS = 1024
LONG = 1_000
"""Characters of a series that isn't worth remembering."""


@attrs.frozen
class Sample:
    """One series at one time."""

    name: str
    labels: Mapping[str, str]
    value: float


@attrs.frozen
class Reading:
    """What one engine (one data-parallel rank of a worker) said at one time. What it didn't say isn't there."""

    at_s: float
    values: Mapping[Quantity, float]


class MalformedMetricsError(ValueError):
    """Text that is no Prometheus exposition."""


def parse(text: str, framework: Framework) -> list[Sample]:
    """The samples of a scrape that matter. :class:`MalformedMetricsError` if the lines can't be read.

    Of hundreds of lines a dozen matter, and these are as plain as lines can be; what isn't (escapes, time stamps, NaN)
    is left to the library. It would take three times as long over all of them.
    """
    samples: list[Sample] = []
    others: list[str] = []
    try:
        for line in _WANTED[framework].findall("\n" + text):
            series, _, value = line.rpartition(" ")
            plain = (_known_series if len(series) < LONG else _series)(series)
            if plain is None or _NUMBER.fullmatch(value) is None:
                others.append(line)
            else:
                samples.append(Sample(*plain, float(value)))
        if others:
            samples += (
                Sample(sample.name, sample.labels, sample.value)
                for family in text_string_to_metric_families("\n".join(others) + "\n")
                for sample in family.samples
            )
    except (ValueError, KeyError, IndexError) as error:
        raise MalformedMetricsError(str(error)[:200]) from None
    return samples


def _series(text: str) -> tuple[str, Mapping[str, str]] | None:
    """Name and labels of a plain line; ``None`` if it isn't one, or has a label twice."""
    plain = _PLAIN.fullmatch(text)
    labels = None if plain is None else (_known_labels if len(text) < LONG else _labels)(plain[2] or "")
    return None if plain is None or labels is None else (plain[1], labels)


def _labels(block: str) -> dict[str, str] | None:
    """What stands between the braces; ``None`` if a label is there twice."""
    pairs = _LABEL.findall(block)
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


# The same ones come with every scrape, and from many engines.
_known_series, _known_labels = functools.lru_cache(8192)(_series), functools.lru_cache(2048)(_labels)


def readings(samples: Iterable[Sample], framework: Framework, at_s: float) -> dict[int, Reading]:
    """By data-parallel rank. Series that a worker's ranks share are divided among them, since each does its part."""
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    places: dict[int, _Place] = {}
    values: dict[Quantity, dict[int | None, float]] = {}
    for quantity, known in SERIES[framework].items():
        for named in known:
            found = by_name.get(named.series)
            if found and (of_rank := _values(named, found, framework, places)):
                values[quantity] = of_rank
                break
    ranks = sorted({rank for of_rank in values.values() for rank in of_rank if rank is not None}) or [0]
    return {
        rank: Reading(
            at_s,
            {
                q: _of_rank(q, of_rank, rank, len(ranks))
                for q, of_rank in values.items()
                if rank in of_rank or None in of_rank
            },
        )
        for rank in ranks[:MOST_RANKS]
    }


_Place: TypeAlias = tuple[int | None, tuple[int, ...]]
"""Data-parallel rank and twin."""


def _values(
    named: Named, samples: Iterable[Sample], framework: Framework, places: dict[int, _Place]
) -> dict[int | None, float]:
    """By rank; ``None`` is the rank of what all share. Series that differ in other labels are parts of a sum.

    ``places`` remembers what labels say, by their identity, since most samples of a scrape have the same.
    """
    parts: dict[int | None, dict[tuple[int, ...], float]] = {}
    for sample in samples:
        if named.where and any(sample.labels.get(label) not in some for label, some in named.where.items()):
            continue
        value = _product(sample.labels, named.product_of) if named.product_of else sample.value
        if not (math.isfinite(value) and value >= 0):
            continue
        place = places.get(id(sample.labels))
        if place is None:
            place = places[id(sample.labels)] = _place(sample.labels, framework)
        rank, twin = place
        of_twin = parts.setdefault(rank, {})
        of_twin[twin] = of_twin.get(twin, 0.0) + value
    return {rank: of_twin[min(of_twin)] for rank, of_twin in parts.items()}


def _of_rank(quantity: Quantity, of_rank: Mapping[int | None, float], rank: int, num_ranks: int) -> float:
    if rank in of_rank:
        return of_rank[rank]
    shared = of_rank[None]
    whole = quantity in ("kv_share", "kv_capacity_tokens", "kv_block_tokens", "passes", "busy_s", "pass_s")
    return shared if whole else shared / num_ranks


def _place(labels: Mapping[str, str], framework: Framework) -> _Place:
    return (
        _rank(labels.get(RANK_LABEL[framework], "")),
        tuple(_rank(labels.get(label, "")) or 0 for label in TWIN_LABELS),
    )


def _rank(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None


def _product(labels: Mapping[str, str], names: tuple[str, ...]) -> float:
    try:
        return math.prod(float(labels.get(name, "nan")) for name in names)
    except ValueError:
        return math.nan


def _wanted(names: Iterable[str]) -> re.Pattern[str]:
    """Lines of these series. What all names begin with stands first, so that other lines are passed over quickly."""
    every = sorted(names)
    common = commonprefix(every)  # noqa: RUF071  # of names, not of paths
    rest = "|".join(re.escape(name[len(common) :]) for name in every)
    return re.compile(rf"\n({re.escape(common)}(?:{rest})[{{ ][^\n]*)")


_WANTED = {framework: _wanted(names_of(framework)) for framework in SERIES}
_LABEL_TEXT = r'[a-zA-Z_]\w*="[^"\\\n]*"'
_LABEL = re.compile(r'([a-zA-Z_]\w*)="([^"\\\n]*)"', re.ASCII)
_PLAIN = re.compile(rf"([a-zA-Z_:][\w:]*)(?:\{{((?:{_LABEL_TEXT}(?:,{_LABEL_TEXT})*,?)?)\}})?", re.ASCII)
_NUMBER = re.compile(r"-?\d[\d.eE+-]*", re.ASCII)
COUNTERS = tuple(quantity for quantity, meaning in MEANINGS.items() if meaning.counter)
