"""Prometheus's query API: raw samples of the last seconds, and the server's time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import msgspec

from planner_adapters.prometheus.http import FetchError, Http, HttpOptions, shown

Clock: TypeAlias = Callable[[], float]


@attrs.frozen
class Series:
    """One series with its samples, oldest first; what isn't finite is left out."""

    name: str
    labels: dict[str, str]
    """Without the name."""
    samples: tuple[tuple[float, float], ...]
    """(time in s, value)."""


class _Series(msgspec.Struct):
    metric: dict[str, str]
    values: list[tuple[float, str]] = []
    value: tuple[float, str] | None = None


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: Any


class _Answer(msgspec.Struct):
    status: str
    data: _Data | None = None
    error: str = ""


_DECODER = msgspec.json.Decoder(_Answer)


class Api:
    """The API at one endpoint, such as ``http://prometheus:9090``.

    ``clock`` gives the time that queries are evaluated at; without it that is the server's own, so that a planner whose
    clock is off still sees fresh samples as fresh.
    """

    def __init__(self, endpoint: str, options: HttpOptions, clock: Clock | None = None) -> None:
        self._url = endpoint.rstrip("/") + "/api/v1/query"
        self._http = Http(options)
        self._clock = clock
        self.name = f"Prometheus at {shown(endpoint)}"

    async def now_s(self) -> float:
        """The time that queries are evaluated at."""
        if self._clock is not None:
            return self._clock()
        return _number((await self._query("time()", "scalar"))[1])

    async def samples(self, selector: str, last_s: float) -> list[Series]:
        """Every sample of the last seconds, as scraped: nothing is interpolated or carried on."""
        return self._series(await self._query(f"{selector}[{math.ceil(last_s)}s]", "matrix"))

    async def latest(self, selector: str) -> list[Series]:
        """The series that go on, each with its latest sample: one whose target went or can't be scraped has ended."""
        return self._series(await self._query(selector, "vector"))

    async def _query(self, promql: str, kind: str) -> Any:
        form = {"query": promql}
        if self._clock is not None:
            form["time"] = f"{self._clock():.3f}"
        try:
            answer = _DECODER.decode(await self._http.post(self._url, form))
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise FetchError(f"{self.name}: the answer is not that of Prometheus's API") from None
        if answer.status != "success" or answer.data is None:
            raise FetchError(f"{self.name}: {answer.error[:200] or 'no success'}")
        if answer.data.result_type != kind:
            raise FetchError(f"{self.name}: answered with a {answer.data.result_type[:20]}, not a {kind}")
        return answer.data.result

    def _series(self, result: Any) -> list[Series]:
        try:
            found = msgspec.convert(result, list[_Series])
            return [
                Series(
                    one.metric.get("__name__", ""),
                    {label: value for label, value in one.metric.items() if label != "__name__"},
                    tuple(
                        (at_s, value)
                        for at_s, text in (one.values if one.value is None else [one.value])
                        if math.isfinite(value := _number(text))
                    ),
                )
                for one in found
            ]
        except (msgspec.ValidationError, ValueError):
            raise FetchError(f"{self.name}: the answer is not that of Prometheus's API") from None

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.close()


def _number(text: Any) -> float:
    """Prometheus writes numbers as text, so that NaN and +Inf can stand there."""
    return float(text)
