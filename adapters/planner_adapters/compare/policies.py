"""What is compared: families of policies, each with its usual parameters and a grid of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import attrs
import numpy as np

from planner_adapters.compare.case import Case
from planner_adapters.simulation.baselines import Hpa, Keda, Kpa, RoleScaler, autoscaled, fit, static
from planner_adapters.simulation.oracle import Survey
from planner_adapters.simulation.policy import PlannerPolicy, Policy
from planner_core import LoadScaling, PlannerConfig, Role

PLANNER, ORACLE = "planner", "oracle"
ATTAINMENTS = (0.8, 0.9, 0.95, 0.99, 0.999)
"""What the oracle is asked for; the one before the last is its usual one."""
QUANTILES = (None, 0.9, 0.95, 0.999)
TARGETS = ("throughput", "latency", "sla")
MOST_STATIC = 12


@attrs.frozen(kw_only=True)
class Candidate:
    """One policy with one set of parameters."""

    policy: str
    """The family, a key of ``FAMILIES``, or ``oracle``."""
    params: dict[str, Any]
    is_default: bool
    """Whether these are the family's usual parameters; the others are tuned in hindsight."""

    def start(self, case: Case) -> tuple[Case, Policy]:
        """A fresh policy, and the case that it finds."""
        return FAMILIES[self.policy].start(case, self.params)


@attrs.frozen(kw_only=True)
class Family:
    """Policies that differ in their parameters."""

    start: Callable[[Case, Mapping[str, Any]], tuple[Case, Policy]]
    grid: Callable[[Case, Survey], Sequence[dict[str, Any]]]
    usual: Callable[[Case], dict[str, Any]] = lambda case: {}


def candidates(case: Case, survey: Survey, policies: Sequence[str]) -> list[Candidate]:
    """All there is to run for a case, the usual parameters of each family first."""
    found = []
    for policy in policies:
        if policy == ORACLE:
            found += [
                Candidate(policy=ORACLE, params={"attainment": share}, is_default=share == ATTAINMENTS[-2])
                for share in ATTAINMENTS
            ]
            continue
        family = FAMILIES[policy]
        usual = family.usual(case)
        others = [params for params in family.grid(case, survey) if params != usual]
        found += [Candidate(policy=policy, params=usual, is_default=True)] if usual else []
        found += [Candidate(policy=policy, params=params, is_default=False) for params in others]
    return found


# The planner


def _planner(case: Case, params: Mapping[str, Any]) -> tuple[Case, Policy]:
    sla = attrs.evolve(case.config.sla, quantile=params["sla_quantile"])
    return case, PlannerPolicy(attrs.evolve(case.config, sla=sla), case.warmup)


def _unit(case: Case, params: Mapping[str, Any]) -> tuple[Case, Policy]:
    load = attrs.evolve(case.config.load or LoadScaling(), step="unit")
    config: PlannerConfig = attrs.evolve(case.config, target=params["target"], load=load)
    return case, PlannerPolicy(config, case.warmup)


# Baselines


def _static(case: Case, params: Mapping[str, Any]) -> tuple[Case, Policy]:
    replicas = fit(case.config, {role: params[str(role)] for role in case.roles})
    return case.starting_with(replicas), static(case.config, replicas)


def _fleets(case: Case, survey: Survey) -> list[dict[str, Any]]:
    """From the fleet that is enough for the median window to the one that is enough for the busiest."""
    fleets: list[dict[str, Any]] = []
    for share in np.linspace(0.5, 1.0, MOST_STATIC):
        fleet = {
            str(role): max(1, round(float(np.quantile([curve.enough for curve in curves], share))))
            for role, curves in survey.curves.items()
        }
        if fleet not in fleets:
            fleets.append(fleet)
    return fleets


def _scaler(make: Callable[[float], RoleScaler], usual: float, targets: Sequence[float]) -> Family:
    """A family of autoscalers, one for each role with a target of its own."""

    def start(case: Case, params: Mapping[str, Any]) -> tuple[Case, Policy]:
        return case, autoscaled(case.config, {role: make(params[str(role)]) for role in case.roles})

    def grid(case: Case, survey: Survey) -> list[dict[str, Any]]:
        # Two roles have the square of the combinations: every second target of each.
        of_role = targets if len(case.roles) == 1 else targets[::2]
        return [_by_role(case.roles, combination) for combination in product(of_role, repeat=len(case.roles))]

    return Family(start=start, grid=grid, usual=lambda case: _by_role(case.roles, [usual] * len(case.roles)))


def _by_role(roles: Mapping[Role, Any], values: Sequence[float]) -> dict[str, Any]:
    return {str(role): value for role, value in zip(roles, values, strict=True)}


FAMILIES: dict[str, Family] = {
    PLANNER: Family(
        start=_planner,
        grid=lambda case, survey: [
            {"sla_quantile": quantile} for quantile in QUANTILES if case.config.target == "sla"
        ],
        usual=lambda case: {"sla_quantile": case.config.sla.quantile},
    ),
    "static": Family(start=_static, grid=_fleets),
    "hpa-queue": _scaler(lambda target: Hpa(target=target), 5, (0.5, 1, 2, 5, 10, 20, 50)),
    "hpa-kv": _scaler(
        lambda target: Hpa(target=target, metric="kv"), 0.5, (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)
    ),
    "keda": _scaler(lambda target: Keda(target=target), 5, (0.5, 1, 2, 5, 10, 20, 50)),
    "kpa": _scaler(lambda target: Kpa(target=target), 100, (10, 20, 30, 50, 70, 100, 150, 200)),
    "unit": Family(
        start=_unit,
        grid=lambda case, survey: [{"target": target} for target in TARGETS],
        usual=lambda case: {"target": TARGETS[0]},
    ),
}
"""By name. Usual targets: five waiting requests, and half of the KV cache, per replica, with which public guides and
examples for vLLM on HPA and KEDA begin; Knative's own default of 100 requests in flight."""


def all_policies() -> Iterator[str]:
    """Names of the families, and of the oracle."""
    yield from FAMILIES
    yield ORACLE
