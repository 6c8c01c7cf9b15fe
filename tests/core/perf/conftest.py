from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from planner_core import FpmBatch, Role
from planner_core.perf import BatchLoad, PerfModel, Profiled


def profile(factor: float = 1.0, *, knee: float = 0.0, extra_ms: float = 0.0) -> Profiled:
    """An engine of 8 ms a pass, 20 µs a prompt token, 0.1 ms a request, 50 ns a KV token; ``knee`` bends its curves."""
    isl = np.array([128, 256, 512, 1024, 2048, 4096, 8192, 16384.0])
    context, requests = (
        grid.ravel() for grid in np.meshgrid([500, 1000, 2000, 4000, 8000.0], [1, 4, 16, 64, 128, 256.0])
    )
    ttft_ms = 8 + extra_ms + np.hypot(20e-3 * isl, knee) - knee + 1e-6 * isl**2 / 2
    itl_ms = 8 + np.hypot(0.1 * requests, knee) - knee + 50e-6 * requests * context
    return Profiled(
        prefill_isl_tokens=isl,
        prefill_ttft_ms=factor * ttft_ms,
        decode_kv_tokens=requests * context,
        decode_context_tokens=context,
        decode_itl_ms=factor * itl_ms,
        max_kv_tokens=2_048_000,
    )


def passes(
    truth: PerfModel[Any], role: Role, num: int, seed: int = 0, noise: float = 0.0, slower: float = 1.0
) -> FpmBatch:
    """Passes of an engine of which ``truth`` is true, over the whole range of loads."""
    dice = np.random.default_rng(seed)
    tokens = np.round(np.exp(dice.uniform(np.log(128), np.log(8192), num))) * role.prefills
    requests = np.round(np.exp(dice.uniform(0, np.log(256), num))) * role.decodes
    if role is Role.AGG:
        tokens *= dice.random(num) < 0.5
    kv_tokens = np.round(requests * np.exp(dice.uniform(np.log(500), np.log(8000), num)))
    batch = FpmBatch(
        worker_id=["w0"] * num,
        wall_time_s=np.ones(num),
        num_prefill=(tokens > 0) * 1.0,
        prefill_tokens=tokens,
        num_decode=requests,
        decode_kv_tokens=kv_tokens,
    )
    estimate = truth.iteration_s(truth.init(), BatchLoad.of(batch))
    assert estimate is not None
    return attrs.evolve(batch, wall_time_s=slower * estimate.mean_s * (1 + noise * dice.standard_normal(num)))


def rows(batch: FpmBatch, index: Any) -> FpmBatch:
    columns: Any = {f.name: getattr(batch, f.name)[index] for f in attrs.fields(FpmBatch) if f.init}
    return FpmBatch(**columns)


def learn(model: PerfModel[Any], batch: FpmBatch, state: Any = None, at_once: int = 4) -> Any:
    state = model.init() if state is None else state
    for start in range(0, len(batch), at_once):
        state = model.observe(state, rows(batch, slice(start, start + at_once)))
    return state


def ratios(model: PerfModel[Any], state: Any, test: FpmBatch) -> np.ndarray[Any, Any]:
    """Estimate over truth, pass by pass."""
    estimate = model.iteration_s(state, BatchLoad.of(test))
    assert estimate is not None
    found: np.ndarray[Any, Any] = np.asarray(estimate.mean_s) / test.wall_time_s
    return found


def error(model: PerfModel[Any], state: Any, test: FpmBatch) -> float:
    """Median error over passes."""
    return float(np.median(np.abs(ratios(model, state, test) - 1)))


class Bench:
    """The builders above, under one name, for tests."""

    profile = staticmethod(profile)
    passes = staticmethod(passes)
    rows = staticmethod(rows)
    learn = staticmethod(learn)
    ratios = staticmethod(ratios)
    error = staticmethod(error)


@pytest.fixture(scope="session")
def bench() -> type[Bench]:
    return Bench


@pytest.fixture(scope="session")
def real_profiles(shared_data: Path) -> dict[str, Profiled]:
    """The profiles of ../shared/data by name, read with nothing but numpy."""
    found = {}
    for file in sorted((shared_data / "profiles").glob("*.npz")):
        data = np.load(file)
        isl, first = np.unique(data["prefill_isl"].astype(float), return_index=True)
        max_kv_tokens = float(np.ravel(data["max_kv_tokens"])[0])
        found[file.stem] = Profiled(
            prefill_isl_tokens=isl,
            prefill_ttft_ms=data["prefill_ttft"][first],
            decode_kv_tokens=data["x_kv_usage"] * max_kv_tokens,
            decode_context_tokens=data["y_context_length"],
            decode_itl_ms=data["z_itl"],
            max_kv_tokens=int(max_kv_tokens),
        )
    return found
