"""More work never gets fewer replicas, nor does a stricter promise; names and order of engines say nothing."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_core import EngineSpec, FpmBatch, TickInput, initial_state, tick
from planner_core.perf import BatchLoad, Estimate
from planner_core.testing import configs, fpm_batches, tick_inputs, traffic_observations, worker_counts

TARGETS = ["throughput", "latency", "load", "sla"]
SPEC = EngineSpec(max_num_batched_tokens=8192, max_num_seqs=256, max_kv_tokens=400_000, context_length=16_384)
ENGINE = [field.name for field in attrs.fields(FpmBatch) if field.init]


@attrs.frozen
class Known:
    """A performance model that has nothing to learn, so that one tick can be compared with another."""

    def init(self) -> int:
        return 0

    def observe(self, state: int, batch: FpmBatch) -> int:
        return state

    def iteration_s(self, state: int, load: BatchLoad) -> Estimate:
        prompts = 2e-5 * load.prefill_tokens + 1e-9 * load.prefill_pairs
        mean_s = 0.01 + prompts + 1e-4 * load.num_decode + 1e-7 * load.decode_kv_tokens
        return Estimate(mean_s=mean_s, std_s=0.05 * mean_s)


@st.composite
def moments(draw: st.DrawFn, target: Any) -> TickInput:
    """A tick of a planner that knows its engines, at work or idle, with any counts, traffic and limits."""
    config = draw(configs(target=target))
    engines = {role: attrs.evolve(spec, **known(SPEC)) for role, spec in config.engines.items()}
    config = attrs.evolve(config, engines=engines, perf=Known())
    return TickInput(
        config=config,
        state=initial_state(config, 0.0),
        now_s=draw(st.sampled_from([5.0, 180.0])),
        workers={role: draw(worker_counts()) for role in engines if draw(st.integers(0, 3))},
        fpm={role: draw(fpm_batches(role)) for role in engines},
        traffic=draw(st.none() | traffic_observations()),
    )


def known(spec: EngineSpec) -> dict[str, Any]:
    return {
        name: getattr(spec, name)
        for name in ("max_num_batched_tokens", "max_num_seqs", "max_kv_tokens", "context_length")
    }


def rows(batch: FpmBatch, index: Any) -> FpmBatch:
    columns: Any = {name: getattr(batch, name)[index] for name in ENGINE}
    return FpmBatch(**columns)


def with_queue(batch: FpmBatch, factor: float) -> FpmBatch:
    """The same engines with queues ``factor`` times as long."""
    longer: Any = {
        name: factor * getattr(batch, name)
        for name in ENGINE
        if name.startswith("queued_num") or (name.endswith("_tokens") and name.startswith("queued"))
    }
    return attrs.evolve(batch, **longer)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=60)
@given(st.data(), st.integers(2, 1000))
def test_a_longer_queue_never_gives_a_role_fewer_replicas(
    target: str, data: st.DataObject, factor: int
) -> None:
    inputs = data.draw(moments(target))
    before = tick(inputs).replicas
    for role, batch in inputs.fpm.items():
        longer = attrs.evolve(inputs, fpm={**inputs.fpm, role: with_queue(batch, factor)})
        after = tick(longer).replicas
        if role in before:
            assert after[role] >= before[role]


@settings(max_examples=120)
@given(moments("sla"), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_tighter_sla_never_gives_a_smaller_fleet(inputs: TickInput, ttft: float, itl: float) -> None:
    config = inputs.config
    free = attrs.evolve(config, limits=attrs.evolve(config.limits, max_gpus=None))  # roles don't compete
    sla = attrs.evolve(config.sla, ttft_ms=ttft * config.sla.ttft_ms, itl_ms=itl * config.sla.itl_ms)
    loose = tick(attrs.evolve(inputs, config=free)).replicas
    tight = tick(attrs.evolve(inputs, config=attrs.evolve(free, sla=sla))).replicas
    assert all(tight[role] >= replicas for role, replicas in loose.items())


@settings(max_examples=60)
@given(tick_inputs())
def test_new_names_of_engines_change_nothing_but_the_names(inputs: TickInput) -> None:
    def renamed(name: str) -> str:
        return f"renamed {name.encode('utf-8', 'surrogatepass').hex()}"

    fpm = {
        role: attrs.evolve(
            batch,
            worker_id=[renamed(name) for name in batch.worker_id.tolist()] if len(batch) else batch.worker_id,
        )
        for role, batch in inputs.fpm.items()
    }
    one, other = tick(inputs), tick(attrs.evolve(inputs, fpm=fpm))
    drain = {role: tuple(renamed(name) for name in names) for role, names in one.drain.items()}
    assert attrs.evolve(one, drain=drain) == other


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=60)
@given(st.data())
def test_the_order_of_the_engines_changes_no_count(target: str, data: st.DataObject) -> None:
    inputs = data.draw(moments(target))
    fpm = {}
    for role, batch in inputs.fpm.items():
        names = sorted(set(batch.worker_id.tolist()))
        place = {name: n for n, name in enumerate(data.draw(st.permutations(names)))}
        order = np.argsort([place[name] for name in batch.worker_id.tolist()], kind="stable").astype(np.int64)
        fpm[role] = rows(batch, order)
    assert tick(attrs.evolve(inputs, fpm=fpm)).replicas == tick(inputs).replicas
