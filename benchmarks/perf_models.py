"""How well performance models know real engines: against public profiles, and against one-second steps of real ones.

Needs the profiles of ../shared/data/profiles. The truth of a pass is the simulator's, which reads the profile by a way
of its own. Live passes have 3 % noise; the first 5 % compile (5 to 20 times as slow), 2 % are paused (100 times).
"""

from __future__ import annotations

import csv
import gzip
import sys
import timeit
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from planner_adapters.dynamo.profiles import load_profile
from planner_adapters.profile import fit_profile
from planner_adapters.simulation.timing import EngineTiming, PassTimer
from planner_core import FpmBatch, Role
from planner_core.perf import BatchLoad, Blended, Linear, Profiled, Roofline

PROFILES = Path(__file__).parents[2] / "shared" / "data" / "profiles"
GPT_OSS: dict[str, float] = {
    "num_parameters": 117e9,
    "active_parameters": 5.1e9,
    "bytes_per_parameter": 0.53,
    "kv_bytes_per_token": 73_728,
}
SHEETS: dict[str, dict[str, Any]] = {
    "aic_Llama-3.1-70B-FP8_h200": {"num_parameters": 70.6e9, "bytes_per_parameter": 1, "num_gpus": 4},
    "aic_Llama-3.1-8B_a100": {"num_parameters": 8.03e9},
    "aic_Llama-3.1-8B_h100": {"num_parameters": 8.03e9},
    "aic_Llama-3.1-8B_l40s": {"num_parameters": 8.03e9},
    "aic_Qwen3-32B-FP8_h200": {"num_parameters": 32.8e9, "bytes_per_parameter": 1, "num_gpus": 2},
    "aic_gpt-oss-120b_h100": {**GPT_OSS, "num_gpus": 2},
    "dynamo_H200_Llama-3.1-8B-FP8": {"num_parameters": 8.03e9, "bytes_per_parameter": 1},
}
"""What is known of the models without a profile; the GPU is in the name."""
SEEDS = 3


def draw(profile: Profiled, timer: PassTimer, role: Role, num: int, dice: Any) -> FpmBatch:
    """Passes over the profiled range: log-uniform prompts, batches and contexts."""

    def between(low: Any, high: Any) -> Any:
        return np.exp(dice.uniform(np.log(low), np.log(high), num))

    isl, context = profile.prefill_isl_tokens, profile.decode_context_tokens
    tokens = np.round(between(isl[0], min(8192.0, isl[-1]))) * role.prefills
    if role is Role.AGG:
        tokens *= dice.random(num) < 0.5
    length = between(context.min(), context.max())
    most = np.minimum(profile.decode_kv_tokens.max() / length, 256)
    requests = np.maximum(1, np.round(most ** dice.random(num))) * role.decodes
    kv_tokens = np.round(requests * length)
    work = zip(tokens.tolist(), requests.tolist(), kv_tokens.tolist(), strict=True)
    return FpmBatch(
        worker_id=["w"] * num,
        wall_time_s=np.array([timer.pass_s(int(t), t * t / 2, int(n), int(kv)) for t, n, kv in work]),
        num_prefill=(tokens > 0) * 1.0,
        prefill_tokens=tokens,
        num_decode=requests,
        decode_kv_tokens=kv_tokens,
    )


def dirty(batch: FpmBatch, dice: Any) -> FpmBatch:
    """As a real engine starts and runs."""
    num, cold = len(batch), len(batch) // 20
    factor = 1 + 0.03 * dice.standard_normal(num)
    factor[:cold] *= dice.uniform(5, 20, cold)
    factor[dice.choice(np.arange(cold, num), num // 50, replace=False)] *= 100
    return attrs.evolve(batch, wall_time_s=batch.wall_time_s * factor)


def rows(batch: FpmBatch, index: slice) -> FpmBatch:
    """Some passes of a batch."""
    columns: Any = {f.name: getattr(batch, f.name)[index] for f in attrs.fields(FpmBatch) if f.init}
    return FpmBatch(**columns)


def error(model: Any, state: Any, test: FpmBatch) -> float:
    """Median relative error."""
    return float(
        np.median(np.abs(model.iteration_s(state, BatchLoad.of(test)).mean_s / test.wall_time_s - 1))
    )


def learned(model: Any, batch: FpmBatch, at_once: int = 4) -> Any:
    """The state after all passes, a few at a time."""
    state = model.init()
    for start in range(0, len(batch), at_once):
        state = model.observe(state, rows(batch, slice(start, start + at_once)))
    return state


def sheet(name: str) -> Roofline:
    """The roofline of a profile's engine."""
    key, values = next((key, values) for key, values in SHEETS.items() if name.startswith(key))
    gpu = "h200" if "h200" in key.lower() else key.rsplit("_", 1)[1]
    return Roofline.of(gpu=gpu, **values)


def slower(profile: Profiled, factor: float) -> Profiled:
    """The profile of an engine that takes so many times as long."""
    return attrs.evolve(
        profile,
        prefill_ttft_ms=factor * profile.prefill_ttft_ms,
        decode_itl_ms=factor * profile.decode_itl_ms,
    )


def against_profiles(profiles: Mapping[str, Profiled]) -> None:
    """Median errors in percent of each model, prefill / decode / agg."""
    names = list(profiles)
    print(
        "\nmedian error in %, prefill / decode / agg; Linear from 64 clean passes, the others from 200 dirty ones"
    )
    print(
        f"{'':<42}{'Linear':>18}{'own profile':>18}{'x 2':>18}{'/ 2':>18}{'another engine':>18}{'Roofline':>18}"
    )
    worst = defaultdict(float)
    for name, profile in profiles.items():
        timer = PassTimer(EngineTiming.from_profile(profile))
        priors = {
            "own": profile,
            "x 2": slower(profile, 2),
            "/ 2": slower(profile, 0.5),
            "other": profiles[names[(names.index(name) + 1) % len(names)]],
            "sheet": sheet(name),
        }
        cells = []
        for kind in ("linear", *priors):
            errors = []
            for role in Role:
                of_seeds = []
                for seed in range(SEEDS):
                    dice = np.random.default_rng(seed)
                    if kind == "linear":
                        model: Any = Linear()
                        state = model.observe(model.init(), draw(profile, timer, role, 64, dice))
                    else:
                        model = Blended(prior=priors[kind])
                        state = learned(model, dirty(draw(profile, timer, role, 200, dice), dice))
                    of_seeds.append(error(model, state, draw(profile, timer, role, 400, dice)))
                errors.append(100 * float(np.mean(of_seeds)))
            worst[kind] = max(worst[kind], *errors)
            cells.append(" / ".join(f"{e:.1f}" for e in errors))
        print(f"{name:<42}" + "".join(f"{cell:>18}" for cell in cells))
    print(f"{'largest':<42}" + "".join(f"{value:>18.1f}" for value in worst.values()))


def correction(profiles: Mapping[str, Profiled]) -> None:
    """How fast a wrong profile is corrected: largest error over the profiles and roles."""
    steps = (0, 4, 8, 16, 32, 64, 128)
    print("\nlargest median error in % over profiles and roles, after so many clean passes")
    print(f"{'prior':<16}" + "".join(f"{step:>8}" for step in steps))
    for factor in (0.5, 2.0):
        largest = dict.fromkeys(steps, 0.0)
        for profile in profiles.values():
            timer = PassTimer(EngineTiming.from_profile(profile))
            for role in Role:
                dice = np.random.default_rng(0)
                passes, test = (draw(profile, timer, role, num, dice) for num in (128, 400))
                for step in steps:
                    model = Blended(prior=slower(profile, factor))
                    state = learned(model, rows(passes, slice(0, step)))
                    largest[step] = max(largest[step], 100 * error(model, state, test))
        print(f"{'profile x ' + format(factor, 'g'):<16}" + "".join(f"{e:>8.1f}" for e in largest.values()))


def at_their_points(profiles: Mapping[str, Profiled]) -> None:
    """Profiled and Roofline against the points themselves."""
    print(
        "\nat the points of the profile, prefill / decode: Profiled's median error, at points left out, and"
    )
    print(
        "Roofline over measured (quartiles: prefill from 1 000 tokens; decode), KV tokens over the profile's"
    )
    for name, profile in profiles.items():
        fits, _ = fit_profile(profile)
        own = " / ".join(f"{100 * (fit.error_median or 0):.1f}" for fit in fits)
        out = " / ".join(f"{100 * (fit.left_out_median or 0):.1f}" for fit in fits)
        roof, isl, kv = sheet(name), profile.prefill_isl_tokens, profile.decode_kv_tokens
        prefill = np.asarray(
            roof.iteration_s((), BatchLoad(prefill_tokens=isl, prefill_pairs=isl**2 / 2)).mean_s
        )
        requests = kv / profile.decode_context_tokens
        decode = np.asarray(roof.iteration_s((), BatchLoad(num_decode=requests, decode_kv_tokens=kv)).mean_s)
        ratios = (
            (prefill * 1e3 / profile.prefill_ttft_ms)[isl >= 1000],
            decode * 1e3 / profile.decode_itl_ms,
        )
        told = "   ".join(" ".join(f"{q:.2f}" for q in np.quantile(r, (0.25, 0.5, 0.75))) for r in ratios)
        room = roof.max_kv_tokens / (profile.max_kv_tokens or 1)
        print(f"{name:<42}{own:>10}{out:>12}     {told}     {room:.2f}")


def pilot_steps() -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Steps of one second by (model, GPU, GPUs), as columns."""
    grouped: dict[tuple[str, ...], list[list[float]]] = defaultdict(list)
    numbers = (
        "decode_requests",
        "kv_tokens",
        "itl_mean_ms",
        "tokens_out",
        "prefill_requests",
        "prefill_tokens",
    )
    with gzip.open(PROFILES / "llmpilot_steps_1s.csv.gz", "rt") as lines:
        for row in csv.DictReader(lines):
            values = [float(row[name] or 0) for name in numbers]
            if values[0] > 0 and values[2] > 0:
                grouped[(row["model"], row["gpu"], row["n_gpus"])].append(values)
    for key, steps in grouped.items():
        yield key, dict(zip(numbers, np.array(steps).T, strict=True))


def r_squared(columns: list[Any], values: Any, weight: Any) -> float:
    """Of the weighted least squares of values on columns and a constant."""
    root = np.sqrt(weight)
    table = np.stack([np.ones_like(values), *columns], axis=1)
    found = np.linalg.lstsq(table * root[:, None], values * root, rcond=None)[0]
    mean = np.average(values, weights=weight)
    missed, all_ = (np.sum(weight * part**2) for part in (values - table @ found, values - mean))
    return float(1 - missed / all_)


def against_llm_pilot() -> None:
    """R² of ITL in one-second steps of real engines."""
    print(
        "\nLLM-Pilot, one-second steps: R² of the mean ITL on (requests, KV): plain; each step weighted by its"
    )
    print(
        "tokens; and with the prompts, and prompt tokens, that a pass had to compute in the mean (per second x ITL)"
    )
    reached = [0, 0, 0]
    for key, step in pilot_steps():
        itl, weight = step["itl_mean_ms"], np.maximum(step["tokens_out"], 1e-9)
        if len(itl) < 100:
            continue
        batch = [step["decode_requests"], step["kv_tokens"]]
        prompts = [step["prefill_requests"] * itl, step["prefill_tokens"] * itl]
        found = (
            r_squared(batch, itl, np.ones_like(itl)),
            r_squared(batch, itl, weight),
            r_squared([*batch, *prompts], itl, weight),
        )
        reached = [count + (value >= 0.8) for count, value in zip(reached, found, strict=True)]
        print(f"{' '.join(key):<34}{len(itl):>6}" + "".join(f"{value:>8.2f}" for value in found))
    print(f"{'configurations that reach 0.8':<40}" + "".join(f"{count:>8}" for count in reached))


def speed(profile: Profiled) -> None:
    """Microseconds of a question and of a lesson; the shortest of many runs."""

    def shortest(call: Any) -> float:
        return min(timeit.repeat(call, number=10, repeat=300)) / 10 * 1e6

    timer, dice = PassTimer(EngineTiming.from_profile(profile)), np.random.default_rng(0)
    lessons = dirty(draw(profile, timer, Role.AGG, 600, dice), dice)
    few = draw(profile, timer, Role.AGG, 4, dice)
    n = np.arange(1.0, 257.0)
    loads = {
        "one prompt": BatchLoad(prefill_tokens=512.0, prefill_pairs=131e3),
        "5 decodes": BatchLoad(num_decode=n[:5], decode_kv_tokens=2000 * n[:5]),
        "5 mixed": BatchLoad(
            prefill_tokens=10 * n[:5],
            prefill_pairs=50 * n[:5] ** 2,
            num_decode=n[:5],
            decode_kv_tokens=2000 * n[:5],
        ),
        "256 decodes": BatchLoad(num_decode=n, decode_kv_tokens=2000 * n),
        "10 000 decodes": BatchLoad(
            num_decode=np.tile(n, 40)[:10_000], decode_kv_tokens=np.full(10_000, 1e5)
        ),
    }
    print("\nµs: a question about " + ", ".join(loads) + "; a lesson of 4 passes")
    for model in (Linear(), profile, sheet("aic_Llama-3.1-8B_h100"), Blended(prior=profile)):
        state: Any = learned(model, lessons, 20)
        told = [shortest(lambda m=model, s=state, x=load: m.iteration_s(s, x)) for load in loads.values()]
        lesson = shortest(lambda m=model, s=state: m.observe(s, few))
        print(f"{type(model).__name__:<10}" + "".join(f"{value:>8.1f}" for value in (*told, lesson)))


def main() -> None:
    """Print all tables."""
    if not PROFILES.is_dir():
        sys.exit(f"needs the profiles of {PROFILES}, which are not there")
    profiles = {file.stem: load_profile(file) for file in sorted(PROFILES.glob("*.npz"))}
    at_their_points(profiles)
    against_profiles(profiles)
    correction(profiles)
    against_llm_pilot()
    speed(profiles["aic_Llama-3.1-8B_h100_sxm_vllm_tp1"])


if __name__ == "__main__":
    main()
