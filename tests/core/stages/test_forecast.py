from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import PlannerConfig, ThroughputScaling, TrafficForecast, TrafficObservation
from planner_core.data.state import DemandState
from planner_core.predictors import Constant, Forecast
from planner_core.stages import forecast
from planner_core.testing import traffic_observations


def config_for(lab: Any, **changes: Any) -> PlannerConfig:
    return attrs.evolve(
        lab.config("agg"), **{"throughput": ThroughputScaling(predictor=Constant()), **changes}
    )


def learn(config: PlannerConfig, *windows: TrafficObservation | None) -> DemandState:
    demand, now_s = forecast.start(config), 0.0
    for window in windows:
        now_s += 5.0 if window is None else window.duration_s
        demand = forecast.learn(demand, config, window, now_s)
    return demand


def predicted(config: PlannerConfig, demand: DemandState, startup_s: float = 60.0) -> TrafficForecast | None:
    assert config.throughput is not None
    return forecast.predict(
        forecast.learn_interval(demand, config.throughput, 1e4), config.throughput, startup_s
    )


def window(
    duration_s: float, rate: float | None, isl: float | None = 1000, osl: float | None = 200, **more: Any
) -> TrafficObservation:
    num = None if rate is None else rate * duration_s
    return TrafficObservation(duration_s=duration_s, num_requests=num, isl=isl, osl=osl, **more)


@given(
    st.lists(
        st.tuples(st.floats(0.5, 300), st.integers(0, 500), st.floats(1, 1e5), st.floats(1, 1e4)),
        min_size=1,
        max_size=12,
    )
)
def test_windows_of_any_length_add_up_to_one_value_per_interval(
    lab: Any, parts: list[tuple[float, int, float, float]]
) -> None:
    config = config_for(lab)
    windows = [TrafficObservation(duration_s=d, num_requests=n, isl=i, osl=o) for d, n, i, o in parts]
    got = predicted(config, learn(config, *windows))
    total = sum(n for _, n, _, _ in parts)
    assert got is not None
    assert got.rate_rps == pytest.approx(total / sum(d for d, *_ in parts))
    if total:
        assert got.isl == pytest.approx(sum(n * i for _, n, i, _ in parts) / total)


@given(st.lists(traffic_observations(), max_size=8))
def test_what_is_learned_of_any_traffic_can_be_true(lab: Any, windows: list[TrafficObservation]) -> None:
    config = config_for(lab, speculative_nextn=3)
    demand = learn(config, *windows)
    assert demand.kv_hit_rate is None or 0 <= demand.kv_hit_rate <= 0.95
    assert demand.accept_length is None or 1 <= demand.accept_length <= 4
    assert demand.recent_rps is None or demand.recent_rps >= 0
    for known, of in (("inputs", "isl"), ("outputs", "osl")):
        values = [getattr(w, of) for w in windows if getattr(w, of) is not None]
        learned = getattr(demand, known).mean
        assert (learned is None) == (not values)
        if values:
            assert min(values) * 0.999 <= learned <= max(values) * 1.001


def test_unknown_is_not_zero(lab: Any) -> None:
    config = config_for(lab)
    known = window(180, 4.0)
    lost = TrafficObservation(duration_s=180, num_requests=None)
    assert learn(config, known, None, lost) == learn(config, known)
    assert predicted(config, learn(config, None, lost)) is None


def test_an_idle_window_lowers_the_rate_and_keeps_the_lengths(lab: Any) -> None:
    config = config_for(lab)
    assert config.throughput is not None
    busy = forecast.learn_interval(learn(config, window(180, 4.0)), config.throughput, 180.0)
    demand = forecast.learn(busy, config, window(180, 0.0, None, None), 360.0)
    got = predicted(config, demand)
    assert got is not None
    assert (got.rate_rps, got.isl, got.osl) == (0.0, 1000.0, 200.0)
    assert demand.inputs.mean == 1000
    assert demand.recent_rps is not None
    assert demand.recent_rps < 0.01


def test_lengths_weigh_by_requests(lab: Any) -> None:
    config = config_for(lab)
    got = predicted(config, learn(config, window(90, 1.0, isl=100), window(90, 3.0, isl=500)))
    assert got is not None
    assert got.isl == 400


def test_output_lengths_are_learned_from_windows_in_which_nothing_arrived(lab: Any) -> None:
    config = config_for(lab)
    got = predicted(config, learn(config, window(90, 1.0, osl=None), window(90, 0.0, None, 300)))
    assert got is not None
    assert got.osl == 300


@pytest.mark.parametrize(("measured", "believed"), [(0.0, 0.0), (0.5, 0.5), (0.95, 0.95), (1.0, 0.95)])
def test_a_hit_rate_is_believed_up_to_0_95(lab: Any, measured: float, believed: float) -> None:
    config = config_for(lab)
    demand = learn(
        config, window(5, 1.0, kv_hit_rate=measured), window(5, 1.0)
    )  # then unknown: the last one stays
    assert demand.kv_hit_rate == believed


@pytest.mark.parametrize(
    ("nextn", "measured", "believed"), [(None, 7.5, 7.5), (2, 7.5, 3.0), (2, 0.4, 1.0), (None, 0.4, 1.0)]
)
def test_an_accept_length_is_at_least_one_and_at_most_what_is_drafted(
    lab: Any, nextn: int | None, measured: float, believed: float
) -> None:
    config = config_for(lab, speculative_nextn=nextn)
    assert learn(config, window(5, 1.0, accept_length=measured), window(5, 1.0)).accept_length == believed


def test_the_recent_rate_sees_through_noise_and_follows_a_step_within_a_minute(lab: Any) -> None:
    config = config_for(lab)
    noisy = learn(config, *[window(5, rate) for rate in (8, 12) * 12])
    assert noisy.recent_rps == pytest.approx(10, rel=0.1)
    step = learn(config, *[window(5, rate) for rate in [2] * 24 + [20] * 12])
    assert step.recent_rps == pytest.approx(20, rel=0.06)


def test_a_burst_is_known_in_one_window_and_its_end_in_several(lab: Any) -> None:
    config = config_for(lab)
    calm = [window(5, 8.0)] * 12
    assert learn(config, *calm, window(5, 33.0)).recent_rps == 33.0
    assert learn(config, *calm, window(5, 12.0)).recent_rps == pytest.approx(9.2, abs=0.1)  # may be chance
    after = learn(config, *calm, window(5, 33.0), window(5, 8.0)).recent_rps
    assert after is not None
    assert after > 20


def test_arrivals_that_come_in_clumps_are_no_bursts(lab: Any) -> None:
    config = config_for(lab)
    clumps = [window(5, 33.0 if number % 6 == 5 else 3.0) for number in range(60)]
    after = learn(config, *clumps).recent_rps
    assert after is not None
    assert after < 22


def test_a_rate_from_before_a_gap_is_forgotten(lab: Any) -> None:
    config = config_for(lab)
    demand = forecast.learn(learn(config, window(5, 100)), config, window(5, 1), 3600.0)
    assert demand.recent_rps == 1


def test_the_horizon_covers_a_start_and_an_interval(lab: Any) -> None:
    seen = []

    @attrs.frozen
    class Watching:
        inner: Any = ThroughputScaling(predictor=Constant()).predictor

        def init(self) -> Any:
            return self.inner.init()

        def observe(self, state: Any, value: float) -> Any:
            return self.inner.observe(state, value)

        def forecast(self, state: Any, steps: int = 1) -> Any:
            seen.append(steps)
            return self.inner.forecast(state, steps)

    config = config_for(lab, throughput=ThroughputScaling(interval_s=180, predictor=Watching()))
    for startup_s, steps in ((0.0, 1), (1.0, 2), (180.0, 2), (600.0, 5)):
        seen.clear()
        predicted(config, learn(config, window(180, 1.0)), startup_s)
        assert set(seen) == {steps}


@attrs.frozen
class Recorder:
    """A predictor whose state is what it has been told; it forecasts the value of three intervals before."""

    def init(self) -> tuple[float, ...]:
        return ()

    def observe(self, state: tuple[float, ...], value: float) -> tuple[float, ...]:
        return (*state, value)

    def forecast(self, state: tuple[float, ...], steps: int = 1) -> Forecast | None:
        if len(state) < 3:
            return None
        mean = [state[len(state) - 3 + step % 3] for step in range(steps)]
        return Forecast(mean=np.array(mean), std=np.zeros(steps))


def test_what_arrives_now_is_taken_to_go_on_while_the_predictor_is_not_ready(lab: Any) -> None:
    config = config_for(lab, throughput=ThroughputScaling(predictor=Recorder()))
    got = predicted(config, learn(config, window(180, 4.0)))
    assert got is not None
    assert (got.rate_rps, got.isl, got.osl) == (4.0, 1000, 200)


def test_intervals_in_which_nothing_was_measured_keep_their_place_in_the_season(lab: Any) -> None:
    slow = ThroughputScaling(predictor=Recorder())
    config = config_for(lab, throughput=slow)
    demand = forecast.start(config)
    for number, rate in enumerate([1.0, 5.0, 9.0, 1.0, None, None, None, 5.0, 9.0], start=1):
        now_s = 180.0 * number
        seen = None if rate is None else window(180, rate)
        demand = forecast.learn_interval(forecast.learn(demand, config, seen, now_s), slow, now_s)
    assert demand.rate == (1, 5, 9, 1, 5, 9, 1, 5, 9)


def test_outputs_that_are_still_being_generated_count_though_only_short_ones_have_completed(lab: Any) -> None:
    # Half of the requests write 20 tokens and half 500, 4 of them arrive per second: after ten seconds only short ones
    # are through, and the engines generate far more than those.
    config = config_for(lab)
    short_only = window(10, 4.0, osl=20, num_completed=20)
    demand = forecast.learn(forecast.start(config), config, short_only, 10.0, generated_tps=500.0)
    assert forecast.expected_osl(demand) == pytest.approx(250)
    assert demand.outputs.mean == 20


def test_generated_tokens_that_agree_with_what_completes_change_no_length(lab: Any) -> None:
    config = config_for(lab)
    steady = window(10, 4.0, osl=200, num_completed=40)
    demand = forecast.learn(forecast.start(config), config, steady, 10.0, generated_tps=850.0)
    assert forecast.expected_osl(demand) == 200


def test_the_spread_of_lengths_holds_that_within_windows_and_that_between_them(lab: Any) -> None:
    # The decay of a few seconds among minutes is all that keeps the pooled moments from being exact.
    config = config_for(lab)
    windows = [window(1, 10.0, isl=mean, isl_std=std) for mean, std in ((500, 100), (1500, 300))] * 3
    cv2 = learn(config, *windows).inputs.cv2
    assert cv2 == pytest.approx((500**2 + (100**2 + 300**2) / 2) / 1000**2, rel=0.02)


def test_the_step_that_needs_most_with_its_headroom_is_planned_for(lab: Any) -> None:
    @attrs.frozen
    class Uncertain:
        def init(self) -> tuple[()]:
            return ()

        def observe(self, state: tuple[()], value: float) -> tuple[()]:
            return ()

        def forecast(self, state: tuple[()], steps: int = 1) -> Forecast:
            return Forecast(mean=np.array([10.0, 9.0])[:steps], std=np.array([0.0, 5.0])[:steps])

    config = config_for(lab, throughput=ThroughputScaling(predictor=Uncertain()))
    got = predicted(config, learn(config, window(180, 1.0)))
    assert got is not None
    assert (got.rate_rps, got.rate_std_rps) == (9.0, 5.0)


@given(st.floats(1, 1e5), st.floats(1, 1e4), st.floats(0.9, 1.1), st.floats(0.9, 1.1))
def test_requests_are_taken_to_be_as_they_were_until_they_are_clearly_different(
    lab: Any, isl: float, osl: float, longer: float, later: float
) -> None:
    first, second = window(1e4, 1, isl, osl), window(1e4, 1, isl * longer, osl * later)
    before, after = learn(config_for(lab), first).requests, learn(config_for(lab), first, second).requests
    assert (before.isl, before.osl) == pytest.approx((isl, osl))
    if max(abs(1 - 1 / longer), abs(1 - 1 / later)) < 0.029:
        assert after == before
    elif max(abs(1 - 1 / longer), abs(1 - 1 / later)) > 0.031:
        assert (after.isl, after.osl) == pytest.approx((isl * longer, osl * later))
