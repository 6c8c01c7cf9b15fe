"""How well a performance model fits what was measured, also where it wasn't told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np

from planner_core import ConfigError, FpmBatch, Role
from planner_core.data.fpm import Bools, Floats
from planner_core.perf import BatchLoad, Linear, Profiled

LEFT_OUT = 5
"""Of the passes of a file, every so many-th is kept from the regression, and tests it."""
AT_ONCE = 20
"""Passes that it is told at a time, as in a tick."""


@attrs.frozen(kw_only=True)
class Fit:
    """One half of a profile, or the passes of one role. Errors are relative; ``None``: too little to tell."""

    part: str
    num_points: int
    num_unusable: int = 0
    """Heartbeats, and passes whose numbers can't be true."""
    range_tokens: tuple[float, float] | None
    """Prompt tokens, or KV tokens of the decodes."""
    error_median: float | None
    """At the points that the model was told."""
    error_p90: float | None
    left_out_median: float | None
    """At points that it was not told."""
    left_out_p90: float | None


@attrs.frozen(kw_only=True, eq=False)
class FittedRole:
    """What answers for a role: seconds of passes over their work, or ``None`` while too little is known."""

    role: Role
    iteration: Callable[[BatchLoad], Any] | None
    measured_s: Floats | None = None
    """Durations of passes, and what the model says of them; ``None`` for a profile."""
    estimated_s: Floats | None = None


def fit_profile(profile: Profiled) -> tuple[list[Fit], list[FittedRole]]:
    """Both halves of a profile, and every role by it."""

    def iteration(load: BatchLoad) -> Any:
        return profile.iteration_s((), load).mean_s

    errors, left_out = profile.errors(), _left_out_errors(profile)
    num_prefill = len(profile.prefill_isl_tokens)
    is_prefill = np.arange(len(errors)) < num_prefill
    halves = (
        ("prefill", is_prefill, profile.prefill_isl_tokens),
        ("decode", ~is_prefill, profile.decode_kv_tokens),
    )
    fits = [
        Fit(
            part=part,
            num_points=len(tokens),
            range_tokens=(float(tokens.min()), float(tokens.max())),
            **_quantiles("error", errors[half]),
            **_quantiles("left_out", left_out[half]),
        )
        for part, half, tokens in halves
    ]
    return fits, [FittedRole(role=role, iteration=iteration) for role in Role]


def fit_passes(batches: Mapping[Role, FpmBatch]) -> tuple[list[Fit], list[FittedRole]]:
    """The planner's own regression on the passes of each role."""
    fits, fitted = [], []
    for role, batch in batches.items():
        test = np.arange(len(batch)) % LEFT_OUT == LEFT_OUT - 1
        told, asked = _rows(batch, batch.learnable & ~test), _rows(batch, batch.learnable & test)
        model, state = Linear(), _learn(told)
        learned = model.iteration_s(state, BatchLoad()) is not None

        def iteration(load: BatchLoad, model: Linear = model, state: Any = state) -> Any:
            estimate = model.iteration_s(state, load)
            return None if estimate is None else estimate.mean_s

        of_role = batch.decode_kv_tokens if role is Role.DECODE else batch.prefill_tokens
        tokens = of_role[batch.learnable & (of_role > 0)]
        errors = [
            np.abs(iteration(BatchLoad.of(some)) / some.wall_time_s - 1)
            if learned and len(some)
            else np.empty(0)
            for some in (told, asked)
        ]
        fits.append(
            Fit(
                part=str(role),
                num_points=int(np.count_nonzero(batch.learnable)),
                num_unusable=int(np.count_nonzero(~batch.learnable)),
                range_tokens=(float(tokens.min()), float(tokens.max())) if len(tokens) else None,
                **_quantiles("error", errors[0]),
                **_quantiles("left_out", errors[1]),
            )
        )
        usable = _rows(batch, batch.learnable)
        fitted.append(
            FittedRole(
                role=role,
                iteration=iteration if learned else None,
                measured_s=usable.wall_time_s,
                estimated_s=iteration(BatchLoad.of(usable)) if learned else None,
            )
        )
    return fits, fitted


def _learn(batch: FpmBatch) -> Any:
    model = Linear()
    state = model.init()
    for start in range(0, len(batch), AT_ONCE):
        inside = np.zeros(len(batch), bool)
        inside[start : start + AT_ONCE] = True
        state = model.observe(state, _rows(batch, inside))
    return state


def _rows(batch: FpmBatch, rows: Bools) -> FpmBatch:
    columns: Any = {f.name: getattr(batch, f.name)[rows] for f in attrs.fields(FpmBatch) if f.init}
    return FpmBatch(**columns)


def _quantiles(name: str, errors: Floats) -> Any:
    known = errors[np.isfinite(errors)]
    median, p90 = np.quantile(known, (0.5, 0.9)).tolist() if len(known) else (None, None)
    return {f"{name}_median": median, f"{name}_p90": p90}


def _left_out_errors(profile: Profiled) -> Floats:
    """Errors at every other point between the outermost, of a model that wasn't told them; NaN at the others."""
    isl, context = profile.prefill_isl_tokens, profile.decode_context_tokens
    out = np.zeros(len(isl) + len(context), bool)
    out[1 : len(isl) - 1 : 2] = True
    for length in np.unique(context):
        rows = np.flatnonzero(context == length) + len(isl)
        by_batch = rows[np.argsort(profile.decode_kv_tokens[rows - len(isl)], kind="stable")]
        out[by_batch[1:-1:2]] = True
    errors = np.full(len(out), np.nan)
    prefill, decode = ~out[: len(isl)], ~out[len(isl) :]
    try:
        told = attrs.evolve(
            profile,
            prefill_isl_tokens=isl[prefill],
            prefill_ttft_ms=profile.prefill_ttft_ms[prefill],
            decode_kv_tokens=profile.decode_kv_tokens[decode],
            decode_context_tokens=context[decode],
            decode_itl_ms=profile.decode_itl_ms[decode],
        )
    except ConfigError:  # too few points are left
        return errors
    errors[out] = told.errors(profile)[out]
    return errors
