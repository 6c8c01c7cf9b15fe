"""A measured profile as a performance model: monotone interpolation between its points, chords beyond them.

A pass is built of three terms, as in the simulator's engines:

- ``dense(tokens)``: weights and matrix products of every token of the pass, of whatever kind;
- attention of the prompts: proportional to the query-key pairs that they compute;
- a decode iteration of n requests with contexts of c tokens in the mean: ``base(n) + reading(n) · c``, since reading
  the cache is linear in what is read.

A prompt alone takes ``dense(T)`` and its attention, decodes alone ``base(n) + reading(n)·c``. A mixed pass reads the
weights once, so it is not the sum of both: T prompt tokens beside n decodes cost ``dense(n + T) − dense(n)``. Where an
empty prompt takes longer than any decode pass (a measured TTFT holds the front end too), the difference counts in
every pass with a prompt.

All three curves never fall: points that do are noise, and are made monotone by isotonic regression; between points
runs a monotone cubic (PCHIP: Fritsch and Carlson, 1980, as in scipy), beyond the last one the chord over the upper
half of the points, since the last two of a measured curve are often noise.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from planner_core.data.checks import config_number
from planner_core.data.errors import ConfigError
from planner_core.data.fpm import LARGEST, Floats
from planner_core.perf.prior import Known
from planner_core.perf.protocol import BatchLoad, Estimate

KNOTS = 64
"""Points that each curve is tabulated at, beside those of the profile."""
SPREAD_FLOOR = 0.05
"""Relative spread that is always granted: no two engines run alike."""
BEYOND = 0.1
"""Relative spread that is added where the work is twice what was profiled; 0.2 at three times, and so on."""


def _frozen_array(values: Any) -> Floats:
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array


def _column() -> Any:
    return attrs.field(converter=_frozen_array, eq=attrs.cmp_using(eq=np.array_equal))


def _derived() -> Any:
    return attrs.field(init=False, eq=False, repr=False)


@attrs.frozen
class _Curve:
    """Straight lines between knots, the last one at the largest number that counts."""

    knots: Floats
    values: Floats

    def at(self, x: Floats | float) -> Any:
        """The values at ``x`` >= 0, of its shape."""
        return np.interp(x, self.knots, self.values)


@attrs.frozen(kw_only=True)
class Profiled(Known):
    """What a profiler measured of one engine: P prefill points and D decode points.

    The decode columns are parallel: a batch that reads ``decode_kv_tokens[i]`` tokens of KV cache in all, with
    ``decode_context_tokens[i]`` of them per request, takes ``decode_itl_ms[i]`` per iteration.
    :class:`~planner_core.ConfigError` if the columns can't be a profile.
    """

    prefill_isl_tokens: Floats = _column()
    """Shape (P,), strictly rising."""
    prefill_ttft_ms: Floats = _column()
    """Shape (P,)."""
    decode_kv_tokens: Floats = _column()
    """Shape (D,)."""
    decode_context_tokens: Floats = _column()
    """Shape (D,)."""
    decode_itl_ms: Floats = _column()
    """Shape (D,)."""
    max_kv_tokens: int | None = attrs.field(
        default=None, validator=config_number(whole=True, least=1, optional=True)
    )
    """KV-cache capacity of the engine; ``None``: not known."""
    num_gpus: int | None = attrs.field(
        default=None, validator=config_number(whole=True, least=1, optional=True)
    )
    """GPUs of the engine; ``None``: not known."""
    spread: float = attrs.field(init=False, eq=False)
    """Standard deviation of the duration, relative to it: what the curves miss of the points, at least 5 %."""

    attention_s_per_pair: float = _derived()
    """Seconds per query-key pair of the prompts."""
    _dense: _Curve = _derived()
    """Seconds over the tokens of a pass."""
    _base: _Curve = _derived()
    """Seconds over the number of requests. 0 at none, as below: fewer than one stands for one in some of the passes."""
    _reading: _Curve = _derived()
    """Seconds per token of context over the number of requests."""
    _paid: _Curve = _derived()
    """Seconds over the number of requests that prompts beside them needn't take again."""

    def __attrs_post_init__(self) -> None:
        _check(self)
        per_pair, dense = _prefill_curve(self.prefill_isl_tokens, self.prefill_ttft_ms / 1e3)
        base, reading = _decode_curves(
            self.decode_kv_tokens, self.decode_context_tokens, self.decode_itl_ms / 1e3
        )
        overhead_s = max(0.0, float(dense.at(0.0) - base.at(0.0)))
        derived = {
            "attention_s_per_pair": per_pair,
            "_dense": dense,
            "_base": _none_at_zero(base.knots, base.values),
            "_reading": reading,
            "_paid": _none_at_zero(dense.knots, dense.values - overhead_s),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        spread = max(SPREAD_FLOOR, 1.4826 * float(np.median(self.errors())))
        object.__setattr__(self, "spread", spread)

    def parts_s(self, load: BatchLoad) -> tuple[Floats | float, Floats | float]:
        """The decodes as if they were alone, and what the prompts add to them."""
        tokens, requests = load.prefill_tokens, load.num_decode
        decode_s: Any = 0.0
        prefill_s: Any = 0.0
        if _any(requests):
            context = load.decode_kv_tokens / np.maximum(requests, 1e-9)
            decode_s = self._base.at(requests) + self._reading.at(requests) * context
        if _any(tokens):
            dense_s = self._dense.at(tokens + requests)
            if _any(requests):
                dense_s = dense_s - self._paid.at(requests)
            prefill_s = (tokens > 0) * (dense_s + self.attention_s_per_pair * load.prefill_pairs)
        return decode_s, prefill_s

    def iteration_s(self, state: tuple[()], load: BatchLoad) -> Estimate:
        """Mean and spread of the duration; the spread is wider beyond the profile."""
        decode_s, prefill_s = self.parts_s(load)
        mean_s = decode_s + prefill_s
        times = np.maximum(
            load.prefill_tokens / self._dense.knots[-2], load.num_decode / self._base.knots[-2]
        )
        spread = self.spread + BEYOND * np.maximum(times - 1.0, 0.0)
        return Estimate(mean_s=mean_s, std_s=spread * mean_s)

    def errors(self, other: Profiled | None = None) -> Floats:
        """Relative errors at the points of a profile, by default its own, prefill first; shape (P + D,)."""
        points = other or self
        isl, kv_tokens = points.prefill_isl_tokens, points.decode_kv_tokens
        _, prefill_s = self.parts_s(BatchLoad(prefill_tokens=isl, prefill_pairs=isl**2 / 2))
        decode_s, _ = self.parts_s(
            BatchLoad(num_decode=kv_tokens / points.decode_context_tokens, decode_kv_tokens=kv_tokens)
        )
        measured_s = np.concatenate((points.prefill_ttft_ms, points.decode_itl_ms)) / 1e3
        errors: Floats = np.abs(np.concatenate((prefill_s, decode_s)) / measured_s - 1.0)
        return errors


def _any(amount: Floats | float) -> bool:
    """Whether there may be some of it."""
    return isinstance(amount, np.ndarray) or amount > 0


def _check(profile: Profiled) -> None:
    columns = {
        half: {name: getattr(profile, name) for name in attrs.fields_dict(Profiled) if name.startswith(half)}
        for half in ("prefill_", "decode_")
    }
    problems = []
    for half in columns.values():
        shapes = {name: column.shape for name, column in half.items()}
        if len(set(shapes.values())) > 1 or any(column.ndim != 1 for column in half.values()):
            told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            problems.append(
                f"Profiled has columns of shapes {told}: must be one-dimensional and equally long"
            )
        for name, column in half.items():
            if not (np.isfinite(column).all() and (column > 0).all()):
                problems.append(f"Profiled.{name} = {column}: must be finite and above 0")
    if problems:
        raise ConfigError(problems)
    if len(profile.prefill_isl_tokens) < 2 or (np.diff(profile.prefill_isl_tokens) <= 0).any():
        raise ConfigError(
            f"Profiled.prefill_isl_tokens = {profile.prefill_isl_tokens}: must hold two lengths or more, rising"
        )
    if len(np.unique(profile.decode_context_tokens)) < 2:
        raise ConfigError(
            f"Profiled.decode_context_tokens = {profile.decode_context_tokens}: must hold two lengths or more, "
            "or the cost of a KV token can't be told from that of a request"
        )
    if len(np.unique(np.round(profile.decode_kv_tokens / profile.decode_context_tokens, 4))) < 2:
        raise ConfigError(
            f"Profiled.decode_kv_tokens = {profile.decode_kv_tokens}: must hold two batches or more, of as many times "
            "the context as there are requests"
        )


def _rising(values: Floats) -> Floats:
    """The non-decreasing curve that is nearest; never negative."""
    from scipy.optimize import isotonic_regression

    return np.maximum(np.asarray(isotonic_regression(values).x, dtype=np.float64), 0.0)


def _smooth(x: Floats, y: Floats, at_zero: float) -> _Curve:
    """Lines along the monotone cubic through non-decreasing points: from 0, and along the chord beyond the last."""
    from scipy.interpolate import PchipInterpolator

    knots = np.union1d(x, np.geomspace(x[0], x[-1], KNOTS)[1:-1])
    between = np.maximum.accumulate(PchipInterpolator(x, y)(knots))
    middle = len(x) // 2 if len(x) > 2 else 0
    chord = (y[-1] - y[middle]) / (x[-1] - x[middle])
    return _Curve(
        np.concatenate(([0.0], knots, [LARGEST])),
        np.concatenate(([at_zero], between, [y[-1] + chord * (LARGEST - x[-1])])),
    )


def _none_at_zero(knots: Floats, values: Floats) -> _Curve:
    """The curve, but 0 at 0, from where a line leads to its value at 1."""
    more = knots[knots > 1]
    at_one = np.interp(1.0, knots, values)
    return _Curve(
        np.concatenate(([0.0, 1.0], more)), np.concatenate(([0.0, at_one], values[len(knots) - len(more) :]))
    )


def _prefill_curve(tokens: Floats, seconds: Floats) -> tuple[float, _Curve]:
    """Seconds per attention pair, and the dense curve.

    Non-negative least squares on 1, T, T²/2 tells the attention; what is left of each point is the dense curve.
    """
    from scipy.optimize import nnls

    long = slice(len(tokens) // 3, None)  # short prompts wait for the weights: they'd bend the fit
    terms = np.stack((np.ones_like(tokens), tokens, tokens**2 / 2), axis=1)[long] / seconds[long, None]
    size = terms.mean(axis=0)
    per_pair = float(nnls(terms / size, np.ones(len(terms)))[0][2] / size[2])
    dense = _rising(seconds - per_pair * tokens**2 / 2)
    slope = (dense[1] - dense[0]) / (tokens[1] - tokens[0])
    at_zero = max(float(dense[0] - slope * tokens[0]), float(dense[0]) / 2)
    return per_pair, _smooth(tokens, dense, at_zero)


def _decode_curves(kv_tokens: Floats, context: Floats, seconds: Floats) -> tuple[_Curve, _Curve]:
    """Base and reading over the requests: an iteration of n requests takes base(n) + reading(n) · context.

    At each batch that was profiled with any context, all contexts that were profiled around it are interpolated to
    that batch, and a line over the context is fitted to them. Where only one context goes so far, a KV token is taken
    to cost what it did before.
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.optimize import nnls

    contexts = np.unique(context)
    curves = []
    for length in contexts:
        # Rounded, since a batch that is told as a share of the cache comes out as 0.9999999.
        requests, row = np.unique(np.round(kv_tokens[context == length] / length, 4), return_index=True)
        curves.append((requests, _rising(seconds[context == length][row])))
    batches = np.unique(np.concatenate([requests for requests, _ in curves]))
    at = np.full((len(contexts), len(batches)), np.nan)
    for times, (requests, curve) in zip(at, curves, strict=True):
        inside = (batches >= requests[0]) & (batches <= requests[-1])
        times[inside] = PchipInterpolator(requests, curve)(batches[inside]) if len(requests) > 1 else curve[0]
    base, reading = np.empty(len(batches)), np.empty(len(batches))
    per_kv_token = _cost_of_kv(kv_tokens, context, seconds)
    for column, batch in enumerate(batches):
        known = ~np.isnan(at[:, column])
        times = at[known, column]
        if known.sum() > 1:
            lines = np.stack((np.ones(len(times)), contexts[known] / contexts[-1]), axis=1) / times[:, None]
            base[column], slope = nnls(lines, np.ones(len(times)))[0]
            reading[column] = slope / contexts[-1]
            per_kv_token = reading[column] / batch
        else:
            reading[column] = per_kv_token * batch
            base[column] = max(times[0] - reading[column] * contexts[known][0], 0.0)
    base, reading = _rising(base), _rising(reading)
    return _smooth(batches, base, float(base[0])), _smooth(batches, reading, 0.0)


def _cost_of_kv(kv_tokens: Floats, context: Floats, seconds: Floats) -> float:
    """Seconds per KV token over all points, by relative non-negative least squares."""
    from scipy.optimize import nnls

    terms = np.stack((np.ones_like(seconds), kv_tokens / context, kv_tokens), axis=1) / seconds[:, None]
    size = terms.mean(axis=0)
    return float(nnls(terms / size, np.ones(len(terms)))[0][2] / size[2])
