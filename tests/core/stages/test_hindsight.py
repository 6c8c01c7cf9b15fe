from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_core import Decision, Role, TrafficObservation
from planner_core.data.state import Hindsight, ImaginedFleet
from planner_core.stages.hindsight import PARTS, WATCHED, least
from planner_core.stages.hindsight import level as level_of_all
from planner_core.stages.load import LEVELS

AGG = Role.AGG
START_S = 60.0
LEAST, MOST = 0, len(LEVELS) - 1


def level(past: Hindsight, startup_s: float, share: float, *missed_elsewhere: float) -> int:
    return level_of_all(past, MOST, startup_s, share, missed_elsewhere)


def fleets(*missed: float) -> Hindsight:
    return Hindsight(
        from_s=0.0,
        at_s=WATCHED * START_S,
        num_requests=10_000,
        fleets=tuple(ImaginedFleet(ordered=((0.0, 3),), missed=number) for number in missed),
    )


def test_the_most_room_is_kept_until_some_starts_have_been_watched() -> None:
    assert level(Hindsight(), START_S, 0.99) == MOST
    assert level(fleets(0, 0, 0), START_S, 0.99) == LEAST
    assert level(fleets(0, 0, 0), 2 * START_S, 0.99) == MOST


@pytest.mark.parametrize(
    ("missed", "kept"),
    [((70, 10, 0), LEAST), ((90, 70, 0), 1), ((400, 300, 100), MOST), ((90, 85, 85), MOST)],
)
def test_the_least_room_is_kept_in_which_few_enough_would_have_missed(
    missed: tuple[float, ...], kept: int
) -> None:
    assert level(fleets(*missed), START_S, 0.99) == kept


def test_a_stricter_promise_lets_fewer_miss_for_want_of_room() -> None:
    assert level(fleets(60, 0, 0), START_S, 0.999) == 1


def test_what_other_roles_miss_is_no_longer_there_to_be_spent() -> None:
    assert level(fleets(20, 0, 0), START_S, 0.99, 0.001) == LEAST
    assert level(fleets(20, 0, 0), START_S, 0.99, 0.0065) == 1
    assert level(fleets(20, 0, 0), START_S, 0.99, 0.1) == MOST


def test_each_role_may_spend_its_part() -> None:
    assert level(fleets(60, 0, 0), START_S, 0.99) == LEAST
    assert level(fleets(60, 0, 0), START_S, 0.99, 0.0) == 1


def run(
    lab: Any, rate_at: Callable[[float], float], duration_s: float, replicas: int = 3, osl: float = 200
) -> list[tuple[float, Decision]]:
    """What a planner says of a fleet that does as it is told, with requests of 1 000 and ``osl`` tokens."""
    seen = []

    def observe(now_s: float, ready: Any) -> dict[str, Any]:
        rate = rate_at(now_s)
        passes = [lab.agg_pass(f"w{n}", rate * 1.5 / ready[AGG], 500) for n in range(ready[AGG])]
        traffic = TrafficObservation(
            duration_s=5, num_requests=5 * rate, isl=1000, osl=osl, isl_std=0.0, osl_std=0.0
        )
        seen.append(now_s)
        return {"fpm": {AGG: passes}, "traffic": traffic}

    config = lab.config("agg", "sla")
    decisions = lab.drive(
        config, observe, replicas={"agg": replicas}, duration_s=duration_s, startup_s=START_S
    )
    return [(seen[-1], decision) for decision in decisions]


def rises(low: float, high: float) -> Callable[[float], float]:
    """Within a start, every six minutes, for two."""
    return lambda now_s: high if now_s % 360 >= 240 else low


def growth_at(run: list[tuple[float, Decision]], from_s: float, until_s: float) -> float:
    """The most room that was kept for growth."""
    return max(
        decision.explanations[AGG].numbers.get("growth", 0.0)
        for now_s, decision in run
        if from_s <= now_s < until_s
    )


def test_room_that_no_request_would_have_missed_is_saved(lab: Any) -> None:
    service = run(lab, rises(20.0, 24.0), 3600)
    assert growth_at(service, 300, 600) > 0.1
    assert growth_at(service, 1200, 3600) == 0


def test_room_is_kept_where_requests_would_have_missed_without_it(lab: Any) -> None:
    service = run(lab, rises(60.0, 84.0), 3600)
    assert growth_at(service, 1200, 3600) > 0.2


def test_room_for_bursts_is_saved_where_no_request_would_have_missed_without_it(lab: Any) -> None:
    service = run(lab, rises(5.0, 16.0), 3600, replicas=2, osl=30)
    named = [now_s for now_s, decision in service if "burst_rps" in decision.explanations[AGG].numbers]
    assert len(service[-1][1].state.demand.surges.ended) > 2
    assert not named


def missed(decision: Decision, role: Role) -> float:
    """Share of the requests that would have missed in the fleet with the least room."""
    past = decision.state.roles[role].hindsight
    return past.fleets[LEAST].missed / past.num_requests


def test_a_peak_that_is_over_before_the_batches_fill_lets_nobody_miss(lab: Any) -> None:
    def missed_with_a_peak_of(lasts_s: float) -> float:
        service = run(lab, lambda now_s: 14.0 if 400 <= now_s < 400 + lasts_s else 5.0, 600, osl=1000)
        return missed(service[-1][1], AGG)

    assert missed_with_a_peak_of(10) < 0.001
    assert missed_with_a_peak_of(90) > 0.02


def test_long_prompts_that_come_together_are_more_than_their_number(lab: Any) -> None:
    def observe(now_s: float, ready: Any) -> dict[str, Any]:
        isl = 4000.0 if 400 <= now_s < 415 else 1000.0
        fpm = {
            Role.PREFILL: [lab.prefill_pass(f"p{n}") for n in range(ready[Role.PREFILL])],
            Role.DECODE: [lab.decode_pass(f"d{n}") for n in range(ready[Role.DECODE])],
        }
        traffic = TrafficObservation(
            duration_s=5, num_requests=200, isl=isl, osl=200, isl_std=0.0, osl_std=0.0
        )
        return {"fpm": fpm, "traffic": traffic}

    config = lab.config("disagg", "sla")
    replicas = {"prefill": 2, "decode": 2}
    decisions = lab.drive(config, observe, replicas=replicas, duration_s=600, startup_s=START_S)
    *_, last = decisions
    assert missed(last, Role.PREFILL) > 0.01


def test_a_fleet_with_little_room_is_no_smaller_than_the_one_that_was_judged(lab: Any) -> None:
    service = run(lab, rises(20.0, 24.0), 2400)
    saved = 0
    for (_, before), (_, after) in itertools.pairwise(service):
        past = before.state.roles[AGG].hindsight
        chosen = level(past, START_S, 0.99)
        saved += chosen < MOST
        assert after.replicas[AGG] >= least(past, chosen)
    assert saved


@settings(max_examples=5)
@given(st.lists(st.floats(0, 300), min_size=1, max_size=10))
def test_whatever_comes_no_more_would_have_missed_than_came_and_little_is_remembered(
    lab: Any, rates: list[float]
) -> None:
    for _, decision in run(lab, lambda now_s: rates[int(now_s // 60) % len(rates)], 900):
        past = decision.state.roles[AGG].hindsight
        for fleet in past.fleets:
            assert 0 <= fleet.missed <= past.num_requests * (1 + 1e-9)
            assert len(fleet.ordered) <= PARTS + 2
            assert all(n >= 1 for _, n in fleet.ordered)
