"""Is it safe to shrink when the planner says so, and does it shrink when it is safe? Random steady states, simulated.

Each state is a fleet under a steady load of some shape: role, engine, mix of lengths, rate and targets are drawn. The
planner watches the fleet, which stays as it is, for some minutes; then it is noted whether it would shrink it. The same
requests are then served by what the planner would leave, and by one replica less, to see whether the SLA holds there.

    consolidation.py [NUM_STATES] [FIRST_STATE]
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor

import attrs
import numpy as np

from planner_adapters.environment import Measured
from planner_adapters.simulation.model import EngineModel
from planner_adapters.simulation.outcome import ReplayResult
from planner_adapters.simulation.policy import PlainOrder, PlannerPolicy
from planner_adapters.simulation.pool import PoolSpec
from planner_adapters.simulation.presets import PRESETS
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.timing import PassTimer
from planner_adapters.simulation.workload import Workload
from planner_core import EngineSpec, Limits, PlannerConfig, Role, SlaTargets

QUANTILE = 0.95
"""Share of the requests that must keep the SLA."""
WATCHED_S, LONG_WATCHED_S = 100.0, 240.0
"""Longer than the planner waits before it shrinks; the longer one where fewer requests come."""
ENOUGH_REQUESTS, LEAST_REQUESTS = 20_000, 1000
TOLERANCE = 0.005
"""A share of requests is counted with a few of them on either side."""


@attrs.frozen(kw_only=True)
class Steady:
    """One steady state."""

    role: Role
    engine: EngineModel
    workload: Workload
    replicas: int
    sla: SlaTargets


@attrs.frozen(kw_only=True)
class Verdict:
    """What the planner would leave, and what that would do."""

    role: Role
    replicas: int
    left: int
    keeps_now: bool
    keeps_after: bool
    """What the planner would leave keeps the SLA."""
    spare: bool
    """One replica less keeps the SLA with the room that the planner is told to leave."""


class Watching:
    """The planner, asked and not obeyed."""

    def __init__(self, config: PlannerConfig) -> None:
        self.planner = PlannerPolicy(config)
        self.begin = self.planner.begin
        self.wanted: int | None = None
        """What it last said of the only role, while requests arrived."""

    def decide(self, now_s: float, measured: Measured) -> PlainOrder:
        """What the planner says is kept, nothing is scaled."""
        decision = self.planner.decide(now_s, measured)
        traffic = measured.get("traffic")
        if traffic is not None and traffic.num_requests:
            self.wanted = next(iter(decision.replicas.values()), None)
        return PlainOrder(replicas={}, next_tick=decision.next_tick)


def lengths(rng: np.random.Generator, kind: str, mean: float, num: int) -> np.ndarray:
    """Token counts with this mean: all equal, log-normal, or short and long ones."""
    if kind == "constant":
        values = np.full(num, mean)
    elif kind == "log-normal":
        values = rng.lognormal(np.log(mean) - 0.32, 0.8, num)
    else:
        values = np.where(rng.random(num) < 0.8, mean / 2, mean * 3)
    return np.maximum(1, values).astype(np.int64)


def most_rps(role: Role, engine: EngineModel, isl: float, osl: float) -> float:
    """About what one engine serves with a batch of a hundred, whatever that does to latencies."""
    batch = 100
    prompts = 1.0 if role is Role.PREFILL else batch / osl if role is Role.AGG else 0.0
    num_decode = batch if role.decodes else 0
    pass_s = PassTimer(engine.timing).pass_s(
        int(prompts * isl), prompts * isl * isl / 2, num_decode, int(num_decode * (isl + osl / 2))
    )
    return (1.0 if role is Role.PREFILL else batch / osl) / pass_s


def steady_state(number: int) -> Steady:
    """The state of this number."""
    rng = np.random.default_rng(number)
    role = list(Role)[rng.integers(3)]
    engine = list(PRESETS.values())[rng.integers(len(PRESETS))]
    mix = ("constant", "log-normal", "bimodal")[rng.integers(3)]
    isl, osl = float(rng.choice([300, 1000, 3000])), float(rng.choice([50, 150, 400]))
    replicas = int(rng.integers(1, 13))
    sla = SlaTargets(
        ttft_ms=float(rng.choice([300, 600, 1500])), itl_ms=float(rng.choice([25, 40, 80])), quantile=QUANTILE
    )
    rate = replicas * rng.uniform(0.02, 0.8) * most_rps(role, engine, isl, osl)
    watched_s = min(max(ENOUGH_REQUESTS / rate, WATCHED_S), LONG_WATCHED_S)
    num = int(max(rate * watched_s, LEAST_REQUESTS))
    arrival_s = rng.exponential(1 / rate, num).cumsum()
    workload = Workload(
        name=str(number),
        arrival_s=arrival_s,
        input_tokens=lengths(rng, mix, isl, num),
        output_tokens=np.ones(num, np.int64) if role is Role.PREFILL else lengths(rng, mix, osl, num),
    )
    return Steady(role=role, engine=engine, workload=workload, replicas=replicas, sla=sla)


def config_for(state: Steady) -> PlannerConfig:
    """The load loop alone, as it comes; only SLA and engine are told."""
    engine = state.engine
    spec = EngineSpec(
        num_gpus=engine.num_gpus,
        max_kv_tokens=engine.max_kv_tokens,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        max_num_seqs=engine.max_num_seqs,
        context_length=engine.longest_request_tokens,
    )
    return PlannerConfig(
        engines={state.role: spec}, target="sla", sla=state.sla, throughput=None, limits=Limits(max_gpus=None)
    )


def serve(
    state: Steady, replicas: int, config: PlannerConfig, policy: Watching | None = None
) -> ReplayResult:
    """The state's requests, served by a fleet of this size."""
    pools = {state.role: PoolSpec(engine=state.engine, replicas=replicas)}
    policy = Watching(config) if policy is None else policy
    return replay(state.workload, config, pools, policy=policy, routing="least_loaded", grace_s=30.0)


def keeps(state: Steady, result: ReplayResult, share: float = 1.0) -> bool:
    """Whether enough of the requests met ``share`` of the SLA; those of the first quarter only fill the fleet."""
    ttft = result.requests.met_ttft(state.sla.ttft_ms * share) | (state.role is Role.DECODE)
    met = ttft & result.requests.met_itl(state.sla.itl_ms * share)
    return bool(met[len(met) // 4 :].mean() >= QUANTILE - TOLERANCE)


def judge(number: int) -> Verdict:
    """One state: watched by the planner, then served by what it would leave, and by one replica less."""
    state = steady_state(number)
    config = config_for(state)
    watching = Watching(config)
    now = serve(state, state.replicas, config, watching)
    left = state.replicas if watching.wanted is None else min(watching.wanted, state.replicas)
    keeps_now = keeps(state, now)
    after = serve(state, left, config) if left < state.replicas else now
    spare = keeps_now and state.replicas > 1
    if spare:
        fewer = after if left == state.replicas - 1 else serve(state, state.replicas - 1, config)
        spare = keeps(state, fewer, config.load.down_sensitivity / 100 if config.load else 1.0)
    return Verdict(
        role=state.role,
        replicas=state.replicas,
        left=left,
        keeps_now=keeps_now,
        keeps_after=keeps(state, after),
        spare=spare,
    )


def main() -> None:
    """Print the shares of unsafe and of untaken shrinkages, per role."""
    num, first = (int(text) for text in (sys.argv[1:] + ["400", "0"][len(sys.argv) - 1 :])[:2])
    verdicts: list[Verdict] = []
    with ProcessPoolExecutor(2) as pool:
        for number, verdict in enumerate(pool.map(judge, range(first, first + num), chunksize=4), first):
            verdicts.append(verdict)
            if verdict.left < verdict.replicas and verdict.keeps_now and not verdict.keeps_after:
                print(
                    f"state {number}: {verdict.role} {verdict.replicas} → {verdict.left} breaks the SLA",
                    flush=True,
                )
    for role in (*Role, None):
        some = [v for v in verdicts if v.keeps_now and role in (v.role, None)]
        shrunk = [v for v in some if v.left < v.replicas]
        spare = [v for v in some if v.spare]
        broken, taken = sum(not v.keeps_after for v in shrunk), sum(v.left < v.replicas for v in spare)
        print(
            f"{role or 'all':<8} {len(some):5} states within the SLA; {len(shrunk):5} shrunk, of which broken "
            f"{broken / max(len(shrunk), 1):6.2%}; {len(spare):5} with room, "
            f"of which taken {taken / max(len(spare), 1):6.1%}"
        )


if __name__ == "__main__":
    main()
