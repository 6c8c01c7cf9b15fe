"""Does a predictor or performance model of your own fit? Each failure is one sentence."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import attrs
import numpy as np

from planner_core.data.fpm import EMPTY_BATCH, FpmBatch
from planner_core.perf import BatchLoad, Estimate, PerfModel
from planner_core.predictors import Forecast, Predictor

T = TypeVar("T")

GROWTH_BYTES = 256
"""A bounded state may still grow by this much, as its counts get digits."""
FULL_AFTER = 8
"""A memory may take this many times as many lessons to fill."""

SERIES: dict[str, tuple[float, ...]] = {
    "only zeros": (0.0,) * 30,
    "a constant": (5.0,) * 30,
    "one spike": (5.0,) * 15 + (5e6,) + (5.0,) * 15,
    "zeros, then load": (0.0,) * 15 + (100.0,) * 15,
    "load, then zeros": (100.0,) * 15 + (0.0,) * 15,
    "a steep fall": tuple(float(value) for value in range(60, 0, -2)),
    "two seasons": tuple(50.0 + 40.0 * float(np.sin(hour / 24 * 2 * np.pi)) for hour in range(48)),
    "tiny values": (1e-9, 3e-9, 2e-9) * 10,
    "huge values": (1e12, 3e12, 2e12) * 10,
}
"""What a predictor must stand, by name."""


def check_predictor(predictor: Predictor[Any], *, num_many: int = 500, steps: Iterable[int] = (1, 7)) -> None:
    """Fail with an ``AssertionError`` if a predictor breaks its protocol.

    It must be deterministic, silent, and leave states as they are; forecasts must be finite, at least 0 and
    as long as asked for; states must compare by value, be picklable, and stop growing before
    9 × ``num_many`` values.
    """
    name = type(predictor).__name__
    assert predictor.init() == predictor.init(), f"{name}.init() gives two unequal states"
    for title, values in SERIES.items():
        where = f"{name} after {title}"
        state = _learn(where, predictor.observe, predictor.init(), values)
        again = _learn(where, predictor.observe, predictor.init(), values)
        assert _same(state, again), f"{where}: the same values twice give two unequal states"
        for num in steps:
            forecast = _quietly(f"{where}: forecast", predictor.forecast, state, num)
            assert _same(state, again), f"{where}: forecast() changed the state that it was given"
            _check_forecast(where, forecast, num)
            repeated = predictor.forecast(state, num)
            assert forecast == repeated, f"{where}: two forecasts from one state are not equal"
    wave = [100.0 + 50.0 * float(np.sin(n / 7.0)) for n in range(num_many)]
    _check_size(name, "values", predictor.observe, predictor.init(), wave)


def _check_forecast(where: str, forecast: Forecast | None, steps: int) -> None:
    if forecast is None:
        return
    for part in ("mean", "std"):
        row = np.asarray(getattr(forecast, part))
        assert row.shape == (steps,), (
            f"{where}: {part} has shape {row.shape} for {steps} steps, not ({steps},)"
        )
        assert np.isfinite(row).all(), f"{where}: {part} is not finite: {row}"
        assert (row >= 0).all(), f"{where}: {part} is negative: {row}"


def check_perf_model(model: PerfModel[Any], *, num_many: int = 100) -> None:
    """Fail with an ``AssertionError`` if a performance model breaks its protocol.

    It must be deterministic, silent, vectorised, and leave states as they are; estimates must be finite and
    at least 0, also before any pass, if there are some; passes without a positive duration, with unknown work or
    without any must teach nothing; states of equal ``knowledge``, where the model tells it, must give equal estimates;
    states must compare by value, be picklable, and have stopped growing after
    9 × ``num_many`` batches.
    """
    name = type(model).__name__
    assert _same(model.init(), model.init()), f"{name}.init() gives two unequal states"
    if model.iteration_s(model.init(), BatchLoad(num_decode=1.0)) is not None:
        _check_estimates(f"{name} before any pass", model, model.init())
    for title, batch in (("nothing", EMPTY_BATCH), ("passes that say nothing", _useless_passes())):
        state = _learn(f"{name} after {title}", model.observe, model.init(), [batch])
        assert _same(state, model.init()), f"{name}: {title} taught it something"
    for title, batch in _lessons():
        where = f"{name} after {title}"
        state = _learn(where, model.observe, model.init(), [batch])
        again = _learn(where, model.observe, model.init(), [batch])
        assert _same(state, again), f"{where}: the same passes twice give two unequal states"
        mixed = _learn(where, model.observe, model.init(), [_joined(batch, _useless_passes())])
        assert _same(state, mixed), f"{where}: passes that say nothing, mixed in, taught it something"
        _check_estimates(where, model, state)
        assert _same(state, again), f"{where}: iteration_s() changed the state that it was given"
    batches = [_passes(seed=number, num_passes=8) for number in range(num_many)]
    if hasattr(model, "knowledge"):
        _check_knowledge(name, model, batches)
    _check_size(name, "batches", model.observe, model.init(), batches)


def _check_knowledge(name: str, model: Any, batches: Sequence[FpmBatch]) -> None:
    """What is known is hashable, and says all that the mean of an estimate depends on."""
    load = BatchLoad(prefill_tokens=np.array([0.0, 1.0, 4000.0]), num_decode=30.0, decode_kv_tokens=4e4)
    answers: dict[Any, Any] = {}
    state = model.init()
    for batch in (*batches, _passes(seed=0, overhead_s=0.03)):
        state = model.observe(state, batch)
        estimate = model.iteration_s(state, load)
        if estimate is not None:
            known = answers.setdefault(model.knowledge(state), estimate.mean_s)
            assert np.array_equal(known, estimate.mean_s), (
                f"{name}: equal knowledge, two estimates of one load"
            )


def _check_estimates(where: str, model: PerfModel[Any], state: Any) -> None:
    """Vectorised, finite, not negative, and one by one the same as together."""
    tokens, requests = np.array([0.0, 1.0, 512.0, 8192.0]), np.array([[0.0], [1.0], [300.0]])
    for load, shape in (
        (BatchLoad(prefill_tokens=512.0, prefill_pairs=131072.0), ()),
        (BatchLoad(prefill_tokens=tokens, prefill_pairs=tokens**2 / 2), (4,)),
        (BatchLoad(prefill_tokens=tokens, num_decode=requests, decode_kv_tokens=requests * 2000.0), (3, 4)),
    ):
        estimate = _quietly(f"{where}: iteration_s", model.iteration_s, state, load)
        assert estimate is not None, f"{where}: not ready after 64 varied passes, or not for every load"
        for part in ("mean_s", "std_s"):
            seconds = np.asarray(getattr(estimate, part))
            assert seconds.shape == shape, f"{where}: {part} has shape {seconds.shape} for a load of {shape}"
            assert np.isfinite(seconds).all(), f"{where}: {part} is not finite: {seconds}"
            assert (seconds >= 0).all(), f"{where}: {part} is negative: {seconds}"
        assert _equal(estimate, model.iteration_s(state, load)), f"{where}: two estimates of one load differ"
    together = model.iteration_s(state, BatchLoad(prefill_tokens=tokens))
    assert together is not None
    for number, token in enumerate(tokens):
        alone = model.iteration_s(state, BatchLoad(prefill_tokens=token))
        assert alone is not None
        agree = np.isclose(alone.mean_s, np.asarray(together.mean_s)[number], rtol=1e-9)
        assert agree, f"{where}: a load alone is estimated otherwise than in an array"


def _equal(one: Estimate, other: Estimate | None) -> bool:
    return (
        other is not None
        and np.array_equal(one.mean_s, other.mean_s)
        and np.array_equal(one.std_s, other.std_s)
    )


def _passes(seed: int, num_passes: int = 64, overhead_s: float = 0.01) -> FpmBatch:
    """Passes of one engine whose duration is linear in their work."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 8192, num_passes).astype(float)
    requests = rng.integers(1, 256, num_passes).astype(float)
    context = requests * rng.integers(100, 4000, num_passes).astype(float)
    return FpmBatch(
        worker_id=np.full(num_passes, "engine"),
        wall_time_s=overhead_s + 4e-5 * tokens + 2e-5 * requests + 1e-8 * context,
        num_prefill=np.ones(num_passes),
        prefill_tokens=tokens,
        num_decode=requests,
        decode_kv_tokens=context,
    )


def _lessons() -> Iterator[tuple[str, FpmBatch]]:
    passes = _passes(seed=0)
    yield "64 varied passes", passes
    pause = passes.wall_time_s.copy()
    pause[32] = 60.0
    yield "a pause of a minute", attrs.evolve(passes, wall_time_s=pause)
    giant = passes.prefill_tokens.copy()
    giant[32] = 5e6
    yield "one giant prompt", attrs.evolve(passes, prefill_tokens=giant)
    same = np.full(64, 100.0)
    yield (
        "one operating point",
        attrs.evolve(
            passes,
            prefill_tokens=same,
            num_decode=same,
            decode_kv_tokens=same * 1000,
            wall_time_s=same / 2000,
        ),
    )


def _useless_passes() -> FpmBatch:
    """A heartbeat, durations and work that can't be true, and a pass without work."""
    nan, inf = float("nan"), float("inf")
    return FpmBatch(
        worker_id=np.array([f"engine {number}" for number in range(7)]),
        wall_time_s=np.array([0.0, nan, -1.0, inf, 0.1, 0.1, 0.1]),
        num_prefill=np.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]),
        prefill_tokens=np.array([0.0, 100.0, 100.0, 100.0, nan, -5.0, 0.0]),
    )


def _joined(first: FpmBatch, second: FpmBatch) -> FpmBatch:
    names = [field.name for field in attrs.fields(FpmBatch) if field.init]
    columns: Any = {name: np.concatenate((getattr(first, name), getattr(second, name))) for name in names}
    return FpmBatch(**columns)


def _learn(where: str, observe: Callable[[Any, Any], Any], state: Any, lessons: Iterable[Any]) -> Any:
    """The state after all lessons, each of which must leave the state before it unchanged."""
    for number, lesson in enumerate(lessons):
        before = copy.deepcopy(state)
        after = _quietly(f"{where}: observe number {number}", observe, state, lesson)
        assert _same(state, before), f"{where}: observe() changed the state that it was given"
        state = after
    return state


def _check_size(
    name: str, what: str, observe: Callable[[Any, Any], Any], state: Any, lessons: list[Any]
) -> None:
    state = _learn(name, observe, state, lessons)
    copied = pickle.loads(pickle.dumps(state))  # noqa: S301  # nosec B301  # made a moment ago, here
    assert _same(copied, state), f"{name}: a pickled state comes back unequal; states compare by value"
    first = size = len(pickle.dumps(state))
    for _ in range(FULL_AFTER):
        for lesson in lessons:
            state = observe(state, lesson)
        before, size = size, len(pickle.dumps(state))
        if size <= before + GROWTH_BYTES:
            return
    raise AssertionError(
        f"{name}: its state grew from {first} to {size} bytes "
        f"between {len(lessons)} and {(1 + FULL_AFTER) * len(lessons)} {what}"
    )


def _same(one: Any, other: Any) -> bool:
    return bool(np.all(one == other))


def _quietly(where: str, call: Callable[..., T], *args: Any) -> T:
    """What the call gives; a warning is an effect, and an exception would end a tick."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return call(*args)
        except Exception as error:
            raise AssertionError(f"{where} raised {error!r}") from error
