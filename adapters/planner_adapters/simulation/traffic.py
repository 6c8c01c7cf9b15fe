"""What a frontend counts: requests that arrive and that complete, in windows."""

from __future__ import annotations

import math

from planner_adapters.simulation.request import Request
from planner_core.data.observations import ObservedLatencies, TrafficObservation


class TrafficMeter:
    """Counts from one :meth:`take` to the next."""

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._clear()

    def _clear(self) -> None:
        self._arrived = self._input = self._input_squares = self._hits = 0
        self._completed = self._output = self._output_squares = self._gaps = 0
        self._ttft_s = self._decode_s = self._duration_s = 0.0

    def arrival(self, input_tokens: int, prefix_hit_tokens: int) -> None:
        """Counts a request that comes in."""
        self._arrived += 1
        self._input += input_tokens
        self._input_squares += input_tokens * input_tokens
        self._hits += prefix_hit_tokens

    def completion(self, request: Request) -> None:
        """Counts a request whose last token is out."""
        output = request.output_tokens
        self._completed += 1
        self._output += output
        self._output_squares += output * output
        self._ttft_s += request.first_token_s - request.arrival_s
        self._decode_s += request.finish_s - request.first_token_s
        self._gaps += output - 1
        self._duration_s += request.finish_s - request.arrival_s

    def take(self, now_s: float) -> tuple[TrafficObservation | None, ObservedLatencies | None]:
        """The window that ends now; ``(None, None)`` for one without length. ISL is that of requests that
        arrived, OSL and latencies are those of requests that completed in it.
        """
        duration_s = now_s - self._since_s
        if not duration_s > 0:
            return None, None
        arrived, completed = self._arrived, self._completed
        traffic = TrafficObservation(
            duration_s=duration_s,
            num_requests=arrived,
            isl=_mean(self._input, arrived),
            isl_std=_std(self._input, self._input_squares, arrived),
            osl=_mean(self._output, completed),
            num_completed=completed,
            osl_std=_std(self._output, self._output_squares, completed),
            kv_hit_rate=self._hits / self._input if self._input else None,
        )
        observed = ObservedLatencies(
            ttft_ms=_mean(self._ttft_s * 1e3, completed),
            itl_ms=_mean(self._decode_s * 1e3, self._gaps),
            request_duration_s=_mean(self._duration_s, completed),
        )
        self._since_s = now_s
        self._clear()
        return traffic, observed


def _mean(total: float, number: int) -> float | None:
    return total / number if number else None


def _std(total: int, squares: int, number: int) -> float | None:
    return math.sqrt(max(0, squares * number - total * total)) / number if number else None
