from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_adapters.dynamo.profiles import ProfileError, load_profile
from planner_adapters.simulation import PRESETS, Curve, EngineModel, EngineTiming
from planner_core.perf import Profiled

PREFILL: dict[str, Any] = {
    "prefill_isl": [128.0, 1024.0, 4096.0, 16384.0],
    "prefill_ttft": [12.0, 25.0, 90.0, 440.0],
    "prefill_thpt_per_gpu": [5333.3, 20480.0, 22755.6, 18618.2],
}
DECODE: dict[str, Any] = {
    "x_kv_usage": [0.001, 0.064, 0.512, 0.004, 0.128, 0.512],
    "y_context_length": [1000.0, 1000.0, 1000.0, 4000.0, 4000.0, 4000.0],
    "z_itl": [6.0, 10.0, 40.0, 6.2, 11.0, 27.0],
    "max_kv_tokens": [1_000_000],
}

presets = pytest.mark.parametrize("timing", [model.timing for model in PRESETS.values()], ids=list(PRESETS))
loads = st.tuples(
    st.integers(0, 20_000), st.integers(0, 100_000), st.integers(0, 300), st.integers(1, 5_000)
).filter(lambda load: load[0] or load[2])


def profile_of(directory: Path) -> Profiled:
    (directory / "prefill_raw_data.json").write_text(json.dumps(PREFILL))
    (directory / "decode_raw_data.json").write_text(json.dumps(DECODE))
    return load_profile(directory)


def pass_s(timing: EngineTiming, load: tuple[int, int, int, int]) -> float:
    prefill_tokens, prefill_context_tokens, num_decode, context = load
    return timing.pass_s(
        prefill_tokens=prefill_tokens,
        prefill_context_tokens=prefill_context_tokens,
        num_decode=num_decode,
        decode_kv_tokens=num_decode * context,
    )


def test_gives_back_the_measured_points(tmp_path: Path) -> None:
    profile = profile_of(tmp_path)
    timing = EngineTiming.from_profile(profile)
    for isl, ttft_ms in zip(PREFILL["prefill_isl"], PREFILL["prefill_ttft"], strict=True):
        assert timing.pass_s(prefill_tokens=int(isl)) == pytest.approx(ttft_ms / 1e3)
    for kv, context, itl_ms in zip(
        profile.decode_kv_tokens, profile.decode_context_tokens, profile.decode_itl_ms, strict=True
    ):
        measured = timing.pass_s(num_decode=round(kv / context), decode_kv_tokens=int(kv))
        assert measured == pytest.approx(itl_ms / 1e3)


def test_the_three_shapes_of_a_profile_read_the_same(tmp_path: Path) -> None:
    from_json = profile_of(tmp_path)
    for half, columns in (("prefill", PREFILL), ("decode", DECODE)):
        (tmp_path / "npz" / f"selected_{half}_interpolation").mkdir(parents=True)
        np.savez(tmp_path / "npz" / f"selected_{half}_interpolation" / "raw_data.npz", **columns)
    np.savez(tmp_path / "both.npz", **PREFILL, **DECODE)
    assert load_profile(tmp_path / "npz") == from_json
    assert load_profile(tmp_path / "both.npz") == from_json
    assert (from_json.max_kv_tokens, from_json.num_gpus) == (1_000_000, 2)


def test_reads_decode_times_on_a_grid(tmp_path: Path) -> None:
    kv, context = np.array([0.0, 8_000.0, 64_000.0]), np.array([500.0, 1_000.0, 2_000.0])
    itl = 5 + kv[:, None] / 1_000 + 0.02 * kv[:, None] / context
    np.savez(
        tmp_path / "grid.npz",
        prefill_isl=[100.0, 1_000.0],
        prefill_ttft_ms=[10.0, 30.0],
        decode_active_kv_tokens=kv,
        decode_context_length=context,
        decode_itl=itl,
    )
    timing = EngineTiming.from_profile(load_profile(tmp_path / "grid.npz"))
    assert timing.pass_s(num_decode=8, decode_kv_tokens=8_000) == pytest.approx(itl[1, 1] / 1e3)
    assert timing.pass_s(num_decode=32, decode_kv_tokens=64_000) == pytest.approx(itl[2, 2] / 1e3)


@pytest.mark.parametrize(
    ("half", "key", "value", "words"),
    [
        ("prefill", "prefill_ttft", None, "'prefill_ttft' is missing"),
        ("prefill", "prefill_ttft", [12.0, 25.0], "differ in length"),
        ("prefill", "prefill_isl", [128.0, float("nan"), 4096.0, 16384.0], "entry 1 is nan"),
        ("prefill", "prefill_isl", "many", "no plain numbers"),
        ("prefill", "prefill_isl", [128.0] * 4, "at least two"),
        ("decode", "z_itl", [0.0] * 6, "entry 0 is 0.0"),
        ("decode", "x_kv_usage", [1.0, 64.0, 512.0, 4.0, 128.0, 512.0], "0 to 1"),
        ("decode", "y_context_length", [1000.0] * 6, "fewer than two context lengths"),
    ],
)
def test_a_broken_profile_gets_one_line_that_names_file_and_key(
    tmp_path: Path, half: str, key: str, value: object, words: str
) -> None:
    profile_of(tmp_path)
    columns = dict(PREFILL if half == "prefill" else DECODE)
    columns.pop(key)
    if value is not None:
        columns[key] = value
    file = tmp_path / f"{half}_raw_data.json"
    file.write_text(json.dumps(columns))
    with pytest.raises(ProfileError) as error:
        load_profile(tmp_path)
    assert str(error.value).startswith(str(file))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_path_without_a_profile_says_what_a_profile_is(tmp_path: Path) -> None:
    (tmp_path / "notes.npz").write_text("not a zip")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "notes.npz"):
        with pytest.raises(ProfileError, match="a profile is a directory with"):
            load_profile(path)


@presets
@given(load=loads, more=loads)
def test_more_work_never_takes_less_time(
    timing: EngineTiming, load: tuple[int, int, int, int], more: tuple[int, int, int, int]
) -> None:
    larger = tuple(max(a, b) for a, b in zip(load, more, strict=True))
    assert 0 < pass_s(timing, load) <= pass_s(timing, larger) * (1 + 1e-9)  # type: ignore[arg-type]


@presets
def test_a_mixed_pass_is_shorter_than_its_parts_and_longer_than_each(timing: EngineTiming) -> None:
    prefill = timing.pass_s(prefill_tokens=2_048)
    decode = timing.pass_s(num_decode=64, decode_kv_tokens=64_000)
    mixed = timing.pass_s(prefill_tokens=2_048, num_decode=64, decode_kv_tokens=64_000)
    assert max(prefill, decode) < mixed < prefill + decode
    as_in_the_mocker = attrs.evolve(timing, mixed_pass_reads_weights_once=False)
    mixed = as_in_the_mocker.pass_s(prefill_tokens=2_048, num_decode=64, decode_kv_tokens=64_000)
    assert mixed == pytest.approx(prefill + decode)


@presets
def test_the_chunks_of_a_prompt_cost_what_the_prompt_costs_and_their_weights(timing: EngineTiming) -> None:
    whole = timing.pass_s(prefill_tokens=16_384)
    chunks = sum(
        timing.pass_s(prefill_tokens=4_096, prefill_context_tokens=c) for c in range(0, 16_384, 4_096)
    )
    assert chunks - whole == pytest.approx(3 * timing.pass_s(prefill_tokens=0))


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [((0.0,), (1.0,), "at least two"), ((1, 1), (1, 2), "rise"), ((0, 1), (2, 1), "fall")],
)
def test_a_curve_that_falls_is_refused(x: tuple[float, ...], y: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Curve(x=x, y=y)


def test_a_timing_in_which_nothing_takes_time_is_refused() -> None:
    nothing = Curve(x=(0.0, 1.0), y=(0.0, 0.0))
    with pytest.raises(ValueError, match="must be above 0"):
        EngineTiming(dense=nothing, attention_s_per_pair=0.0, decode=((0.0, nothing), (1.0, nothing)))


def test_every_real_profile_becomes_an_engine(shared_data: Path) -> None:
    for file in sorted((shared_data / "profiles").glob("*.npz")):
        profile = load_profile(file)
        model = EngineModel.from_profile(profile)
        assert model.max_kv_tokens == profile.max_kv_tokens
        assert f"tp{model.num_gpus}" in file.stem
        times_s = [model.timing.pass_s(prefill_tokens=int(isl)) for isl in profile.prefill_isl_tokens]
        np.testing.assert_allclose(times_s, profile.prefill_ttft_ms / 1e3, rtol=0.01)


def test_a_mixed_pass_takes_what_aggregated_operating_points_say(shared_data: Path) -> None:
    """A row's mean time per token: of osl iterations with a full batch, isl × batch / chunk carry a chunk."""
    errors = []
    for file in sorted((shared_data / "profiles").glob("aic_*.npz")):
        timing = EngineTiming.from_profile(load_profile(file))
        for isl, osl, batch, chunk, _, tpot_ms, _ in np.load(file)["agg_table"]:
            decode = {"num_decode": int(batch), "decode_kv_tokens": int(batch * (isl + osl / 2))}
            share = isl * batch / chunk / osl
            mixed_s = timing.pass_s(prefill_tokens=int(chunk), **decode)
            mean_s = share * mixed_s + (1 - share) * timing.pass_s(**decode)
            errors.append(abs(mean_s * 1e3 / tpot_ms - 1))
    assert np.median(errors) < 0.02
