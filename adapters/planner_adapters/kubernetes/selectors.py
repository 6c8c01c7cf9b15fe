"""Label selectors, as Deployments and StatefulSets carry them, matched here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class Selector:
    """What labels must be: equal to some, and in or out of sets of others."""

    labels: tuple[tuple[str, str], ...]
    expressions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    """Key, operator (``In``, ``NotIn``, ``Exists``, ``DoesNotExist``), values."""

    @classmethod
    def of(cls, selector: Mapping[str, Any]) -> Selector:
        """The ``spec.selector`` of a Deployment or StatefulSet."""
        return cls(
            tuple(sorted((selector.get("matchLabels") or {}).items())),
            tuple(
                (each["key"], each["operator"], tuple(each.get("values") or ()))
                for each in selector.get("matchExpressions") or ()
            ),
        )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant."""
        for key, value in self.labels:  # a loop, since 200 selectors meet 2 000 pods at the start
            if labels.get(key) != value:
                return False
        return all(_holds(labels.get(key), operator, values) for key, operator, values in self.expressions)


def _holds(value: str | None, operator: str, values: tuple[str, ...]) -> bool:
    if operator in ("Exists", "DoesNotExist"):
        return (value is not None) == (operator == "Exists")
    return (value in values) == (operator == "In")
