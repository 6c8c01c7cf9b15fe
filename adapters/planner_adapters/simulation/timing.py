"""How long one forward pass takes: the only physics of the simulated engine that isn't scheduling.

A pass computes prefill tokens, one token for each decode request, or both. Its time is built of three terms:

- ``dense(tokens)``: weights and matrix products, shared by every token of the pass whatever its kind;
- attention of the prefill: proportional to the query-key pairs it computes;
- ``decode(n, kv)``: an iteration of n decode requests that read kv tokens of cache.

A prompt alone takes ``dense(T) + q T²/2``; a batch of n decode requests alone ``decode(n, kv)``. A mixed pass
(chunked prefill) reads the weights once, so it is *not* the sum of both: T prefill tokens on top of n decode
tokens cost ``dense(n + T) - dense(n)`` and their attention. Against the 65 aggregated operating points that
aiconfigurator 0.12 models for six pairs of model and GPU, the mean time per output token comes out within
1.5 % in the median and 12 % at the ninth decile; the plain sum within 3.7 % and 13 %.

Where an empty prompt takes longer than any decode pass (a measured TTFT holds the frontend too), the
difference counts in every pass with prefill: no pass gets shorter by more work.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import compress, pairwise

import attrs
import numpy as np
import numpy.typing as npt

from planner_core.perf import Profiled

Floats = npt.NDArray[np.float64]


def _floats(values: Sequence[float] | Floats) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


@attrs.frozen(kw_only=True)
class Curve:
    """A non-decreasing piecewise-linear function of x >= 0: knots at ``x``, straight lines beyond both ends.

    Left of the first knot runs the first line, never below ``floor``; right of the last one the chord over
    the upper half of the knots, since the last two of a measured curve are often noise.
    """

    x: tuple[float, ...] = attrs.field(converter=_floats)
    y: tuple[float, ...] = attrs.field(converter=_floats)
    floor: float = 0.0

    def __attrs_post_init__(self) -> None:
        if len(self.x) != len(self.y) or len(self.x) < 2:
            raise ValueError(
                f"Curve needs as many y as x and at least two of them, not {len(self.x)} and {len(self.y)}"
            )
        if self.x[0] < 0 or any(b <= a for a, b in pairwise(self.x)):
            raise ValueError(f"Curve.x = {self.x}: has to rise from 0 or more")
        if self.y[0] < 0 or any(b < a for a, b in pairwise(self.y)):
            raise ValueError(f"Curve.y = {self.y}: must not fall, nor be negative")

    def lines(self) -> tuple[list[float], list[float], list[float]]:
        """The curve as lines: (starts of the pieces, y at x = 0 of each line, slope of each line)."""
        x, y = list(self.x), list(self.y)
        if x[0] > 0:
            first_slope = (y[1] - y[0]) / (x[1] - x[0])
            x.insert(0, 0.0)
            y.insert(0, min(y[0], max(self.floor, y[0] - first_slope * x[1])))
        middle = len(self.x) // 2 if len(self.x) > 2 else 0
        slopes = [(d - c) / (b - a) for (a, b), (c, d) in zip(pairwise(x), pairwise(y), strict=True)]
        slopes.append((self.y[-1] - self.y[middle]) / (self.x[-1] - self.x[middle]))
        return x, [c - s * a for a, c, s in zip(x, y, slopes, strict=True)], slopes


@attrs.frozen(kw_only=True)
class EngineTiming:
    """Wall time of one forward pass of an engine, in seconds, for any batch. Compared by value."""

    dense: Curve
    """Seconds over the tokens of a pass, without attention."""
    attention_s_per_pair: float
    """Seconds per query-key pair of prefill attention."""
    decode: tuple[tuple[float, Curve], ...]
    """(context tokens, seconds over the number of requests with that context each), contexts rising."""
    mixed_pass_reads_weights_once: bool = True
    """False: a mixed pass takes the sum of its parts, as Dynamo's mocker reckons; to compare with it."""

    @classmethod
    def from_coefficients(
        cls,
        *,
        prefill_base_s: float,
        prefill_s_per_token: float,
        attention_s_per_pair: float,
        decode_base_s: float,
        decode_s_per_request: float,
        decode_s_per_kv_token: float,
    ) -> EngineTiming:
        """Linear in tokens, requests and KV tokens; quadratic in the prompt through its attention."""

        def curve(context: float) -> Curve:
            per_request = decode_s_per_request + context * decode_s_per_kv_token
            return Curve(x=(0.0, 1.0), y=(decode_base_s, decode_base_s + per_request))

        return cls(
            dense=Curve(x=(0.0, 1.0), y=(prefill_base_s, prefill_base_s + prefill_s_per_token)),
            attention_s_per_pair=attention_s_per_pair,
            decode=((0.0, curve(0.0)), (1.0, curve(1.0))),
        )

    @classmethod
    def from_profile(cls, profile: Profiled) -> EngineTiming:
        """Interpolates the measured points, made monotone (isotonic least squares) where they are noisy.

        Prefill: non-negative least squares on 1, T, T²/2 tells the attention; what is left of each point is
        the dense curve. Decode: one curve over the number of requests for each context length; between
        contexts the time of n requests is linear in their KV tokens, which is what reading the cache costs.
        """
        from scipy.optimize import nnls

        tokens, seconds = profile.prefill_isl_tokens, profile.prefill_ttft_ms / 1e3
        terms = np.stack([np.ones_like(tokens), tokens, tokens**2 / 2], axis=1)
        long = slice(len(tokens) // 3, None)  # short prompts wait for the weights: they'd bend the fit
        per_pair = float(nnls(terms[long] / seconds[long, None], np.ones_like(seconds[long]))[0][2])
        dense = _rising(seconds - per_pair * tokens**2 / 2)
        by_context = []
        for context in np.unique(profile.decode_context_tokens):
            rows = profile.decode_context_tokens == context
            requests, row = np.unique(profile.decode_kv_tokens[rows] / context, return_index=True)
            if len(requests) > 1:
                itl_s = _rising(profile.decode_itl_ms[rows][row] / 1e3)
                by_context.append((float(context), Curve(x=requests, y=itl_s, floor=float(itl_s[0]) / 2)))
        return cls(dense=Curve(x=tokens, y=dense), attention_s_per_pair=per_pair, decode=tuple(by_context))

    def __attrs_post_init__(self) -> None:
        contexts = [context for context, _ in self.decode]
        if len(contexts) < 2 or any(b <= a for a, b in pairwise(contexts)):
            raise ValueError(f"EngineTiming.decode has contexts {contexts}: needs two or more, rising")
        if self.dense.y[-1] <= 0 or any(curve.y[0] <= 0 for _, curve in self.decode):
            raise ValueError("EngineTiming: a pass takes no time; every time must be above 0")

    def pass_s(
        self,
        *,
        prefill_tokens: int = 0,
        prefill_context_tokens: int = 0,
        num_decode: int = 0,
        decode_kv_tokens: int = 0,
    ) -> float:
        """One pass over one prompt's next ``prefill_tokens`` (``prefill_context_tokens`` of it are in the
        cache already) and ``num_decode`` requests with ``decode_kv_tokens`` of context in all.
        """
        pairs = prefill_tokens * (prefill_context_tokens + prefill_tokens / 2)
        return PassTimer(self).pass_s(prefill_tokens, pairs, num_decode, decode_kv_tokens)


def _rising(values: Floats) -> Floats:
    from scipy.optimize import isotonic_regression

    return np.maximum(np.asarray(isotonic_regression(values).x, dtype=np.float64), 0.0)


class PassTimer:
    """An :class:`EngineTiming` made ready for millions of questions; remembers lines, changes no answer."""

    def __init__(self, timing: EngineTiming) -> None:
        self._starts, self._bases, self._slopes = timing.dense.lines()
        self._per_pair = timing.attention_s_per_pair
        self._weights_once = timing.mixed_pass_reads_weights_once
        self._contexts = np.array([context for context, _ in timing.decode])
        self._least_batch = np.array([curve.x[0] for _, curve in timing.decode])
        self._curves = [curve.lines() for _, curve in timing.decode]
        self._floor = min(min(curve.y) for _, curve in timing.decode)
        self._prefill_overhead_s = max(0.0, self._dense_s(0) - self._floor)
        self._lines: dict[int, tuple[list[float], list[float], list[float]]] = {}

    def pass_s(self, prefill_tokens: int, pairs: float, num_decode: int, decode_kv_tokens: int) -> float:
        """Seconds of one pass; ``pairs`` = sum over its prompts of tokens × (context + tokens / 2)."""
        attention_s = self._per_pair * pairs
        if not num_decode:
            return attention_s + self._dense_s(prefill_tokens)
        base_s, s_per_token, _ = self.decode_line(num_decode, decode_kv_tokens)
        decode_s = base_s + s_per_token * decode_kv_tokens
        if not prefill_tokens:
            return decode_s
        if not self._weights_once:
            return decode_s + attention_s + self._dense_s(prefill_tokens)
        dense_s = self._dense_s(num_decode + prefill_tokens) - self._dense_s(num_decode)
        return decode_s + self._prefill_overhead_s + dense_s + attention_s

    def decode_line(self, num_decode: int, decode_kv_tokens: int) -> tuple[float, float, float]:
        """(base_s, s_per_kv_token, until_kv_tokens): an iteration of ``num_decode`` requests takes
        base_s + s_per_kv_token × KV tokens, from ``decode_kv_tokens`` until ``until_kv_tokens``.
        """
        lines = self._lines.get(num_decode)
        if lines is None:
            lines = self._lines[num_decode] = self._lines_of(num_decode)
        starts, bases, slopes = lines
        piece = bisect_right(starts, decode_kv_tokens) - 1
        return bases[piece], slopes[piece], starts[piece + 1] if piece + 1 < len(starts) else float("inf")

    def _lines_of(self, num_decode: int) -> tuple[list[float], list[float], list[float]]:
        # A context profiled with large batches alone says nothing of this one: interpolate, don't reach down.
        known = self._least_batch <= max(num_decode, np.sort(self._least_batch)[1])
        seconds = []
        for starts, bases, slopes in compress(self._curves, known):
            piece = bisect_right(starts, num_decode) - 1
            seconds.append(bases[piece] + slopes[piece] * num_decode)
        kv_tokens = self._contexts[known] * num_decode
        return Curve(x=kv_tokens, y=np.maximum.accumulate(seconds), floor=self._floor).lines()

    def _dense_s(self, tokens: int) -> float:
        piece = bisect_left(self._starts, tokens, 1) - 1
        return self._bases[piece] + self._slopes[piece] * tokens
