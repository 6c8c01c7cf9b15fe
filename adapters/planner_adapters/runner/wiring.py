"""Which parts a configuration names: the one place that knows the shells by name. They are imported when used.

What the keys of the configuration don't say (which engines to scrape, where decisions are kept) comes from environment
variables, since it differs from place to place and may be secret.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs

from planner_adapters.config_file import namespace_of
from planner_adapters.environment import Connector, PassSource, TrafficSource
from planner_adapters.runner.loop import Watcher
from planner_core import ConfigError, PlannerConfig, Role

TARGETS = "PLANNER_ENGINE_TARGETS"
"""Engines to scrape, as ``prefill=http://10.0.0.7:8000/metrics,decode=http://…``, instead of through Prometheus."""
LABELS = "PLANNER_ENGINE_LABELS"
"""Labels of engines' series in Prometheus, as ``prefill=dynamo_component:prefill,decode=app:llama-decode``."""
PUBLISHERS = "PLANNER_FPM_PUBLISHERS"
"""Publishers of ForwardPassMetrics over ZMQ, as ``prefill=tcp://10.0.0.7:20380,…``, instead of metrics."""
LISTEN, TOKEN = "PLANNER_VIRTUAL_LISTEN", "PLANNER_VIRTUAL_TOKEN"
"""``HOST:PORT`` where a virtual environment asks for decisions over HTTP, and the token that it shows."""
KEDA, KEDA_TLS = "PLANNER_KEDA_LISTEN", "PLANNER_KEDA_TLS"
"""``HOST:PORT`` where KEDA asks for decisions, instead of the planner scaling; and a folder with its certificate."""

_COMPONENT = {Role.PREFILL: "prefill", Role.DECODE: "backend", Role.AGG: "backend"}


@attrs.frozen(kw_only=True)
class Parts:
    """What a planner of this configuration is put together from. Whoever has it closes connector and sources."""

    connector: Connector
    traffic: TrafficSource | None = None
    passes: PassSource | None = None
    watchers: tuple[Watcher, ...] = ()


@asynccontextmanager
async def connected(
    config: PlannerConfig, *, metrics_host: str = "127.0.0.1", environ: Mapping[str, str] = os.environ
) -> AsyncIterator[Parts]:
    """Builds and connects the parts; ``metrics_host`` is where the planner's own metrics are served.

    ``ConfigError`` for what can't be put together, ``MissingExtraError`` with the pip command, ``Unobserved`` if
    Kubernetes doesn't answer.
    """
    async with AsyncExitStack() as stack:
        connect = {"kubernetes": _kubernetes, "virtual": _virtual, "global-planner": _global_planner}
        sources, watchers = _sources(config, environ), []
        if config.shell.planner_prometheus_port:
            from planner_adapters.prometheus import MetricsOut

            out = MetricsOut(port=config.shell.planner_prometheus_port, host=metrics_host)
            stack.callback(out.close)
            watchers.append(out.update)
        connector = await connect[config.shell.environment](config, environ, stack)
        yield Parts(connector=connector, traffic=sources[0], passes=sources[1], watchers=tuple(watchers))


async def _kubernetes(config: PlannerConfig, environ: Mapping[str, str], stack: AsyncExitStack) -> Connector:
    if environ.get(KEDA):
        return await _keda(config, environ, stack)
    from planner_adapters import kubernetes

    return await kubernetes.connect(config, environ=environ)


async def _keda(config: PlannerConfig, environ: Mapping[str, str], stack: AsyncExitStack) -> Connector:
    """Counts from Kubernetes, orders to KEDA when it asks."""
    from planner_adapters import keda

    host, _, port = environ[KEDA].rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"${KEDA} must be HOST:PORT, such as 0.0.0.0:9090; it is {environ[KEDA]!r}")
    tls = environ.get(KEDA_TLS)
    credentials = keda.credentials_in(tls) if tls else None
    decided = keda.Decided()
    connector = await keda.on_kubernetes(config, decided, environ=environ)
    try:
        await stack.enter_async_context(
            keda.serve(decided, host=host or "127.0.0.1", port=int(port), credentials=credentials)
        )
    except BaseException:
        await connector.close()
        raise
    return connector


async def _virtual(config: PlannerConfig, environ: Mapping[str, str], stack: AsyncExitStack) -> Connector:
    from planner_adapters import virtual
    from planner_adapters.virtual.address import VARIABLE

    listen, token = environ.get(LISTEN), environ.get(TOKEN, "")
    store = virtual.store_of_environment(namespace_of(config), environ)
    if isinstance(store, virtual.MemoryStore) and not listen:
        raise ConfigError(f"${VARIABLE} = 'memory:' needs ${LISTEN}: else nobody could ask for decisions")
    if listen:
        address, _, port = listen.rpartition(":")
        if not port.isdecimal() or not token:
            raise ConfigError(f"${LISTEN} must be HOST:PORT, and ${TOKEN} the token that callers show")
        await stack.enter_async_context(
            virtual.serve(store, token=token, host=address or "127.0.0.1", port=int(port))
        )
    return virtual.connect(config, store)


async def _global_planner(
    config: PlannerConfig, environ: Mapping[str, str], stack: AsyncExitStack
) -> Connector:
    """Counts from where the engines are, orders to the global planner."""
    from planner_adapters.global_planner import client_of
    from planner_adapters.virtual.address import VARIABLE

    engines = await (_virtual if environ.get(VARIABLE) else _kubernetes)(config, environ, stack)
    return client_of(config, engines, environ)


def _sources(config: PlannerConfig, environ: Mapping[str, str]) -> tuple[TrafficSource, PassSource]:
    from planner_adapters import prometheus

    targets, labels = (list(_by_role(name, config, environ)) for name in (TARGETS, LABELS))
    publishers = list(_by_role(PUBLISHERS, config, environ))
    passes: Any
    if publishers:
        from planner_adapters.dynamo.fpm_subscription import Publisher, fpm_source

        passes = fpm_source(
            config, [Publisher(endpoint=endpoint, role=role) for role, endpoint in publishers]
        )
    elif targets:
        named = [
            prometheus.Target(worker_id=url.partition("://")[2].partition("/")[0], url=url, role=role)
            for role, url in targets
        ]
        passes = prometheus.pass_source(config, targets=named)
    else:
        of_role = {
            role: {"dynamo_component": _COMPONENT[role], "dynamo_namespace": namespace_of(config)}
            for role in config.engines
        }
        told: dict[Role, dict[str, str]] = {}
        for role, label in labels:
            name, _, value = label.partition(":")
            told.setdefault(role, {})[name] = value
        passes = prometheus.pass_source(config, in_prometheus=of_role | told)
    return prometheus.traffic_source(config), passes


def _by_role(variable: str, config: PlannerConfig, environ: Mapping[str, str]) -> Iterator[tuple[Role, str]]:
    """The pairs of a variable such as ``prefill=…,decode=…``; a role may stand several times."""
    for part in filter(None, map(str.strip, environ.get(variable, "").split(","))):
        role, equals, value = part.partition("=")
        if not (equals and value and role in config.engines):
            roles = " or ".join(config.engines)
            raise ConfigError(f"${variable}: {part!r} must be ROLE=VALUE, with {roles} for a role")
        yield Role(role), value
