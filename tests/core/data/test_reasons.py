from __future__ import annotations

import pytest
from hypothesis import given

from planner_core import Constraint, Counterfactual, Decision, Explanation, LoadReason, Role, ThroughputReason
from planner_core.testing import decisions


def test_a_sentence_says_role_replicas_reason_numbers_constraint_and_counterfactual() -> None:
    explanation = Explanation(
        role=Role.PREFILL,
        load_reason=LoadReason.SCALE_UP,
        current=2,
        wish=6,
        settled=5,
        replicas=4,
        constraint=Constraint.GPU_BUDGET,
        numbers={"queued_prefill_tokens": 81920.0, "kv_utilisation": 0.42151},
        counterfactuals=(
            Counterfactual(quantity="queued_prefill_tokens", above=True, value=98304.0, change=1),
        ),
        notes=("one engine is silent",),
    )
    sentence = explanation.sentence()
    assert sentence.startswith("prefill: 2 → 4 (scale_up); ")
    for part in ("kv_utilisation 0.4215", "wish 6 settled to 5", "bound by gpu_budget", "would add 1 with"):
        assert part in sentence
    assert sentence.endswith("one engine is silent")


def test_large_numbers_are_read_in_thousands() -> None:
    numbers = {"queued_prefill_tokens": 1234567.0}
    assert "1 234 567" in Explanation(role=Role.AGG, numbers=numbers).sentence()


def test_growth_is_said_as_what_comes_on_top() -> None:
    sentence = Explanation(role=Role.AGG, numbers={"arrivals_rps": 8.0, "growth": 0.125}).sentence()
    assert "arrivals_rps 8; up to 12.5 % more by the time a replica is ready" in sentence


def test_what_is_not_known_is_a_question_mark_and_not_zero() -> None:
    assert Explanation(role=Role.DECODE).sentence().startswith("decode: ? → ? (")


@pytest.mark.parametrize(
    ("load", "throughput", "speaks"),
    [
        (LoadReason.SCALE_UP, ThroughputReason.SET_LOWER_BOUND, LoadReason.SCALE_UP),
        (LoadReason.DISABLED, ThroughputReason.SCALE, ThroughputReason.SCALE),
        (LoadReason.UNSET, ThroughputReason.NO_TRAFFIC_DATA, ThroughputReason.NO_TRAFFIC_DATA),
    ],
)
def test_the_loop_that_ran_speaks_for_the_role(
    load: LoadReason, throughput: ThroughputReason, speaks: LoadReason | ThroughputReason
) -> None:
    assert Explanation(role=Role.AGG, load_reason=load, throughput_reason=throughput).reason == speaks


def test_a_counterfactual_says_in_which_direction() -> None:
    below = Counterfactual(quantity="estimated_itl_ms", above=False, value=30.0, change=-2)
    assert below.sentence() == "would remove 2 with estimated_itl_ms below 30"


@given(decisions())
def test_every_decision_can_be_said_on_one_line_per_role(decision: Decision) -> None:
    for role, explanation in decision.explanations.items():
        sentence = explanation.sentence()
        assert sentence.startswith(f"{role}: ")
        assert "\n" not in sentence
