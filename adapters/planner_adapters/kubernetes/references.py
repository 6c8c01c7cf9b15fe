"""Which workload belongs to which role, as text: ``prefill=deployment/llama-prefill,decode=lws/llama-decode``.

One line in the planner's own manifest, rather than labels on the workloads: it stands beside the planner's other
settings, a mistake is found at the start, no right to list all workloads is needed, and a label that was copied along
with a manifest never puts a second workload under the planner's control.
"""

from __future__ import annotations

import re

import attrs

from planner_adapters.kubernetes.kinds import DEPLOYMENT, LEADER_WORKER_SET, STATEFUL_SET, Kind
from planner_core import ConfigError, Role

KINDS: dict[str, Kind] = {
    "deployment": DEPLOYMENT,
    "deploy": DEPLOYMENT,
    "statefulset": STATEFUL_SET,
    "sts": STATEFUL_SET,
    "leaderworkerset": LEADER_WORKER_SET,
    "lws": LEADER_WORKER_SET,
}
"""By the names that kubectl takes."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""Names of objects are DNS subdomains; nothing else ever becomes part of a path."""


@attrs.frozen(kw_only=True)
class Workload:
    """A Deployment, StatefulSet or LeaderWorkerSet."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.__name__} {self.name!r}"


def read_workloads(text: str) -> dict[Role, Workload]:
    """The workload of each role. :class:`~planner_core.ConfigError` has everything that is wrong, a line each."""
    problems: list[str] = []
    found: dict[Role, Workload] = {}
    for part in filter(str.strip, text.split(",")):
        role, _, reference = part.partition("=")
        kind, _, name = reference.strip().partition("/")
        role = role.strip()
        if role not in set(Role):
            problems.append(f"workloads: {role!r} is no role: must be one of {', '.join(Role)}")
        elif kind.lower() not in KINDS or not is_name(name):
            problems.append(
                f"workloads: {role} is {reference!r}: must be KIND/NAME, with a KIND of {', '.join(KINDS)}"
            )
        elif Role(role) in found:
            problems.append(f"workloads: {role} is given twice; keep one")
        else:
            found[Role(role)] = Workload(kind=KINDS[kind.lower()], name=name)
    used = list(found.values())
    problems += [
        f"workloads: {workload} has two roles; a replica has one"
        for workload in dict.fromkeys(used)
        if used.count(workload) > 1
    ]
    if problems:
        raise ConfigError(problems)
    return found


def is_name(text: str) -> bool:
    """Whether this can be an object's name."""
    return _NAME.fullmatch(text) is not None
