"""What a global planner manages, from a file, and the environments behind it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from planner_adapters.config_file import read_document
from planner_adapters.environment import Connector
from planner_adapters.global_planner.arbiter import Arbiter, Managed
from planner_adapters.runner.live import Live
from planner_core import ConfigError, PlannerConfig
from planner_core.data.checks import config_number

TOKENS = "PLANNER_GLOBAL_TOKENS"
"""Who may call, as ``chat=TOKEN,batch=TOKEN``."""
_TOP = {"max_total_gpus", "min_total_gpus", "deployments"}
_OF_DEPLOYMENT = {"planner", "priority", "callers", "store", "graph", "workloads", "kubernetes_namespace"}
_GPUS = config_number(whole=True, optional=True)
_PRIORITY = config_number(whole=True, least=-1_000_000, most=1_000_000)


@attrs.frozen(kw_only=True)
class Place:
    """One deployment of the file."""

    config: PlannerConfig
    name: str
    """Of its decisions in a store, where its own planner looks: the namespace of that planner."""
    priority: int = 0
    callers: frozenset[str] = frozenset()
    store: str | None = None
    """Of a virtual environment; else it is in Kubernetes."""
    graph: str | None = None
    workloads: str | None = None
    kubernetes_namespace: str | None = None


@attrs.frozen(kw_only=True)
class GlobalSettings:
    """The whole file."""

    max_total_gpus: int | None
    min_total_gpus: int | None
    deployments: Mapping[str, Place]


def read_global_settings(file: Path) -> GlobalSettings:
    """The file, YAML or JSON; :class:`~planner_core.ConfigError` with everything that is wrong in it."""
    content, _ = read_document(file)
    problems = [
        f"{key} is no key: must be one of {', '.join(sorted(_TOP))}" for key in content if key not in _TOP
    ]
    limits = {}
    for name in ("max_total_gpus", "min_total_gpus"):
        limit = content.get(name)
        if not _GPUS.admits(limit):
            problems.append(f"{name} = {limit!r}: must be {_GPUS.want}; negative: no limit")
        limits[name] = limit if isinstance(limit, int) and limit >= 0 else None
    found = content.get("deployments")
    if not isinstance(found, Mapping) or not found:
        problems.append("deployments must be a mapping of names to what is deployed")
        found = {}
    places = {str(name): _place(str(name), given, problems) for name, given in found.items()}
    in_store: dict[tuple[str, str], str] = {}
    for name, place in places.items():
        if place is not None and place.store is not None:
            other = in_store.setdefault((place.store, place.name), name)
            if other != name:
                problems.append(
                    f"deployments.{other} and {name} are both {place.name!r} in the store {place.store}: give each a "
                    "planner.namespace of its own, as its planner has it"
                )
    if problems:
        raise ConfigError(f"{file}: {problem}" for problem in problems)
    return GlobalSettings(**limits, deployments={name: place for name, place in places.items() if place})


def _place(name: str, given: Any, problems: list[str]) -> Place | None:
    where = f"deployments.{name}"
    if not isinstance(given, Mapping):
        problems.append(f"{where} must be a mapping of {', '.join(sorted(_OF_DEPLOYMENT))}")
        return None
    wrong = [
        f"{where}.{key} is no key: must be one of {', '.join(sorted(_OF_DEPLOYMENT))}"
        for key in given
        if key not in _OF_DEPLOYMENT
    ]
    callers = given.get("callers", [name])
    if not isinstance(callers, list) or not all(isinstance(caller, str) for caller in callers):
        wrong.append(f"{where}.callers must be a list of names")
    if not _PRIORITY.admits(given.get("priority", 0)):
        wrong.append(f"{where}.priority = {given['priority']!r}: must be {_PRIORITY.want}")
    texts = {key: given.get(key) for key in ("store", "graph", "workloads", "kubernetes_namespace")}
    wrong += [
        f"{where}.{key} must be text"
        for key, value in texts.items()
        if not isinstance(value, (str, type(None)))
    ]
    if (given.get("store") is None) == (given.get("graph") is None and given.get("workloads") is None):
        wrong.append(f"{where} needs either store, or graph or workloads: where it is scaled")
    config = None
    try:
        config = PlannerConfig.from_mapping(given.get("planner", {}))
    except ConfigError as error:
        wrong += [f"{where}.planner: {problem}" for problem in error.problems]
    problems += wrong
    if wrong or config is None:
        return None
    return Place(
        config=config,
        name=config.shell.namespace or name,
        priority=given.get("priority", 0),
        callers=frozenset(callers),
        **texts,
    )


def read_tokens(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Tokens by caller; :class:`~planner_core.ConfigError`, without showing any, where that isn't what stands there."""
    tokens: dict[str, str] = {}
    for part in filter(None, map(str.strip, environ.get(TOKENS, "").split(","))):
        caller, _, token = part.partition("=")
        if not (caller and token) or caller in tokens or token in tokens.values():
            raise ConfigError(f"${TOKENS} must be CALLER=TOKEN,…, each caller and each token once")
        tokens[caller] = token
    if not tokens:
        raise ConfigError(f"a global planner needs ${TOKENS}: CALLER=TOKEN,… of the planners that may ask")
    return tokens


@asynccontextmanager
async def connected(settings: GlobalSettings) -> AsyncIterator[Arbiter]:
    """Connects everything that is managed, and closes it. ``ConfigError`` and ``Unobserved`` as ``planner run``."""
    async with AsyncExitStack() as stack:
        cluster = None
        if any(place.store is None for place in settings.deployments.values()):
            from planner_adapters.kubernetes.cluster import Cluster

            cluster = Cluster()
            stack.push_async_callback(cluster.close)
        managed = {}
        for name, place in settings.deployments.items():
            environment = Live(await _connector(name, place, cluster))
            stack.push_async_callback(environment.close)
            managed[name] = Managed(
                config=place.config,
                environment=environment,
                priority=place.priority,
                callers=place.callers,
            )
        yield Arbiter(managed, max_total_gpus=settings.max_total_gpus, min_total_gpus=settings.min_total_gpus)


async def _connector(name: str, place: Place, cluster: Any) -> Connector:
    if place.store is not None:
        from planner_adapters import virtual

        where = f"deployments.{name}.store"
        return virtual.connect(place.config, virtual.open_store(place.store, name=place.name, where=where))
    from planner_adapters import kubernetes

    return await kubernetes.connect(
        place.config,
        dgd=place.graph,
        workloads=place.workloads,
        namespace=place.kubernetes_namespace,
        cluster=cluster,
        environ={},
    )
