from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import (
    Decision,
    EngineSpec,
    ForwardPassMetrics,
    FpmBatch,
    PlannerConfig,
    PlannerError,
    PlannerState,
    Role,
    ThroughputScaling,
    TickInput,
    TrafficObservation,
    WorkerCounts,
    initial_state,
    tick,
)
from planner_core.codec import CodecError, dumps, from_data, loads, register, to_data
from planner_core.perf import Linear, LinearState
from planner_core.predictors import Constant, Forecast
from planner_core.testing import (
    configs,
    decisions,
    engine_specs,
    forward_pass_metrics,
    fpm_batches,
    observed_latencies,
    tick_inputs,
    traffic_forecasts,
    traffic_observations,
    worker_counts,
)


@pytest.fixture
def state() -> PlannerState:
    return initial_state(PlannerConfig(engines={"agg": EngineSpec()}), now_s=0.0)


def there_and_back(value: Any) -> Any:
    text = dumps(value)
    back = loads(text, type(value))
    assert dumps(back) == text
    return back


@given(tick_inputs())
def test_an_input_and_its_decision_come_back_equal(inputs: TickInput) -> None:
    assert there_and_back(inputs) == inputs
    decision = tick(inputs)
    assert there_and_back(decision) == decision


@given(tick_inputs())
def test_an_input_from_json_gives_the_same_decision_to_the_byte(inputs: TickInput) -> None:
    assert dumps(tick(loads(dumps(inputs), TickInput))) == dumps(tick(inputs))


@given(
    configs()
    | worker_counts()
    | traffic_observations()
    | traffic_forecasts()
    | observed_latencies()
    | fpm_batches()
    | engine_specs()
    | decisions().map(lambda decision: decision.diagnostics)
)
def test_every_data_class_comes_back_equal(value: Any) -> None:
    assert there_and_back(value) == value


@given(forward_pass_metrics())
def test_a_record_comes_back_with_its_nan(record: ForwardPassMetrics) -> None:
    back = there_and_back(record)
    assert repr(back) == repr(record)


def test_the_text_is_one_line_that_any_reader_of_json_takes(state: PlannerState) -> None:
    text = dumps(state)
    assert "\n" not in text
    assert json.loads(text) == to_data(state)


def test_what_is_not_known_travels_as_null() -> None:
    batch = FpmBatch.of([ForwardPassMetrics(worker_id="a", wall_time_s=math.nan)])
    data = to_data(batch)
    assert data["wall_time_s"] == [None]
    assert data["worker_id"] == ["a"]
    assert math.isnan(from_data(data, FpmBatch).wall_time_s[0])


def test_whole_numbers_stay_whole_and_floats_keep_every_bit() -> None:
    window = TrafficObservation(duration_s=5, num_requests=0.1 + 0.2, isl=1.0)
    back = there_and_back(window)
    assert (type(back.duration_s), type(back.isl)) == (int, float)
    assert back.num_requests.hex() == (0.1 + 0.2).hex()


def test_numpy_numbers_are_written_as_numbers() -> None:
    counts = WorkerCounts(ready=np.int64(3), starting_ages_s=[np.float32(1.5)])  # type: ignore[arg-type]
    assert to_data(counts)["ready"] == 3
    assert there_and_back(counts) == counts


@pytest.mark.parametrize("name", ["\ud800", "\u2028", "\x00a", "💥", '"}', "<script>"])
def test_hostile_names_of_engines_come_back(name: str) -> None:
    batch = FpmBatch.of([ForwardPassMetrics(worker_id=name, wall_time_s=0.1)])
    assert there_and_back(batch).worker_id.tolist() == [name]


def test_arrays_keep_their_shape() -> None:
    for samples in (np.arange(10.0).reshape(2, 5), np.empty((0, 5))):
        learned = LinearState(samples=samples, num_seen=len(samples))
        assert there_and_back(learned) == learned
        assert there_and_back(learned).samples.shape == samples.shape


# --- data that can't be read


def changed(state: PlannerState, path: str, value: Any) -> Any:
    data = to_data(state)
    *inner, last = path.split(".")
    part = data
    for step in inner:
        part = part[step]
    part[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schedule.last_tick_s", "noon", "schedule.last_tick_s: 'noon' must be a number"),
        ("schedule.last_tick_s", True, "schedule.last_tick_s: True must be a number"),
        ("roles.agg.floor", 1.5, "roles.agg.floor: 1.5 must be a whole number"),
        (
            "roles.agg.needs.highest",
            [[1.0, 2], [3.0]],
            "roles.agg.needs.highest.1: [3.0] must be a list of 2",
        ),
        ("roles.agg.flor", 1, "roles.agg.flor: RoleState has no such field; did you mean floor?"),
        ("roles.prefil", {"perf": 1}, "roles.prefil: 'prefil' must be one of prefill, decode, agg"),
        ("demand", None, "demand: None must be an object with the fields of DemandState"),
        ("version", 2, "version: 2 must be 1, the version of PlannerState that this library reads"),
        ("roles.agg.perf.spread", [], "roles.agg.perf.spread: [] must be a number"),
        ("roles.agg.perf.coefficients", [1, "x"], "roles.agg.perf.coefficients: 'x' must be a number"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_path(
    state: PlannerState, path: str, value: Any, message: str
) -> None:
    with pytest.raises(CodecError) as caught:
        from_data(changed(state, path, value), PlannerState)
    assert str(caught.value) == message


def test_what_is_missing_is_named(state: PlannerState) -> None:
    data = to_data(state)
    del data["schedule"]["next_load_s"]
    with pytest.raises(CodecError, match=r"^schedule: ScheduleState lacks next_load_s$"):
        from_data(data, PlannerState)


def test_values_that_cannot_be_true_are_refused_as_they_are_when_built() -> None:
    with pytest.raises(CodecError, match=r"^ready: .*|WorkerCounts\.ready = -1: must be a whole number"):
        from_data({"ready": -1}, WorkerCounts)


@pytest.mark.parametrize("text", ["", "{", "nonsense", "NaN", "[" * 100_000, '"\\ud800'])
def test_what_is_no_json_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(CodecError) as caught:
        loads(text, PlannerState)
    assert "\n" not in str(caught.value)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=4))
def test_whatever_json_holds_is_read_or_refused(data: Any) -> None:
    for place in ("schedule", "demand", "roles", "version", "extra"):
        with pytest.raises(PlannerError):
            from_data({place: data}, PlannerState)


# --- extensions


@register
@attrs.frozen(kw_only=True)
class Drift:
    """A predictor of a user's own."""

    step: float = 1.0

    def init(self) -> tuple[float, ...]:
        return ()

    def observe(self, state: tuple[float, ...], value: float) -> tuple[float, ...]:
        return (value, self.step)

    def forecast(self, state: tuple[float, ...], steps: int = 1) -> Forecast | None:
        return Forecast(mean=np.full(steps, state[0]), std=np.zeros(steps)) if state else None


@register
@dataclasses.dataclass(frozen=True)
class Notes:
    lines: tuple[str, ...] = ()
    weights: Any = None


def test_built_in_extensions_travel_with_their_name() -> None:
    config = PlannerConfig(
        engines={"agg": EngineSpec()},
        perf={"agg": Linear(min_observations=3)},
        throughput=ThroughputScaling(predictor=Constant()),
    )
    data = to_data(config)
    assert data["throughput"]["predictor"] == {"type": "Constant", "memory": 32}
    assert there_and_back(config) == config


def test_a_predictor_of_ones_own_travels_once_it_is_registered() -> None:
    slow = ThroughputScaling(predictor=Drift(step=2.0))
    config = PlannerConfig(engines={"agg": EngineSpec()}, target="sla", throughput=slow)
    window = TrafficObservation(duration_s=180, num_requests=5)
    state = initial_state(config, now_s=0, traffic=[window, window])
    assert state.demand.rate == (5 / 180, 2.0)
    assert there_and_back(config) == config
    assert there_and_back(state) == state


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3).map(tuple)
            | st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            | st.builds(Notes, weights=inner)
        ),
        max_leaves=8,
    )
)
def test_a_state_made_of_plain_values_needs_no_registration(value: Any) -> None:
    assert there_and_back(Notes(weights=value)) == Notes(weights=value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.array([1, 2], dtype=np.uint8),
        np.array([math.nan, math.inf, -math.inf], dtype=np.float32),
        np.array(["a", "bc"]),
        np.array([True, False]),
        np.empty((0, 3)),
        np.array(3.5),
    ],
    ids=str,
)
def test_arrays_may_stand_anywhere(array: Any) -> None:
    back = loads(dumps(Notes(weights=array)), Notes).weights
    np.testing.assert_array_equal(back, array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)


class Unknown:
    pass


def test_an_unregistered_type_says_how_to_register_it(state: PlannerState) -> None:
    role = attrs.evolve(state.roles[Role.AGG], perf=Unknown())
    with pytest.raises(
        CodecError, match=r"^roles\.agg\.perf: a .*Unknown is not known: call .*register\(Unknown\)"
    ):
        dumps(attrs.evolve(state, roles={Role.AGG: role}))


@pytest.mark.parametrize("name", ["os.system", "Popen", "builtins.eval", 3, None, ["Linear"]])
def test_a_name_in_data_is_never_imported(state: PlannerState, name: Any) -> None:
    data = changed(state, "roles.agg.perf", {"type": name, "value": "true"})
    with pytest.raises(CodecError, match=r"^roles\.agg\.perf\.type: .* is not known"):
        from_data(data, PlannerState)


def test_a_class_of_any_make_travels_by_functions_of_its_own() -> None:
    register(Unknown, name="nothing", encode=lambda value: None, decode=lambda data: Unknown())
    assert isinstance(loads(dumps(Notes(weights=Unknown())), Notes).weights, Unknown)


def test_two_classes_cannot_share_a_name() -> None:
    with pytest.raises(CodecError, match=r"the name Linear is .*'s already"):
        register(Drift, name="Linear")


def test_a_class_without_fields_needs_functions() -> None:
    with pytest.raises(CodecError, match="give encode and decode"):
        register(type("Opaque", (), {}))


def test_a_class_may_be_registered_again_as_when_a_notebook_cell_is_run_twice() -> None:
    assert register(Drift) is Drift
    assert register(Constant) is Constant
    assert loads(dumps(Drift()), Drift) == Drift()


def test_decisions_of_a_replay_that_is_serialised_at_each_tick_are_the_same(state: PlannerState) -> None:
    config = PlannerConfig(engines={"agg": EngineSpec()})
    record = ForwardPassMetrics(worker_id="a", wall_time_s=0.1, num_decode=4, decode_kv_tokens=4000)
    live = resumed = state
    for now_s in range(5, 100, 5):
        rest: Any = {"now_s": now_s, "fpm": {"agg": [record]}, "workers": {"agg": WorkerCounts(ready=1)}}
        one = tick(TickInput(config=config, state=live, **rest))
        other = tick(TickInput(config=config, state=loads(dumps(resumed), PlannerState), **rest))
        assert dumps(one) == dumps(other)
        assert loads(dumps(one), Decision) == one
        live, resumed = one.state, other.state
