"""How well the mathematics of an SLA foretell what the simulator does: latencies, capacity, and the size of a fleet.

Fixed fleets serve Poisson arrivals behind a router that picks the least loaded engine, over a grid of engine, role, mix
of lengths, fleet size and utilisation. The formulas are given the simulator's own pass times, so that what is measured
is their error and not that of a performance model.

    python benchmarks/sla_maths.py [--quick] [--keep FILE] [--plot FILE]

``--quick`` takes a small grid. ``--keep`` holds the outcomes of simulations, which are not made again. The whole grid
takes about half an hour, three quarters of it for fleets of 64.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from planner_adapters.dynamo.profiles import load_profile
from planner_adapters.simulation import PRESETS, Cluster, EngineModel, PoolSpec
from planner_adapters.simulation.timing import PassTimer
from planner_core import EngineSpec, Role
from planner_core.maths.fleet import Fleet, engines_for, fleet_latency
from planner_core.maths.shape import Mix, RequestShape
from planner_core.maths.sla import capacity, curve
from planner_core.perf import BatchLoad

PROFILES = Path(__file__).parents[2] / "shared/data/profiles"
ENGINES = {
    "8B A100": "aic_Llama-3.1-8B_a100_sxm_vllm_tp1",
    "8B H200": "dynamo_H200_Llama-3.1-8B-FP8_vllm_tp1",
    "70B 4×H200": "aic_Llama-3.1-70B-FP8_h200_sxm_vllm_tp4",
}
FLEETS = (1, 4, 16, 64)
UTILISATIONS = (0.3, 0.6, 0.85)
QUANTILES = (0.5, 0.95)
LONGEST = 16_000
"""Tokens that no length exceeds."""
PROMISED = 0.95
SLACK = 0.005
"""A fleet that misses the promise by less than this has kept it."""


@attrs.frozen
class Kinds:
    """Lengths: a mixture of log-normal kinds, each (share, mean, cv²)."""

    kinds: Mix

    @property
    def mean(self) -> float:
        return sum(share * mean for share, mean, _ in self.kinds)

    @property
    def cv2(self) -> float:
        second = sum(share * mean**2 * (1 + cv2) for share, mean, cv2 in self.kinds)
        return max(second / self.mean**2 - 1, 0.0)

    def at(self, u: Any) -> Any:
        """Lengths at these probabilities, kind after kind."""
        shares, means, spreads = (np.array(column) for column in zip(*self.kinds, strict=True))
        ends = np.cumsum(shares)
        kind = np.minimum(np.searchsorted(ends, u, side="right"), len(shares) - 1)
        within = (u - (ends - shares)[kind]) / shares[kind]
        sigma = np.sqrt(np.log1p(spreads))[kind]
        lengths = means[kind] * np.exp(sigma * ndtri(within) - sigma**2 / 2)
        return np.clip(np.rint(lengths), 1, LONGEST).astype(np.int64)


MIXES = {
    "constant": (Kinds(((1.0, 1000, 0.0),)), Kinds(((1.0, 200, 0.0),))),
    "log-normal": (Kinds(((1.0, 1500, 1.0),)), Kinds(((1.0, 200, 1.0),))),
    "bimodal": (
        Kinds(((0.75, 500, 0.1), (0.25, 4000, 0.1))),
        Kinds(((0.75, 100, 0.4), (0.25, 400, 0.4))),
    ),
}
"""(input, output) tokens."""


def shape_of(mix: str) -> RequestShape:
    """What the formulas are told of a mix."""
    isl, osl = MIXES[mix]
    return RequestShape(
        isl=isl.mean,
        osl=osl.mean,
        isl_cv2=isl.cv2,
        osl_cv2=osl.cv2,
        isl_mix=isl.kinds if len(isl.kinds) > 1 else None,
        osl_mix=osl.kinds if len(osl.kinds) > 1 else None,
    )


@attrs.frozen(eq=False)
class Engine:
    """A simulated engine, and what the formulas are told of it."""

    name: str
    model: EngineModel
    spec: EngineSpec
    iteration: Callable[[BatchLoad], Any]

    @classmethod
    def of(cls, name: str, model: EngineModel) -> Engine:
        spec = EngineSpec(
            max_kv_tokens=model.max_kv_tokens,
            max_num_batched_tokens=model.max_num_batched_tokens,
            max_num_seqs=model.max_num_seqs,
        )
        timer = PassTimer(model.timing)

        def seconds(tokens: float, pairs: float, requests: float, kv_tokens: float) -> float:
            """Between whole numbers of requests, in proportion."""
            low = math.floor(requests)
            share = requests - low
            below = timer.pass_s(tokens, pairs, low, kv_tokens * low / requests if low else 0.0)
            if not share:
                return below
            return below + share * (
                timer.pass_s(tokens, pairs, low + 1, kv_tokens * (low + 1) / requests) - below
            )

        each = np.frompyfunc(seconds, 4, 1)

        def iteration(load: BatchLoad) -> Any:
            found = each(load.prefill_tokens, load.prefill_pairs, load.num_decode, load.decode_kv_tokens)
            return np.asarray(found, dtype=np.float64) if np.ndim(found) else float(found)

        return cls(name, model, spec, iteration)


def engines() -> Iterator[Engine]:
    """Three profiled engines, or without the profiles the simulator's own."""
    if PROFILES.is_dir():
        for name, file in ENGINES.items():
            yield Engine.of(name, EngineModel.from_profile(load_profile(PROFILES / f"{file}.npz")))
    else:
        for name, model in PRESETS.items():
            yield Engine.of(name, model)


@attrs.frozen(eq=False)
class Outcome:
    """What a fixed fleet did to each request; ``None`` where the role has no such latency."""

    ttft_ms: Any
    itl_ms: Any

    def quantile_ms(self, what: str, quantile: float) -> float:
        """Of the TTFT or ITL."""
        return float(np.nanquantile(self.ttft_ms if what == "TTFT" else self.itl_ms, quantile))

    def targets_ms(self, promised: float) -> tuple[float, float]:
        """(TTFT, ITL) that just this share of the requests met; each missed by as many where there are both."""
        if self.ttft_ms is None:
            return math.inf, self.quantile_ms("ITL", promised)
        if self.itl_ms is None:
            return self.quantile_ms("TTFT", promised), math.inf
        ttft_ms = self.quantile_ms("TTFT", (1 + promised) / 2)
        itl_ms = self.itl_ms[self.ttft_ms <= ttft_ms]
        return ttft_ms, float(np.nanquantile(itl_ms, 2 * promised / (1 + promised)))

    def share_within(self, ttft_ms: float, itl_ms: float) -> float:
        """Share of the requests that meet both targets."""
        pairs = ((self.ttft_ms, ttft_ms), (self.itl_ms, itl_ms))
        met = [~(ms > target) for ms, target in pairs if ms is not None]
        return float(np.mean(np.logical_and.reduce(met)))


def evenly(
    lengths: tuple[Kinds, Kinds], rate_rps: float, number: int, dice: np.random.Generator
) -> list[Any]:
    """(arrivals, input, output tokens) of so many requests that come by chance, but bring the load that was asked for.

    25 000 independent requests miss it by 1 % as a rule, which is an engine of a hundred. So the time that they take
    is set, and their lengths are as evenly spread as the mix says (quasi-random, in random order).
    """
    gaps_s = dice.exponential(1.0, number)
    u = dice.permutation(qmc.Halton(2, seed=dice).random(number))
    isl, osl = (kinds.at(u[:, column]) for column, kinds in enumerate(lengths))
    return [np.cumsum(gaps_s) * (number / rate_rps / gaps_s.sum()), isl, osl]


class Simulations:
    """Outcomes of fixed fleets, kept in a file if there is one: a line of JSON for each."""

    def __init__(self, keep: Path | None) -> None:
        self._keep = keep
        self._known: dict[str, Outcome] = {}
        if keep is not None and keep.exists():
            for line in keep.read_text().splitlines():
                key, *columns = json.loads(line)
                self._known[key] = Outcome(
                    *(None if c is None else np.array(c, dtype=float) for c in columns)
                )

    def outcome(self, engine: Engine, role: Role, mix: str, rate_rps: float, replicas: int) -> Outcome:
        """Of a steady state, without its beginning."""
        key = f"{engine.name} {role} {mix} {replicas} {rate_rps:.6g}"
        if key not in self._known:
            found = self._known[key] = self._simulate(engine, role, mix, rate_rps, replicas)
            if self._keep is not None:
                columns = [
                    None if ms is None else [round(float(each), 3) for each in ms]
                    for ms in (found.ttft_ms, found.itl_ms)
                ]
                with self._keep.open("a") as file:
                    file.write(json.dumps([key, *columns]) + "\n")
        return self._known[key]

    def _simulate(self, engine: Engine, role: Role, mix: str, rate_rps: float, replicas: int) -> Outcome:
        dice = np.random.default_rng(1)
        number, warm_up = 50_000, 0.2
        if role.decodes:  # long enough for a few generations of requests
            fleet = Fleet.of(role, engine.iteration, engine.spec, shape_of(mix))
            at = np.array([min(rate_rps / replicas, 0.99 * fleet.saturated_rps)])
            in_flight = replicas * float(fleet.model.steady(at).batch[0])  # type: ignore[union-attr]
            number, warm_up = int(np.clip(16 * in_flight, 25_000, 60_000)), 0.2 if replicas < 16 else 0.45
        unseen = int(warm_up * number)
        requests = [evenly(MIXES[mix], rate_rps, count, dice) for count in (unseen, number - unseen)]
        requests[1][0] += requests[0][0][-1]
        arrival_s, isl, osl = (np.concatenate(column) for column in zip(*requests, strict=True))
        cluster = Cluster(
            roles={role: PoolSpec(engine=engine.model, replicas=replicas)}, routing="least_loaded"
        )
        cluster.submit(arrival_s=arrival_s, input_tokens=isl, output_tokens=osl)
        seen = slice(unseen, int(0.97 * number))  # the last ones finish in an emptying fleet
        end_s = float(arrival_s[-1])
        cluster.advance(end_s)
        while not np.isfinite(cluster.results().finish_s[seen]).all():
            end_s += 30.0
            cluster.advance(end_s)
        results = cluster.results()
        return Outcome(
            ttft_ms=results.ttft_ms[seen] if role.prefills else None,
            itl_ms=results.itl_ms[seen] if role.decodes else None,
        )


@attrs.frozen
class Compared:
    """A latency as foretold and as simulated, or a capacity."""

    engine: str
    role: Role
    mix: str
    replicas: int
    utilisation: float
    what: str
    foretold: float
    simulated: float

    @property
    def error(self) -> float:
        return self.foretold / self.simulated - 1


def latencies(
    engine: Engine, role: Role, mixes: list[str], fleets: tuple[int, ...], simulations: Simulations
) -> Iterator[Compared]:
    """P50 and P95, and the capacity of one engine within targets that one was seen to keep exactly."""
    for mix, replicas, utilisation in product(mixes, fleets, UTILISATIONS):
        shape = shape_of(mix)
        model = engine.iteration, engine.spec, shape
        rate_rps = utilisation * replicas * Fleet.of(role, *model).saturated_rps
        outcome = simulations.outcome(engine, role, mix, rate_rps, replicas)
        where = engine.name, role, mix, replicas, utilisation
        for quantile in QUANTILES:
            offered = fleet_latency(role, *model, rate_rps, replicas, quantile)
            for name, ms in (("TTFT", offered.ttft_ms), ("ITL", offered.itl_ms)):
                if ms is not None:
                    seen_ms = outcome.quantile_ms(name, quantile)
                    yield Compared(*where, f"{name} P{100 * quantile:.0f}", float(ms[0]), seen_ms)
        if replicas == 1 and utilisation > 0.5:
            found = capacity(curve(role, *model, PROMISED), *outcome.targets_ms(PROMISED))
            assert found.rps is not None
            yield Compared(*where, "capacity", found.rps, rate_rps)


@attrs.frozen
class Sized:
    """The engines that were asked for, and the shares of the requests within the SLA with them and with one fewer."""

    engine: str
    role: Role
    mix: str
    engines: int
    binding: str
    enough: float
    fewer: float | None

    @property
    def keeps(self) -> bool:
        return self.enough >= PROMISED - SLACK

    @property
    def tight(self) -> bool:
        return self.fewer is None or self.fewer < PROMISED


def sizings(
    engine: Engine, role: Role, mixes: list[str], fleets: tuple[int, ...], simulations: Simulations
) -> Iterator[Sized]:
    """Rates of 0.7 of what such fleets carry at most; targets that a lone request keeps twice over or so."""
    for mix, replicas in product(mixes, fleets):
        model = engine.iteration, engine.spec, shape_of(mix)
        fleet = Fleet.of(role, *model)
        lone = fleet.model.lone_ttft
        ttft_ms = math.inf if lone is None else 2 * float(lone.quantile_s(PROMISED)[0]) * 1e3
        itl_ms = (
            math.inf
            if role is Role.PREFILL
            else (1.5 if role is Role.DECODE else 3) * fleet.model.lone_itl_s * 1e3
        )
        rate_rps = 0.7 * replicas * fleet.saturated_rps
        found = engines_for(role, *model, rate_rps, ttft_ms, itl_ms, PROMISED)
        shares = [
            simulations.outcome(engine, role, mix, rate_rps, count).share_within(ttft_ms, itl_ms)
            if count > 0 and rate_rps < 0.995 * count * fleet.saturated_rps
            else None
            if count == 0
            else 0.0
            for count in (found.engines, found.engines - 1)
        ]
        assert shares[0] is not None
        yield Sized(engine.name, role, mix, found.engines, found.binding, shares[0], shares[1])


def seconds_to_size(engine_rps: float, role: Role) -> float:
    """The median time of one sizing, with a performance model that is five multiplications."""

    def iteration(load: BatchLoad) -> Any:
        prompts = 2e-5 * load.prefill_tokens + 1e-9 * load.prefill_pairs
        return 0.01 + prompts + 1e-4 * load.num_decode + 1e-7 * load.decode_kv_tokens

    spec = EngineSpec(max_num_batched_tokens=8192, max_num_seqs=256, max_kv_tokens=400_000)
    shape = RequestShape(isl=1500, osl=200, isl_cv2=1.0, osl_cv2=1.0)
    times = []
    for _ in range(200):
        began = time.perf_counter()
        engines_for(role, iteration, spec, shape, engine_rps, 500, 30, PROMISED)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def main() -> None:
    """Print the tables, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small grid")
    parser.add_argument("--keep", type=Path, help="file with outcomes that are known already")
    parser.add_argument("--plot", type=Path, help="where to draw (PNG or SVG)")
    options = parser.parse_args()
    simulations = Simulations(options.keep)
    chosen = list(engines())[:1] if options.quick else list(engines())
    fleets = FLEETS[:2] if options.quick else FLEETS
    compared: list[Compared] = []
    sized: list[Sized] = []
    for engine, role in product(chosen, Role):
        compared += latencies(engine, role, list(MIXES), fleets, simulations)
        sized += sizings(engine, role, list(MIXES), fleets, simulations)
    print_errors(compared)
    print_sizings(sized)
    for role in Role:
        print(f"{role:>8}: a sizing takes {seconds_to_size(50.0, role) * 1e3:.2f} ms")
    if options.plot is not None:
        draw(compared, sized, options.plot)


def print_errors(rows: list[Compared]) -> None:
    """Errors by role and latency, and by what else may matter."""
    views: tuple[tuple[str, Callable[[Compared], object]], ...] = (
        ("all", lambda row: ""),
        ("mix", lambda row: row.mix),
        ("fleet", lambda row: row.replicas),
        ("utilisation", lambda row: row.utilisation),
        ("engine", lambda row: row.engine),
    )
    for title, view in views:
        print(f"\nrelative errors by {title}\n{'':46} cases  median  P90   worst  within")
        groups: dict[tuple[str, str, object], list[float]] = {}
        for row in rows:
            groups.setdefault((row.role, row.what, view(row)), []).append(abs(row.error))
        for (role, what, group), errors in groups.items():
            bound = 0.10 if what == "capacity" else 0.15
            within = np.mean(np.array(errors) <= bound)
            print(
                f"{role:>8} {what:>9} {group!s:>26} {len(errors):>6} {np.median(errors):7.1%} "
                f"{np.quantile(errors, 0.9):6.1%} {max(errors):6.1%}  {within:.0%} within {bound:.0%}"
            )


def print_sizings(rows: list[Sized]) -> None:
    """Whether the engines asked for keep the promise, and one fewer doesn't."""
    print(f"\nengines for P{100 * PROMISED:.0f}: share of the cases")
    for role, mix in product(Role, MIXES):
        group = [row for row in rows if (row.role, row.mix) == (role, mix)]
        keeps, tight, both = (
            np.mean([test(row) for row in group])
            for test in (lambda r: r.keeps, lambda r: r.tight, lambda r: r.keeps and r.tight)
        )
        print(
            f"{role:>8} {mix:>10} {len(group):>4}: kept {keeps:.0%}, broken by one fewer {tight:.0%}, both {both:.0%}"
        )
    for row in rows:
        if not (row.keeps and row.tight):
            print(
                f"   {row.role} {row.engine} {row.mix}: {row.engines} engines ({row.binding}) {row.enough:.3f}, "
                f"one fewer {row.fewer if row.fewer is None else round(row.fewer, 3)}"
            )


def draw(compared: list[Compared], sized: list[Sized], file: Path) -> None:
    """Foretold over simulated, for each role and latency; the band is 15 %."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    panels = [(Role.PREFILL, "TTFT"), (Role.DECODE, "ITL"), (Role.AGG, "TTFT"), (Role.AGG, "ITL")]
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 3.6), layout="constrained")
    colours = dict(zip(MIXES, ("tab:blue", "tab:orange", "tab:green"), strict=True))
    for axis, (role, name) in zip(axes, panels, strict=True):
        rows = [row for row in compared if row.role is role and row.what.startswith(name)]
        ends = np.array([min(r.simulated for r in rows) * 0.7, max(r.simulated for r in rows) * 1.4])
        axis.fill_between(ends, 0.85 * ends, 1.15 * ends, color="0.9")
        axis.plot(ends, ends, color="0.6", linewidth=0.8)
        for mix, quantile in product(MIXES, QUANTILES):
            points = [r for r in rows if r.mix == mix and r.what.endswith(f"P{100 * quantile:.0f}")]
            axis.plot(
                [r.simulated for r in points],
                [r.foretold for r in points],
                "o" if quantile == 0.5 else "^",
                color=colours[mix],
                markersize=3.5,
                alpha=0.7,
                label=f"{mix}, P{100 * quantile:.0f}",
            )
        axis.set(
            xscale="log", yscale="log", xlim=ends, ylim=ends, title=f"{name}, {role}", xlabel="simulated, ms"
        )
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            side.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
            side.set_minor_formatter(ticker.NullFormatter())
    axes[0].set_ylabel("foretold, ms")
    axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    main()
