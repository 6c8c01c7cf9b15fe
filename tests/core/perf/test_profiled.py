from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import ConfigError
from planner_core.codec import dumps, loads
from planner_core.perf import BatchLoad, Profiled
from planner_core.testing import check_perf_model

tokens_ = st.floats(1, 200_000)
requests_ = st.integers(1, 2000).map(float)
context_ = st.floats(1, 100_000)


def seconds(model: Profiled, tokens: float = 0, requests: float = 0, context: float = 0) -> float:
    load = BatchLoad(
        prefill_tokens=float(tokens),
        prefill_pairs=float(tokens) ** 2 / 2,
        num_decode=float(requests),
        decode_kv_tokens=float(requests * context),
    )
    return float(model.iteration_s((), load).mean_s)


@pytest.mark.parametrize("knee", [0.0, 30.0])
def test_it_is_a_performance_model(bench: Any, knee: float) -> None:
    check_perf_model(bench.profile(knee=knee))


def test_points_of_a_profile_are_given_back(bench: Any) -> None:
    for knee in (0.0, 5.0):
        assert bench.profile(knee=knee).errors().max() < 0.02


def test_every_real_profile_is_given_back(real_profiles: dict[str, Profiled]) -> None:
    for name, profile in real_profiles.items():
        num_prefill = len(profile.prefill_isl_tokens)
        prefill, decode = profile.errors()[:num_prefill], profile.errors()[num_prefill:]
        assert prefill.max() < 0.01, name
        assert np.median(decode) < 0.03, name
        assert decode.max() < 0.15, name


def test_points_between_the_profiled_ones_are_near_the_truth(bench: Any) -> None:
    model = bench.profile()
    for tokens, requests, context in ((700, 0, 0), (6000, 0, 0), (0, 30, 700), (0, 200, 5000)):
        ttft_ms = 8 + 20e-3 * tokens + 1e-6 * tokens**2 / 2
        itl_ms = 8 + 0.1 * requests + 50e-6 * requests * context
        truth_ms = ttft_ms if tokens else itl_ms
        assert seconds(model, tokens, requests, context) * 1e3 == pytest.approx(truth_ms, rel=0.02)


def test_beyond_the_profile_it_goes_on_as_before_and_is_less_sure(bench: Any) -> None:
    model = bench.profile()
    tokens, requests = 65_536, 1024
    assert seconds(model, tokens) * 1e3 == pytest.approx(8 + 20e-3 * tokens + 1e-6 * tokens**2 / 2, rel=0.05)
    assert seconds(model, 0, requests, 16_000) * 1e3 == pytest.approx(
        8 + 0.1 * requests + 50e-6 * requests * 16_000, rel=0.05
    )
    inside, beyond = (
        model.iteration_s((), BatchLoad(num_decode=n, decode_kv_tokens=n * 1000.0)) for n in (256.0, 1024.0)
    )
    assert beyond.std_s / beyond.mean_s > 2 * inside.std_s / inside.mean_s


@pytest.mark.parametrize("knee", [0.0, 30.0])
@given(tokens=tokens_, requests=requests_, context=context_, more=st.floats(1, 3))
def test_more_work_never_takes_less_time(
    bench: Any, knee: float, tokens: float, requests: float, context: float, more: float
) -> None:
    model = bench.profile(knee=knee)
    base = seconds(model, tokens, requests, context)
    grown = (
        seconds(model, tokens * more, requests, context),
        seconds(model, tokens, np.ceil(requests * more), context),
        seconds(model, tokens, requests, context * more),
    )
    for longer in grown:
        assert longer >= base * (1 - 1e-9)
    assert seconds(model, 0, requests, context) <= base
    assert np.isfinite(base)


def test_noisy_points_are_made_monotone(bench: Any) -> None:
    clean = bench.profile()
    dice = np.random.default_rng(1)
    noisy = attrs.evolve(
        clean,
        prefill_ttft_ms=clean.prefill_ttft_ms * dice.normal(1, 0.1, len(clean.prefill_ttft_ms)),
        decode_itl_ms=clean.decode_itl_ms * dice.normal(1, 0.1, len(clean.decode_itl_ms)),
    )
    requests = np.arange(1.0, 400.0)
    for context in (100.0, 3000.0, 20_000.0):
        load = BatchLoad(num_decode=requests, decode_kv_tokens=requests * context)
        assert (np.diff(noisy.iteration_s((), load).mean_s) >= -1e-12).all()


def test_a_mixed_pass_reads_the_weights_once(bench: Any) -> None:
    model = bench.profile()
    mixed, prompt, decodes = (
        seconds(model, *load) for load in ((2000, 64, 1000), (2000, 0, 0), (0, 64, 1000))
    )
    assert max(prompt, decodes) < mixed < prompt + decodes - 0.006


def test_a_front_end_in_the_measured_ttft_counts_in_every_pass_with_prompts(bench: Any) -> None:
    plain, slow = bench.profile(), bench.profile(extra_ms=15.0)
    assert seconds(slow, 1, 64, 1000) - seconds(plain, 1, 64, 1000) == pytest.approx(0.015, abs=1e-3)
    assert seconds(slow, 0, 64, 1000) == pytest.approx(seconds(plain, 0, 64, 1000))


def test_batches_beyond_what_one_context_was_profiled_with_keep_the_cost_of_a_kv_token() -> None:
    """Long contexts fill the memory with few requests; only short ones were profiled with many."""
    context = np.array([500.0] * 5 + [8000.0] * 3)
    requests = np.array([1, 8, 64, 256, 1024, 1, 8, 64.0])
    itl_ms = 5 + 0.02 * requests + 40e-6 * requests * context
    model = Profiled(
        prefill_isl_tokens=[100, 1000],
        prefill_ttft_ms=[10, 30],
        decode_kv_tokens=requests * context,
        decode_context_tokens=context,
        decode_itl_ms=itl_ms,
    )
    truth_s = (5 + 0.02 * 512 + 40e-6 * 512 * 3000) / 1e3
    assert seconds(model, 0, 512, 3000) == pytest.approx(truth_s, rel=0.05)


def test_batches_that_rounding_moved_are_one_batch(bench: Any) -> None:
    """They are told as shares of the cache."""
    exact = bench.profile()
    moved = attrs.evolve(
        exact,
        decode_kv_tokens=exact.decode_kv_tokens * (1 + 1e-8 * (np.arange(30) % 3 - 1)),
        decode_itl_ms=exact.decode_itl_ms * (1 + 0.01 * (np.arange(30) % 2)),
    )
    for requests in (1, 16, 40, 256):
        assert seconds(moved, 0, requests, 3000) == pytest.approx(
            seconds(exact, 0, requests, 3000), rel=0.015
        )


def test_it_is_equal_to_what_comes_back_from_json(bench: Any) -> None:
    model = bench.profile()
    assert loads(dumps(model), Profiled) == model
    assert bench.profile(1.01) != model


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("prefill_ttft_ms", [1.0], "equally long"),
        ("prefill_ttft_ms", [1.0] * 7 + [np.nan], "finite and above 0"),
        ("prefill_isl_tokens", [5.0] * 8, "two lengths or more, rising"),
        ("decode_itl_ms", [0.0] * 30, "finite and above 0"),
        ("decode_context_tokens", [1000.0] * 30, "two lengths or more"),
        (
            "decode_kv_tokens",
            np.repeat([[500, 1000, 2000, 4000, 8000.0]], 6, 0).ravel(),
            "two batches or more",
        ),
        ("max_kv_tokens", 0, r"Profiled\.max_kv_tokens = 0"),
    ],
)
def test_columns_that_are_no_profile_are_refused(bench: Any, field: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        attrs.evolve(bench.profile(), **{field: value})
