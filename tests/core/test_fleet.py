from __future__ import annotations

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner_core import ConfigError, ObservationError, Role
from planner_core.data.roles import ROLES_OF_MODE
from planner_core.fleet import Claim, Grant, GrantReason, RoleClaim, arbitrate


def agg(
    name: str, current: int | None, wish: int | None, *, least: int = 0, priority: int = 0, gpus: int = 1
) -> Claim:
    role = RoleClaim(current=current, wish=wish, min_replicas=least, num_gpus=gpus)
    return Claim(deployment=name, roles={Role.AGG: role}, priority=priority)


def given_to(grants: dict[str, Grant]) -> dict[str, int]:
    return {name: grant.replicas[Role.AGG] for name, grant in grants.items()}


@st.composite
def fleets(draw: st.DrawFn, *, known: bool = True, most: int = 6) -> list[Claim]:
    def role() -> RoleClaim:
        count = st.integers(0, 30)
        return RoleClaim(
            current=draw(count if known else st.none() | count),
            wish=draw(st.none() | count),
            num_gpus=draw(st.sampled_from([1, 2, 8])),
            min_replicas=draw(st.integers(0, 4)),
            stale=False if known else draw(st.booleans()),
        )

    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=most, unique=True))
    return [
        Claim(
            deployment=name,
            roles={each: role() for each in draw(st.sampled_from(tuple(ROLES_OF_MODE.values())))},
            priority=draw(st.integers(0, 2)),
        )
        for name in names
    ]


budgets = st.integers(0, 300)


def asked(role: RoleClaim) -> int:
    return (role.current or 0) if role.wish is None else role.wish


def gpus(claims: list[Claim], grants: dict[str, Grant]) -> int:
    return sum(
        role.num_gpus * grants[claim.deployment].replicas.get(name, 0)
        for claim in claims
        for name, role in claim.roles.items()
    )


def in_use(claims: list[Claim]) -> int:
    return sum(role.num_gpus * (role.current or 0) for claim in claims for role in claim.roles.values())


def needed(claims: list[Claim]) -> int:
    """GPUs of the minimums."""
    return sum(
        role.num_gpus * min(role.min_replicas, asked(role))
        for claim in claims
        for role in claim.roles.values()
    )


@given(fleets(), budgets)
def test_never_over_the_budget_and_never_above_the_wish(claims: list[Claim], budget: int) -> None:
    grants = arbitrate(claims, max_total_gpus=budget)
    assert {claim.deployment for claim in claims} == set(grants)
    for claim in claims:
        for name, role in claim.roles.items():
            assert 0 <= grants[claim.deployment].replicas[name] <= asked(role)
    if needed(claims) <= budget:
        assert gpus(claims, grants) <= budget
    else:
        assert gpus(claims, grants) <= max(budget, in_use(claims))


@given(fleets(), budgets)
def test_minimums_are_kept_where_they_fit_and_what_runs_where_they_do_not(
    claims: list[Claim], budget: int
) -> None:
    grants = arbitrate(claims, max_total_gpus=budget)
    for claim in claims:
        for name, role in claim.roles.items():
            feasible = needed(claims) <= budget
            least = role.min_replicas if feasible else role.current or 0
            assert grants[claim.deployment].replicas[name] >= min(least, asked(role))


@given(fleets(known=False), budgets, st.integers(0, 100), st.randoms(use_true_random=False))
def test_the_order_of_the_claims_says_nothing(
    claims: list[Claim], spread: int, least: int, dice: object
) -> None:
    limits = {"max_total_gpus": least + spread, "min_total_gpus": least}
    shuffled = sorted(claims, key=lambda claim: hash((claim.deployment, str(dice))))
    assert arbitrate(shuffled, **limits) == arbitrate(claims, **limits)


@given(fleets(), budgets, st.integers(0, 100))
def test_more_budget_never_gives_fewer_gpus(claims: list[Claim], budget: int, more: int) -> None:
    assume(needed(claims) <= budget)  # below, what runs is kept, and may be more than the budget
    before, after = (arbitrate(claims, max_total_gpus=most) for most in (budget, budget + more))
    assert gpus(claims, after) >= gpus(claims, before)


@given(fleets(), budgets)
def test_nothing_is_left_over_that_somebody_could_use(claims: list[Claim], budget: int) -> None:
    assume(needed(claims) <= budget)
    grants = arbitrate(claims, max_total_gpus=budget)
    left = budget - gpus(claims, grants)
    for claim in claims:
        for name, role in claim.roles.items():
            assert grants[claim.deployment].replicas[name] == asked(role) or role.num_gpus > left


@given(fleets(), budgets)
def test_who_comes_first_has_what_it_would_have_alone_beside_the_minimums(
    claims: list[Claim], budget: int
) -> None:
    assume(needed(claims) <= budget)
    top = max(claim.priority for claim in claims)
    first = [claim for claim in claims if claim.priority == top]
    others = [claim for claim in claims if claim.priority < top]
    alone = arbitrate(first, max_total_gpus=budget - needed(others))
    together = arbitrate(claims, max_total_gpus=budget)
    assert {name: together[name].replicas for name in alone} == {
        name: grant.replicas for name, grant in alone.items()
    }


@given(fleets(known=False), budgets)
def test_what_is_granted_is_what_was_asked_for_and_anything_else_has_its_reason(
    claims: list[Claim], budget: int
) -> None:
    for name, grant in arbitrate(claims, max_total_gpus=budget).items():
        (claim,) = (c for c in claims if c.deployment == name)
        full = all(
            grant.replicas.get(role, wants.wish) == (asked(wants) if role in grant.replicas else None)
            for role, wants in claim.roles.items()
        )
        assert (grant.reason is GrantReason.GRANTED) == full
        assert bool(grant.note) == (not full)


def test_equals_share_in_proportion_to_their_wish() -> None:
    grants = arbitrate([agg("a", 0, 20), agg("b", 0, 10), agg("c", 0, 1, least=1)], max_total_gpus=16)
    assert given_to(grants) == {"a": 10, "b": 5, "c": 1}
    assert grants["a"].reason is GrantReason.GPU_BUDGET
    assert grants["a"].note == "the deployments ask for 31 GPUs, the budget has 16"


def test_an_equal_that_came_first_gives_up_what_the_other_starves_for_and_no_more() -> None:
    assert given_to(arbitrate([agg("a", 16, 16), agg("b", 1, 4)], max_total_gpus=18)) == {"a": 16, "b": 2}
    assert given_to(arbitrate([agg("a", 16, 16), agg("b", 1, 8)], max_total_gpus=17)) == {"a": 13, "b": 4}


def test_a_higher_priority_comes_first_and_the_others_keep_their_minimums() -> None:
    claims = [agg("batch", 12, 12, least=2), agg("chat", 4, 14, priority=1)]
    grants = arbitrate(claims, max_total_gpus=16)
    assert given_to(grants) == {"chat": 14, "batch": 2}
    assert grants["chat"].reason is GrantReason.GRANTED
    assert grants["batch"].reason is GrantReason.OUTRANKED
    assert grants["batch"].note == "higher priorities have 14 of 16 GPUs"


def test_a_budget_below_the_minimums_keeps_what_runs() -> None:
    claims = [agg("a", 3, 5, least=4), agg("b", 2, 1, least=1), agg("c", 0, 4, least=2)]
    grants = arbitrate(claims, max_total_gpus=6)
    assert given_to(grants) == {"a": 3, "b": 1, "c": 2}
    assert grants["c"].reason is GrantReason.INFEASIBLE_BUDGET
    assert grants["c"].note == "the minimums need 7 GPUs, the budget has 6"
    assert grants["b"].reason is GrantReason.GRANTED


# Trap 40: a read failure must not make the budget check pass.


def test_replicas_that_cannot_be_read_count_with_the_last_that_were() -> None:
    stale = RoleClaim(current=6, wish=9, stale=True)
    claims = [Claim(deployment="dark", roles={Role.AGG: stale}), agg("seen", 2, 9)]
    grants = arbitrate(claims, max_total_gpus=10)
    assert given_to(grants) == {"dark": 6, "seen": 4}
    assert grants["dark"].reason is GrantReason.USAGE_UNKNOWN
    assert grants["dark"].note == "the replicas of dark can't be read"


def test_nobody_grows_while_a_deployment_was_never_read() -> None:
    claims = [agg("dark", None, 3), agg("grows", 2, 9), agg("shrinks", 4, 1), agg("stays", 3, None)]
    grants = arbitrate(claims, max_total_gpus=1_000)
    assert grants["dark"].replicas == {}
    assert given_to({name: grants[name] for name in ("grows", "shrinks", "stays")}) == {
        "grows": 2,
        "shrinks": 1,
        "stays": 3,
    }
    assert {name for name, grant in grants.items() if grant.reason is GrantReason.USAGE_UNKNOWN} == {
        "dark",
        "grows",
    }


@given(fleets(), budgets, st.sets(st.sampled_from("abcdefgh")))
def test_deployments_that_cannot_be_read_only_shrink_and_their_gpus_stay_reserved(
    claims: list[Claim], budget: int, dark: set[str]
) -> None:
    def hidden(claim: Claim) -> Claim:
        stale = claim.deployment in dark
        roles = {name: attrs.evolve(role, stale=stale) for name, role in claim.roles.items()}
        return attrs.evolve(claim, roles=roles)

    claims = [hidden(claim) for claim in claims]
    grants = arbitrate(claims, max_total_gpus=budget)
    used = 0
    for claim in claims:
        for name, role in claim.roles.items():
            count, had = grants[claim.deployment].replicas[name], role.current or 0
            used += role.num_gpus * (had if role.stale else count)
            assert not role.stale or count == min(had, asked(role))
    assert used <= max(budget, in_use(claims))


@given(fleets(), st.integers(0, 100), budgets)
def test_so_many_gpus_stay_in_use_but_nobody_is_made_to_grow(
    claims: list[Claim], least: int, spread: int
) -> None:
    grants = arbitrate(claims, max_total_gpus=least + spread, min_total_gpus=least)
    free = arbitrate(claims, max_total_gpus=least + spread)
    for claim in claims:
        for name, role in claim.roles.items():
            count, before = (g[claim.deployment].replicas[name] for g in (grants, free))
            assert before <= count <= max(before, role.current or 0)
    if needed(claims) > least + spread:
        return
    assert gpus(claims, grants) <= least + spread
    if spread >= 8:  # else a whole replica may not fit in between
        held = sum(
            role.num_gpus * max(free[claim.deployment].replicas[name], role.current or 0)
            for claim in claims
            for name, role in claim.roles.items()
        )
        assert gpus(claims, grants) >= min(least, held)


def test_a_shrinkage_below_the_least_is_held_back_as_far_as_needed() -> None:
    grants = arbitrate([agg("a", 6, 1), agg("b", 4, 1)], max_total_gpus=16, min_total_gpus=7)
    assert sum(given_to(grants).values()) == 7
    assert {grant.reason for grant in grants.values()} == {GrantReason.MIN_GPUS}


def test_without_a_budget_everybody_has_their_wish() -> None:
    grants = arbitrate([agg("a", None, 9), agg("b", 1, 1_000)])
    assert given_to(grants) == {"a": 9, "b": 1_000}
    assert arbitrate([], max_total_gpus=4) == {}


def test_two_hundred_deployments_are_one_question() -> None:
    claims = [agg(f"{n:03}", 10, 12 + n % 7, least=1, priority=n % 3) for n in range(200)]
    assert sum(given_to(arbitrate(claims, max_total_gpus=2_000)).values()) == 2_000


def test_what_cannot_be_meant_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="two claims of the deployment 'a': keep one"):
        arbitrate([agg("a", 1, 1), agg("a", 2, 2)])
    with pytest.raises(ConfigError, match="min_total_gpus = 4 is above max_total_gpus = 3: lower one"):
        arbitrate([], max_total_gpus=3, min_total_gpus=4)
    with pytest.raises(ConfigError, match="max_total_gpus = -1: must be a whole number at least 0"):
        arbitrate([], max_total_gpus=-1)
    with pytest.raises(ObservationError, match=r"RoleClaim\.wish = -1"):
        attrs.evolve(RoleClaim(current=1), wish=-1)
