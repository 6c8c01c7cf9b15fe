from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import Phase, find, given, settings

from planner_core import (
    Decision,
    EngineSpec,
    ForwardPassMetrics,
    FpmBatch,
    MissingExtraError,
    ObservedLatencies,
    PlannerConfig,
    PlannerState,
    Role,
    TickInput,
    TrafficForecast,
    TrafficObservation,
    WorkerCounts,
)
from planner_core.perf import BatchLoad, Estimate, Linear, LinearState
from planner_core.predictors import BY_NAME, Constant, ConstantState, Forecast
from planner_core.testing import (
    check_perf_model,
    check_predictor,
    configs,
    decisions,
    engine_specs,
    forward_pass_metrics,
    fpm_batches,
    observed_latencies,
    states,
    tick_inputs,
    traffic_forecasts,
    traffic_observations,
    worker_counts,
)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_predictor_of_ours_fits(name: str) -> None:
    try:
        predictor = BY_NAME[name](**({"fit_every": 40} if name == "prophet" else {}))  # each fit takes 0.1 s
    except MissingExtraError as missing:
        # A slim installation leaves the guests out on purpose; that they are named is tested elsewhere.
        pytest.skip(str(missing))
    check_predictor(predictor, num_many=100 if name == "prophet" else 500)


def test_the_regression_fits() -> None:
    check_perf_model(Linear())


class Changed(Constant):
    """A predictor that is fine, to be broken in one place."""


@attrs.frozen(kw_only=True)
class Negative(Changed):
    def forecast(self, state: ConstantState, steps: int = 1) -> Forecast | None:
        return Forecast(mean=np.full(steps, -1.0), std=np.zeros(steps))


@attrs.frozen(kw_only=True)
class TooShort(Changed):
    def forecast(self, state: ConstantState, steps: int = 1) -> Forecast | None:
        return super().forecast(state, 1)


@attrs.frozen(kw_only=True)
class NotFinite(Changed):
    def forecast(self, state: ConstantState, steps: int = 1) -> Forecast | None:
        return Forecast(mean=np.full(steps, np.nan), std=np.zeros(steps))


@attrs.frozen(kw_only=True)
class Forgetful(Changed):
    def observe(self, state: ConstantState, value: float) -> ConstantState:
        object.__setattr__(state, "last", value)
        return state


@attrs.frozen(kw_only=True)
class Hoarder(Changed):
    def init(self) -> Any:
        return ()

    def observe(self, state: Any, value: float) -> Any:
        return (*state, value)

    def forecast(self, state: Any, steps: int = 1) -> Forecast | None:
        return None


@attrs.frozen(kw_only=True)
class Fragile(Changed):
    def observe(self, state: ConstantState, value: float) -> ConstantState:
        if value == 0:
            raise ZeroDivisionError
        return super().observe(state, value)


@attrs.frozen(kw_only=True)
class Loud(Changed):
    def observe(self, state: ConstantState, value: float) -> ConstantState:
        warnings.warn("not enough data", stacklevel=1)
        return super().observe(state, value)


@attrs.frozen(kw_only=True)
class Random(Changed):
    _rng: np.random.Generator = attrs.field(factory=lambda: np.random.default_rng(0))

    def forecast(self, state: ConstantState, steps: int = 1) -> Forecast | None:
        return Forecast(mean=self._rng.random(steps), std=np.zeros(steps))


@pytest.mark.parametrize(
    ("predictor", "sentence"),
    [
        (Negative(), "mean is negative"),
        (TooShort(), r"mean has shape \(1,\) for 7 steps"),
        (NotFinite(), "mean is not finite"),
        (Forgetful(), r"observe\(\) changed the state"),
        (Hoarder(), "its state grew from"),
        (Fragile(), "Fragile after only zeros: observe number 0 raised ZeroDivisionError"),
        (Loud(), "raised UserWarning"),
        (Random(), "two forecasts from one state are not equal"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_predictor_that_does_not_fit_is_told_why(predictor: Any, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence) as caught:
        check_predictor(predictor)
    assert type(predictor).__name__ in str(caught.value)


@attrs.frozen(kw_only=True)
class Constantly(Linear):
    """A model that is fine, to be broken in one place."""

    def iteration_s(self, state: LinearState, load: BatchLoad) -> Estimate | None:
        return Estimate(mean_s=np.asarray(0.1), std_s=np.asarray(0.0))


@attrs.frozen(kw_only=True)
class Never(Linear):
    def iteration_s(self, state: LinearState, load: BatchLoad) -> Estimate | None:
        return None


@attrs.frozen(kw_only=True)
class Below(Linear):
    def iteration_s(self, state: LinearState, load: BatchLoad) -> Estimate | None:
        estimate = super().iteration_s(state, load)
        return estimate and Estimate(mean_s=estimate.mean_s - 1.0, std_s=estimate.std_s)


@attrs.frozen(kw_only=True)
class Credulous(Linear):
    def observe(self, state: LinearState, batch: FpmBatch) -> LinearState:
        return attrs.evolve(super().observe(state, batch), num_seen=state.num_seen + len(batch))


@attrs.frozen(kw_only=True)
class Bottomless(Linear):
    def init(self) -> Any:
        return ()

    def observe(self, state: Any, batch: FpmBatch) -> Any:
        good = batch.wall_time_s > 0
        work = batch.prefill_tokens + batch.num_decode
        return (*state, *batch.wall_time_s[good & np.isfinite(work) & (work > 0)].tolist())

    def iteration_s(self, state: Any, load: BatchLoad) -> Estimate | None:
        zeros = np.zeros(np.broadcast(load.prefill_tokens, load.num_decode).shape)
        return Estimate(mean_s=zeros, std_s=zeros)

    def knowledge(self, state: Any) -> Any:
        return state


@attrs.frozen(kw_only=True)
class Ignorant(Linear):
    def knowledge(self, state: LinearState) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (Constantly(), r"mean_s has shape \(\) for a load of \(4,\)"),
        (Never(), "not ready after 64 varied passes"),
        (Below(), "mean_s is negative"),
        (Credulous(), "passes that say nothing taught it something"),
        (Bottomless(), "its state grew from"),
        (Ignorant(), "equal knowledge, two estimates"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_performance_model_that_does_not_fit_is_told_why(model: Any, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence) as caught:
        check_perf_model(model)
    assert type(model).__name__ in str(caught.value)


# --- the strategies

quickly = settings(max_examples=20)
search = settings(max_examples=2000, phases=[Phase.generate], database=None)  # no need for the smallest one


@pytest.mark.parametrize(
    ("strategy", "cls"),
    [
        (configs(), PlannerConfig),
        (engine_specs(), EngineSpec),
        (worker_counts(), WorkerCounts),
        (traffic_observations(), TrafficObservation),
        (traffic_forecasts(), TrafficForecast),
        (observed_latencies(), ObservedLatencies),
        (forward_pass_metrics(), ForwardPassMetrics),
        (fpm_batches(), FpmBatch),
        (tick_inputs(), TickInput),
        (decisions(), Decision),
        (states(), PlannerState),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_public_type_has_a_strategy_of_valid_values(strategy: Any, cls: type) -> None:
    assert isinstance(find(strategy, lambda value: True, settings=search), cls)


@quickly
@given(tick_inputs(), decisions(), states())
def test_strategies_give_both_ends_of_a_tick(
    inputs: TickInput, decision: Decision, state: PlannerState
) -> None:
    assert set(inputs.state.roles) == set(inputs.config.engines)
    assert decision.state.roles
    assert state.roles


@quickly
@given(configs(mode="agg", target="sla"), fpm_batches(Role.PREFILL))
def test_strategies_can_be_narrowed(config: PlannerConfig, batch: FpmBatch) -> None:
    assert (config.mode, config.target) == ("agg", "sla")
    assert len(batch) <= 12


@pytest.mark.parametrize(
    "situation",
    [
        lambda inputs: inputs.state.schedule.last_tick_s == inputs.now_s,
        lambda inputs: inputs.now_s < inputs.state.schedule.last_tick_s,
        lambda inputs: inputs.traffic is None and not inputs.workers,
        lambda inputs: any(np.isnan(batch.wall_time_s).any() for batch in inputs.fpm.values()),
        lambda inputs: any("<script>" in name for batch in inputs.fpm.values() for name in batch.worker_id),
    ],
    ids=[
        "the clock stands",
        "the clock goes back",
        "nothing is measured",
        "a duration is NaN",
        "a hostile name",
    ],
)
def test_inputs_hold_what_happens_rarely(situation: Any) -> None:
    assert situation(find(tick_inputs(max_ticks_before=1), situation, settings=search))


def test_records_are_hostile_now_and_then() -> None:
    record: Any = find(forward_pass_metrics(), lambda record: not record.wall_time_s >= 0, settings=search)
    assert not record.wall_time_s >= 0


def test_without_hypothesis_the_checks_work_and_the_strategies_name_the_extra() -> None:
    code = """
import sys
sys.modules["hypothesis"] = None
from planner_core import MissingExtraError
from planner_core.predictors import Constant
from planner_core import testing
testing.check_predictor(Constant())
try:
    testing.tick_inputs
except MissingExtraError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == (
        "planner_core.testing.tick_inputs needs Hypothesis: pip install 'planner-core[testing]'"
    ), run.stderr
