"""Passes from counters against the passes themselves, and against a real vLLM engine."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from planner_adapters.prometheus.derive import EngineId, passes_between
from planner_adapters.prometheus.readings import Reading
from planner_core import EngineSpec, FpmBatch, Role
from planner_core.perf import BatchLoad, Linear
from planner_core.perf.protocol import pairs

SPEC = EngineSpec(max_kv_tokens=200_000)


def engine(role: Role) -> EngineId:
    return EngineId(worker_id="a", dp_rank=0, role=role)


def learned(readings: list[Reading], role: Role, spec: EngineSpec = SPEC) -> FpmBatch:
    rows = []
    for before, now in itertools.pairwise(readings):
        rows += passes_between(engine(role), before, now, spec)
    return FpmBatch.of(rows)


def wall_s(prefill_tokens: Any, num_decode: Any, kv_tokens: Any) -> Any:
    """An 8B model on a large GPU, roughly."""
    return 0.006 + 4e-5 * prefill_tokens + 2e-5 * num_decode + 3e-8 * kv_tokens


def at_work(
    seed: int, role: Role, *, seconds: int = 300, every_s: float = 5.0, ask: float = 0.1
) -> list[Reading]:
    """Readings of an engine whose load wanders; each pass takes :func:`wall_s`."""
    rng = np.random.default_rng(seed)
    now_s, scrape_s, num_decode, context = 0.0, 0.0, 20.0, 1000.0
    sums = dict.fromkeys(
        (
            "passes",
            "prompt_tokens",
            "cached_prompt_tokens",
            "prompts",
            "first_token_s",
            "generated_tokens",
            "token_gaps",
            "token_gap_s",
        ),
        0.0,
    )
    readings = []
    while now_s < seconds:
        decodes = round(num_decode) if role.decodes else 0
        prompt = int(rng.integers(100, 4000)) if role.prefills and (not decodes or rng.random() < ask) else 0
        took_s = wall_s(prompt, decodes, decodes * context)
        now_s += took_s
        sums["passes"] += 1
        sums["prompt_tokens"] += prompt
        sums["prompts"] += prompt > 0
        sums["first_token_s"] += 0.5 * (prompt > 0)
        sums["generated_tokens"] += decodes + (prompt > 0)
        sums["token_gaps"] += decodes
        sums["token_gap_s"] += decodes * took_s
        num_decode = float(np.clip(num_decode + rng.normal(0, 0.6), 1, 80))
        context = float(np.clip(context + rng.normal(0, 8), 200, 2500))
        if now_s >= scrape_s:
            scrape_s += every_s
            values: dict[Any, float] = {
                "running": max(decodes, 1),
                "waiting": 2,
                "kv_tokens": decodes * context,
                **sums,
            }
            readings.append(Reading(now_s, values))
    return readings


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_model_learns_from_counters_what_it_would_learn_from_passes(seed: int, role: Role) -> None:
    batch = learned(at_work(seed, role), role)
    model = Linear()
    state = model.observe(model.init(), batch)
    means = batch.learnable
    estimate = model.iteration_s(
        state,
        BatchLoad(
            prefill_tokens=batch.prefill_tokens[means],
            prefill_pairs=pairs(batch)[means],
            num_decode=batch.num_decode[means],
            decode_kv_tokens=batch.decode_kv_tokens[means],
        ),
    )
    assert estimate is not None
    true_s = wall_s(batch.prefill_tokens[means], batch.num_decode[means], batch.decode_kv_tokens[means])
    error = np.abs(estimate.mean_s / true_s - 1)
    assert np.median(error) < 0.03
    assert error.max() < 0.15


@pytest.mark.parametrize("role", list(Role))
def test_the_mean_pass_takes_what_the_model_says_of_it(role: Role) -> None:
    batch = learned(at_work(4, role), role)
    means = batch.learnable
    assert means.sum() > 50
    true_s = wall_s(batch.prefill_tokens[means], batch.num_decode[means], batch.decode_kv_tokens[means])
    assert batch.wall_time_s[means] == pytest.approx(true_s, rel=0.05)


def test_without_a_count_of_passes_gaps_between_tokens_tell_them() -> None:
    readings = [
        Reading(r.at_s, {q: v for q, v in r.values.items() if q != "passes"}) for r in at_work(5, Role.DECODE)
    ]
    batch = learned(readings, Role.DECODE)
    means = batch.learnable
    true_s = wall_s(0, batch.num_decode[means], batch.decode_kv_tokens[means])
    assert batch.wall_time_s[means] == pytest.approx(true_s, rel=0.05)


def test_an_engine_that_idles_in_between_is_not_taken_for_a_slow_one() -> None:
    """One request of 40 passes at 10 ms in each interval of 5 s, and running at both ends by chance."""

    def reading(number: int) -> Reading:
        passes = 40 * number
        return Reading(
            5.0 * number,
            {
                "running": 1,
                "waiting": 0,
                "kv_tokens": 500,
                "passes": passes + number,
                "prompts": number,
                "prompt_tokens": 500 * number,
                "first_token_s": 0.05 * number,
                "generated_tokens": passes + number,
                "token_gaps": passes,
                "token_gap_s": 0.01 * passes,
            },
        )

    batch = learned([reading(0), reading(1)], Role.AGG)
    assert batch.wall_time_s[0] == pytest.approx((0.4 + 0.05) / 41)


def test_more_tokens_than_one_pass_holds_are_several_passes() -> None:
    before = Reading(0.0, {"running": 1, "waiting": 1, "passes": 0, "prompts": 0, "prompt_tokens": 0})
    now = Reading(4.0, {"running": 1, "waiting": 1, "passes": 2, "prompts": 2, "prompt_tokens": 64_000})
    spec = EngineSpec(max_num_batched_tokens=8000)
    mean = passes_between(engine(Role.PREFILL), before, now, spec)[0]
    assert (mean.prefill_tokens, mean.wall_time_s) == (8000, 0.5)


def test_speculation_divides_tokens_by_their_number_per_step() -> None:
    base = {"running": 8, "waiting": 0, "kv_tokens": 8000}
    counters = {"passes": 100, "prompts": 0, "generated_tokens": 2000, "drafts": 800, "accepted_tokens": 1200}
    before = Reading(0.0, base | dict.fromkeys(counters, 0))
    mean = passes_between(engine(Role.DECODE), before, Reading(5.0, base | counters), SPEC)[0]
    assert mean.num_decode == 8


@given(
    st.integers(1, 50),
    st.floats(10, 1e4),
    st.floats(0, 1e4),
    st.integers(50, 500),
)
def test_a_fraction_of_a_prompt_has_the_attention_of_the_prompts_behind_it(
    prompts: int, length: float, cached: float, passes: int
) -> None:
    base = {"running": 3, "waiting": 0, "kv_tokens": 3000}
    counters = {
        "passes": passes,
        "prompts": prompts,
        "prompt_tokens": prompts * (length + cached),
        "cached_prompt_tokens": prompts * cached,
        "generated_tokens": 3 * passes + prompts,
    }
    before = Reading(0.0, base | dict.fromkeys(counters, 0))
    mean = passes_between(engine(Role.AGG), before, Reading(5.0, base | counters), SPEC)[0]
    true = prompts * (length**2 / 2 + length * cached) / passes
    assert pairs(FpmBatch.of([mean]))[0] == pytest.approx(true)


@example({"prompt_tokens": 2.0, "prompts": 1.1e-308, "passes": 1.0, "generated_tokens": 1.0})
@given(
    st.dictionaries(st.sampled_from(sorted(at_work(0, Role.AGG, seconds=6)[0].values)), st.floats(0, 1e12))
)
def test_whatever_an_engine_says_its_passes_are_possible_or_unknown(values: dict[Any, float]) -> None:
    before = Reading(0.0, {"running": 1, "waiting": 1, "kv_tokens": 5})
    now = Reading(5.0, {"running": 1, "waiting": 1, "kv_tokens": 5, **values})
    for role in Role:
        for row in passes_between(engine(role), before, now, SPEC):
            numbers = [v for v in vars_of(row) if not math.isnan(v)]
            assert all(0 <= v < math.inf for v in numbers)


def vars_of(row: Any) -> list[float]:
    return [
        row.wall_time_s,
        row.num_prefill,
        row.prefill_tokens,
        row.num_decode,
        row.decode_kv_tokens,
        row.queued_prefill_tokens,
    ]


@pytest.mark.parametrize("gpu", ["RTX4090", "RTXPRO6000"])
def test_a_real_vllm_engine_is_seen_as_it_was(shared_data: Path, gpu: str) -> None:
    """vLLM 0.19's log of each second beside its requests' own times: neither knows the other."""
    readings, running = real_readings(shared_data, gpu, every=5)
    batch = learned(readings, Role.AGG)
    means = batch.learnable
    assert means.sum() >= 8
    derived = batch.num_decode[means]
    error = np.abs(derived / running[: len(derived)] - 1)
    assert np.median(error) < 0.15  # a request's mean gap stands for its gaps of this second


def real_readings(data: Path, gpu: str, *, every: int) -> tuple[list[Reading], Any]:
    """What /metrics would have said each few seconds, and the mean number of running requests between them.

    Tokens, batch, queue and KV cache come from the engine's log, gaps between tokens from the requests' times.
    """
    stem = data / "telemetry" / f"vllm_{gpu}_Llama-3.1-8B"
    log = pd.read_csv(f"{stem}_engine_1s.csv.gz")
    requests = pd.read_csv(f"{stem}_requests.csv.gz")
    first_s = requests.arrival_s + requests.ttft_ms / 1e3
    last_s = requests.arrival_s + requests.e2e_ms / 1e3
    readings, running = [], []
    for end in range(0, len(log), every):
        so_far = log.iloc[: end + 1]
        now_s = float(log.t[end])
        decoded_s = (last_s.clip(upper=now_s) - first_s).clip(lower=0)
        values: dict[Any, float] = {
            "running": float(log.running[end]),
            "waiting": float(log.waiting[end]),
            "kv_share": float(log.kv_cache_pct[end]) / 100,
            "prompt_tokens": float(so_far.prompt_throughput.sum()),
            "generated_tokens": float(so_far.gen_throughput.sum()),
            "prompts": float((first_s <= now_s).sum()),
            "first_token_s": float(requests.ttft_ms[first_s <= now_s].sum() / 1e3),
            "token_gap_s": float(decoded_s.sum()),
            "token_gaps": float((decoded_s / (requests.tpot_ms / 1e3)).sum()),
        }
        readings.append(Reading(now_s, values))
        running.append(log.running[max(0, end - every + 1) : end + 1].mean())
    return readings, np.array(running[1:])
