"""How a decision looks in a notebook."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import attrs

from planner_core import Role, WorkerCounts


def cells(decision: Any) -> tuple[list[str], list[int]]:
    """The text of all cells, and how many each row has; a parser takes the HTML, so it is whole."""
    table = ElementTree.fromstring(decision._repr_html_())
    assert table.tag == "table"
    return ["".join(cell.itertext()) for row in table for cell in row], [len(row) for row in table]


def test_a_decision_is_a_table_with_a_row_for_each_role(lab: Any) -> None:
    decision = lab.once(
        lab.config("disagg"),
        workers={Role.PREFILL: WorkerCounts(ready=2), Role.DECODE: WorkerCounts(ready=2)},
        fpm={Role.PREFILL: [lab.prefill_pass(w, 8000, queued=4_000_000) for w in ("a", "b")]},
    )
    text, widths = cells(decision)
    assert widths == [5, 5, 5]
    assert text[:5] == ["role", "replicas", "reason", "bound by", "in words"]
    for row, (role, why) in enumerate(decision.explanations.items(), 1):
        shown = text[5 * row : 5 * row + 5]
        assert shown[0] == role
        assert shown[1] == f"2 → {decision.replicas[role]}"
        assert shown[2] == why.reason
        assert shown[3] == (why.constraint or "")
        assert [part for part in shown[4].split("; ") if part not in why.sentence()] == []


def test_what_is_not_known_is_not_shown_as_zero(lab: Any) -> None:
    decision = lab.once(lab.config("agg"))
    text, _ = cells(decision)
    assert text[6] == "? → left alone"


def test_a_hostile_worker_name_stays_text(lab: Any) -> None:
    name = '<script>alert("1")</script>&'
    decision = lab.once(lab.config("agg"), workers={Role.AGG: WorkerCounts(ready=2)})
    shown, _ = cells(attrs.evolve(decision, drain={Role.AGG: (name, "b")}))
    assert shown[-1].endswith(f"drain {name}, b")
    assert "<script" not in attrs.evolve(decision, drain={Role.AGG: (name, "b")})._repr_html_()
