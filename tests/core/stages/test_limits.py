from __future__ import annotations

import math

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner_core import Constraint, EngineSpec, Limits, Role
from planner_core.data.roles import ROLES_OF_MODE
from planner_core.stages.limits import Claim, Fitted, fit

Claims = dict[Role, Claim]
NO_LIMITS = Limits(max_gpus=None)


@st.composite
def claims_of_any_size(draw: st.DrawFn, most: int = 40, known: bool = False) -> Claims:
    def claim() -> Claim:
        least = draw(st.integers(0, 4))
        spread = draw(st.none() | st.integers(0, most))
        spec = EngineSpec(
            num_gpus=draw(st.sampled_from([1, 2, 3, 8])),
            min_replicas=least,
            max_replicas=None if spread is None else least + spread,
        )
        count = st.integers(0, most)
        maybe = count if known else st.none() | count
        return Claim(spec=spec, current=draw(maybe), wish=draw(maybe), floor=draw(st.just(0) | count))

    return {role: claim() for role in draw(st.sampled_from(tuple(ROLES_OF_MODE.values())))}


@st.composite
def any_limits(draw: st.DrawFn) -> Limits:
    least = draw(st.none() | st.integers(0, 60))
    spread = draw(st.none() | st.integers(0, 200))
    step = st.none() | st.integers(1, 10)
    return Limits(
        min_gpus=least,
        max_gpus=None if spread is None else (least or 0) + spread,
        max_up_replicas=draw(step),
        max_down_replicas=draw(step),
    )


budgets = st.builds(Limits, max_gpus=st.integers(0, 200))


def gpus(claims: Claims, fitted: dict[Role, Fitted]) -> int:
    return sum(claims[role].spec.num_gpus * (f.replicas or 0) for role, f in fitted.items())


def infeasible(fitted: dict[Role, Fitted]) -> bool:
    return any(f.constraint is Constraint.INFEASIBLE_BUDGET for f in fitted.values())


def asked_for(claim: Claim) -> int:
    """The wish, or else what there is, within the role's own bounds."""
    wish = claim.wish if claim.wish is not None else claim.current
    assert wish is not None
    most = math.inf if claim.spec.max_replicas is None else claim.spec.max_replicas
    return int(min(max(wish, claim.floor, claim.spec.min_replicas), most))


@given(claims_of_any_size(), any_limits())
def test_never_spends_more_than_the_budget_and_never_leaves_the_bounds(
    claims: Claims, limits: Limits
) -> None:
    fitted = fit(claims, limits)
    if infeasible(fitted):
        return
    for role, f in fitted.items():
        if f.replicas is not None:
            spec = claims[role].spec
            assert (
                spec.min_replicas <= f.replicas <= (spec.max_replicas or math.inf) or spec.max_replicas == 0
            )
    if limits.max_gpus is not None:
        assert gpus(claims, fitted) <= limits.max_gpus


@given(claims_of_any_size(), any_limits())
def test_a_role_of_unknown_size_without_a_wish_is_left_alone(claims: Claims, limits: Limits) -> None:
    for role, f in fit(claims, limits).items():
        if claims[role].current is None and claims[role].wish is None:
            assert f.replicas is None


@given(claims_of_any_size(), budgets)
def test_nobody_gets_more_than_asked_for(claims: Claims, limits: Limits) -> None:
    fitted = fit(claims, limits)
    assume(not infeasible(fitted))
    assert all(f.replicas is None or f.replicas <= asked_for(claims[role]) for role, f in fitted.items())


@given(claims_of_any_size(known=True))
def test_without_limits_everybody_gets_what_was_asked_for(claims: Claims) -> None:
    assert {role: f.replicas for role, f in fit(claims, NO_LIMITS).items()} == {
        role: asked_for(claim) for role, claim in claims.items()
    }


@given(claims_of_any_size(known=True), any_limits(), st.integers(1, 30), st.data())
def test_a_role_that_asks_for_more_never_gets_less(
    claims: Claims, limits: Limits, more: int, data: st.DataObject
) -> None:
    role = data.draw(st.sampled_from(sorted(claims)))
    eager = claims | {role: attrs.evolve(claims[role], wish=(claims[role].wish or 0) + more)}
    before, after = fit(claims, limits)[role].replicas, fit(eager, limits)[role].replicas
    assert before is not None
    assert after is not None
    assert after >= before


@given(claims_of_any_size(known=True), st.integers(0, 200), st.integers(0, 50))
def test_a_larger_budget_never_gives_a_smaller_fleet_of_equal_engines(
    claims: Claims, budget: int, more: int
) -> None:
    # Of unequal ones it may: where one of eight GPUs fits at last, it goes before several of one.
    claims = {
        role: attrs.evolve(claim, spec=attrs.evolve(claim.spec, num_gpus=2)) for role, claim in claims.items()
    }
    small, large = (fit(claims, Limits(max_gpus=size)) for size in (budget, budget + more))
    assume(not infeasible(small))
    assert sum(f.replicas or 0 for f in large.values()) >= sum(f.replicas or 0 for f in small.values())


@given(claims_of_any_size(known=True), budgets)
def test_a_wish_to_grow_ends_as_a_shrinkage_only_to_feed_a_role_that_starves(
    claims: Claims, limits: Limits
) -> None:
    running = sum(
        claim.spec.num_gpus * max(claim.current or 0, claim.spec.min_replicas) for claim in claims.values()
    )
    assume(limits.max_gpus is None or running <= limits.max_gpus)
    fitted = {role: f.replicas or 0 for role, f in fit(claims, limits).items()}
    wishes = {role: asked_for(claim) for role, claim in claims.items()}
    if any(wishes[role] >= (claim.current or 0) > fitted[role] for role, claim in claims.items()):
        before = {role: min(wishes[role], claim.current or 0) for role, claim in claims.items()}
        assert lowest_share(fitted, wishes) > lowest_share(before, wishes)


def lowest_share(replicas: dict[Role, int], wishes: dict[Role, int]) -> float:
    return min(replicas[role] / wish for role, wish in wishes.items() if wish)


def test_no_role_starves_while_the_other_is_fed() -> None:
    claims = {
        Role.PREFILL: Claim(spec=EngineSpec(), current=7, wish=7),
        Role.DECODE: Claim(spec=EngineSpec(), current=1, wish=5),
    }
    fitted = fit(claims, Limits(max_gpus=8))
    assert {role: f.replicas for role, f in fitted.items()} == {Role.PREFILL: 6, Role.DECODE: 2}


def test_what_runs_is_kept_where_no_role_starves() -> None:
    claims = {
        Role.PREFILL: Claim(spec=EngineSpec(), current=4, wish=4),
        Role.DECODE: Claim(spec=EngineSpec(), current=2, wish=6),
    }
    fitted = fit(claims, Limits(max_gpus=8))
    assert {role: f.replicas for role, f in fitted.items()} == {Role.PREFILL: 4, Role.DECODE: 4}


@given(claims_of_any_size(known=True), st.integers(0, 20))
def test_a_budget_below_the_minimums_keeps_what_runs_and_says_what_is_missing(
    claims: Claims, budget: int
) -> None:
    needed = sum(claim.spec.num_gpus * claim.spec.min_replicas for claim in claims.values())
    assume(needed > budget)
    for role, f in fit(claims, Limits(max_gpus=budget)).items():
        assert f.replicas == claims[role].current
        assert f.constraint is Constraint.INFEASIBLE_BUDGET
        assert f.note == f"the minimums need {needed} GPUs, the budget has {budget}"


@given(claims_of_any_size(known=True), any_limits())
def test_at_least_the_minimum_of_gpus_stays_in_use_where_bounds_and_budget_hold_it(
    claims: Claims, limits: Limits
) -> None:
    fitted = fit(claims, limits)
    assume(limits.min_gpus and not infeasible(fitted))
    used = gpus(claims, fitted)
    could_grow = [
        role
        for role, f in fitted.items()
        if f.replicas is not None
        and (claims[role].spec.max_replicas is None or f.replicas < claims[role].spec.max_replicas)
        and (limits.max_gpus is None or used + claims[role].spec.num_gpus <= limits.max_gpus)
    ]
    assert used >= (limits.min_gpus or 0) or not could_grow


@given(claims_of_any_size(known=True), st.integers(1, 10), st.integers(1, 10))
def test_a_role_moves_no_faster_than_its_rate_limits_except_into_its_bounds(
    claims: Claims, up: int, down: int
) -> None:
    limits = Limits(max_gpus=None, max_up_replicas=up, max_down_replicas=down)
    for role, f in fit(claims, limits).items():
        current, spec = claims[role].current or 0, claims[role].spec
        assert f.replicas is not None
        if f.constraint not in (Constraint.MIN_REPLICAS, Constraint.MAX_REPLICAS):
            assert current - down <= f.replicas <= current + up
        else:
            assert f.replicas in (spec.min_replicas, spec.max_replicas)


@given(claims_of_any_size(), any_limits())
def test_fitting_what_is_fitted_changes_nothing(claims: Claims, limits: Limits) -> None:
    fitted = fit(claims, limits)
    applied = {
        role: attrs.evolve(claims[role], current=f.replicas, wish=f.replicas, floor=0)
        for role, f in fitted.items()
    }
    assert {role: f.replicas for role, f in fit(applied, limits).items()} == {
        role: f.replicas for role, f in fitted.items()
    }


@given(claims_of_any_size(), any_limits())
def test_a_changed_number_has_a_name(claims: Claims, limits: Limits) -> None:
    for role, f in fit(claims, limits).items():
        wish = claims[role].wish
        if wish is not None and f.replicas != wish:
            assert f.constraint is not None


@given(st.permutations(list(Role)), claims_of_any_size(known=True), any_limits())
def test_the_order_of_the_roles_says_nothing(order: list[Role], claims: Claims, limits: Limits) -> None:
    distinct = {
        role: attrs.evolve(claim, wish=(claim.wish or 0) * 3 + n)
        for n, (role, claim) in enumerate(claims.items())
    }
    shuffled = {role: distinct[role] for role in order if role in distinct}
    one, other = fit(distinct, limits), fit(shuffled, limits)
    assert gpus(distinct, one) == gpus(distinct, other)


@pytest.mark.parametrize("budget", [10, 10**6, 10**9])
def test_a_wish_for_a_billion_replicas_costs_no_more_steps_than_one_for_ten(budget: int) -> None:
    # A loop over replicas would still be running at the end of the day.
    claims = {
        Role.PREFILL: Claim(spec=EngineSpec(num_gpus=3), current=1, wish=10**9),
        Role.DECODE: Claim(spec=EngineSpec(num_gpus=2), current=1, wish=10**9),
    }
    fitted = fit(claims, Limits(max_gpus=budget))
    assert budget - 3 < gpus(claims, fitted) <= budget
    assert all(f.constraint is Constraint.GPU_BUDGET for f in fitted.values())
    most = fit(
        {role: attrs.evolve(claim, wish=0) for role, claim in claims.items()},
        Limits(max_gpus=None, min_gpus=budget),
    )
    assert gpus(claims, most) >= budget


def test_a_budget_that_is_too_small_for_all_is_shared_in_proportion_to_the_wishes() -> None:
    claims = {
        Role.PREFILL: Claim(spec=EngineSpec(), current=1, wish=10),
        Role.DECODE: Claim(spec=EngineSpec(), current=1, wish=30),
    }
    fitted = fit(claims, Limits(max_gpus=20))
    assert {role: f.replicas for role, f in fitted.items()} == {Role.PREFILL: 5, Role.DECODE: 15}
    assert {f.note for f in fitted.values()} == {"the roles ask for 40 GPUs, the budget has 20"}
