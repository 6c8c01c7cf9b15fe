"""Every request from its submission to its end, so that none is lost."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from planner_adapters.simulation.request import Request
from planner_adapters.simulation.results import RequestResults, Status

_LEAST = {"input_tokens": 1, "output_tokens": 1, "prefix_hit_tokens": 0}


class Ledger:
    """Requests that are to come, on their way, or done; numbered in the order of submission."""

    def __init__(self) -> None:
        self.next_arrival_s = math.inf
        self._arrival_s: list[float] = []
        self._input_tokens: list[int] = []
        self._output_tokens: list[int] = []
        self._prefix_hit_tokens: list[int] = []
        self._first_token_s: list[float] = []
        self._finish_s: list[float] = []
        self._status: list[int] = []
        self._to_come: list[int] = []  # the next one last
        self._live: dict[int, Request] = {}

    def submit(
        self,
        now_s: float,
        arrival_s: npt.ArrayLike,
        input_tokens: npt.ArrayLike,
        output_tokens: npt.ArrayLike,
        prefix_hit_tokens: npt.ArrayLike | None,
    ) -> None:
        """Adds requests that arrive from ``now_s`` on; ValueError that names row and column if they can't
        be."""
        arrival = np.asarray(arrival_s, dtype=np.float64)
        hits = np.zeros(arrival.shape) if prefix_hit_tokens is None else prefix_hit_tokens
        given = zip(_LEAST, (input_tokens, output_tokens, hits), strict=True)
        tokens = {name: np.asarray(column, dtype=np.int64) for name, column in given}
        _check(arrival, tokens, now_s)
        first = len(self._status)
        self._arrival_s.extend(arrival.tolist())
        for name, column in tokens.items():
            getattr(self, f"_{name}").extend(column.tolist())
        self._first_token_s.extend([math.nan] * len(arrival))
        self._finish_s.extend([math.nan] * len(arrival))
        self._status.extend([Status.UNFINISHED] * len(arrival))
        order = self._to_come[::-1] + list(range(first, len(self._status)))
        order.sort(key=self._arrival_s.__getitem__)  # stable: equal times in the order of submission
        self._to_come = order[::-1]
        self._look_ahead()

    def take_next(self) -> Request:
        """The request that arrives next, from now on under way."""
        index = self._to_come.pop()
        self._look_ahead()
        request = Request(
            index,
            self._arrival_s[index],
            self._input_tokens[index],
            self._output_tokens[index],
            self._prefix_hit_tokens[index],
        )
        self._live[index] = request
        return request

    def close(self, request: Request, status: Status) -> None:
        """Ends a request; its times and the tokens that it got are noted."""
        index = request.index
        del self._live[index]
        self._status[index] = status
        self._first_token_s[index] = request.first_token_s
        self._finish_s[index] = request.finish_s
        self._output_tokens[index] = request.output_tokens

    @property
    def num_open(self) -> int:
        """Requests that are to come or on their way."""
        return len(self._live) + len(self._to_come)

    def results(self) -> RequestResults:
        """What became of each request so far."""
        first_token_s = np.array(self._first_token_s, dtype=np.float64)
        for index, request in self._live.items():
            first_token_s[index] = request.first_token_s
        return RequestResults(
            arrival_s=np.array(self._arrival_s, dtype=np.float64),
            input_tokens=np.array(self._input_tokens, dtype=np.int64),
            output_tokens=np.array(self._output_tokens, dtype=np.int64),
            first_token_s=first_token_s,
            finish_s=np.array(self._finish_s, dtype=np.float64),
            status=np.array(self._status, dtype=np.int64),
        )

    def _look_ahead(self) -> None:
        self.next_arrival_s = self._arrival_s[self._to_come[-1]] if self._to_come else math.inf


def _check(arrival: npt.NDArray[np.float64], tokens: dict[str, npt.NDArray[np.int64]], now_s: float) -> None:
    for name, column in tokens.items():
        if arrival.ndim != 1 or column.shape != arrival.shape:
            raise ValueError(
                f"submit: arrival_s has shape {arrival.shape}, {name} {column.shape}: "
                "must be columns of equal length"
            )
    possible = np.isfinite(arrival) & (arrival >= now_s)
    if not possible.all():
        row = int(np.argmin(possible))
        raise ValueError(
            f"submit: row {row} has arrival_s = {arrival[row]}: must be finite and not before now, {now_s}"
        )
    for name, column in tokens.items():
        if (column < _LEAST[name]).any():
            row = int(np.argmax(column < _LEAST[name]))
            raise ValueError(f"submit: row {row} has {name} = {column[row]}: must be at least {_LEAST[name]}")
