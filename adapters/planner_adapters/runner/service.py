"""A planner as a process: signals, health, records and the loop, from the first tick to the last."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import attrs

from planner_adapters.environment import AsyncEnvironment
from planner_adapters.runner.health import Health
from planner_adapters.runner.health_server import serve_health
from planner_adapters.runner.live import Live
from planner_adapters.runner.logs import log, logfmt
from planner_adapters.runner.loop import Watcher, run
from planner_adapters.runner.onlookers import onlookers
from planner_adapters.runner.records import Records
from planner_adapters.runner.reload import ConfigFile, carry_over, check_reload
from planner_adapters.runner.state_file import Saved, StateError
from planner_core import (
    NextTick,
    PlannerConfig,
    PlannerState,
    TrafficObservation,
    initial_state,
)


@attrs.frozen(kw_only=True)
class Service:
    """How a planner runs as a process."""

    journal: Path | None = None
    state: Path | None = None
    health: tuple[str, int] | None = None
    """Host and port of ``/healthz`` and ``/readyz``; ``None``: none."""
    dashboard_host: str | None = None
    """Where ``live_dashboard_port`` is; ``None``: neither dashboard nor reports."""
    config_file: ConfigFile | None = None
    """Is read again on SIGHUP and when it has changed."""
    num_ticks: int | None = None
    once: bool = False
    """One tick at once, with every input, instead of the schedule's."""
    on_listening: Callable[[int], None] = lambda port: None
    """Is told the port of the health endpoints."""


async def serve(
    environment: AsyncEnvironment,
    config: PlannerConfig,
    service: Service,
    *,
    before: Saved | None = None,
    traffic: Sequence[TrafficObservation] = (),
    on_tick: Sequence[Watcher] = (),
) -> Health:
    """Runs until SIGTERM or SIGINT (the tick in hand is finished), or for ``num_ticks``; closes the environment.

    ``before`` is the memory of an earlier run, ``traffic`` past windows for one that has none. Gives the health at the
    end. :class:`StateError` for a memory of another deployment.
    """
    async with AsyncExitStack() as stack:
        stack.push_async_callback(environment.close)
        now_s = await environment.wait_until(0.0)
        state, first = _begin(config, now_s, before, traffic, once=service.once)
        records = Records(journal=service.journal, state=service.state)
        stack.callback(records.close)
        records.begin(config, state)
        health = Health(faults=lambda: _faults(environment))
        if service.health is not None:
            port = await stack.enter_async_context(serve_health(health, *service.health))
            service.on_listening(port)
        if service.dashboard_host is not None:
            looking = onlookers(config, health, dashboard_host=service.dashboard_host)
            on_tick = (*on_tick, *await stack.enter_async_context(looking))
        stop = asyncio.Event()
        reloading = _Reloading(service.config_file, health)
        stack.enter_context(_signals(stop, reloading))
        log.info(logfmt("begin", mode=config.mode, target=config.target, remembers=before is not None))
        await run(
            environment,
            config,
            state=state,
            first=first,
            num_ticks=1 if service.once else service.num_ticks,
            stop=stop,
            records=records,
            health=health,
            reconfigure=reloading,
            on_tick=on_tick,
        )
        log.info(
            logfmt("end", lost_ticks=records.lost_ticks or None, lost_states=records.lost_states or None)
        )
    return health


def _begin(
    config: PlannerConfig,
    now_s: float,
    before: Saved | None,
    traffic: Sequence[TrafficObservation],
    *,
    once: bool,
) -> tuple[PlannerState, NextTick | None]:
    """The memory to begin with. ``once`` means now: without one, both loops take a whole interval for past."""
    loops = (config.load_loop, config.throughput_loop)
    longest_s = max(loop.interval_s for loop in loops if loop is not None)
    if before is None:
        state = initial_state(config, now_s - longest_s if once else now_s, traffic=traffic)
    elif before.config.mode != config.mode:
        raise StateError(
            f"the state file is of a deployment in mode {before.config.mode}, the configuration's is {config.mode}: "
            "name another file, or move it away to begin without a past"
        )
    else:
        state, anew = carry_over(before.state, before.config, config)
        if anew:
            log.warning(logfmt("configuration changed", anew=", ".join(anew)))
    first = NextTick(
        at_s=now_s,
        load=True,
        throughput=config.throughput_loop is not None,
        needs=frozenset({"workers", "fpm", "traffic"}),
        traffic_window_s=max(1.0, min(longest_s, now_s - state.schedule.traffic_from_s)),
    )
    return state, first if once else None


def _faults(environment: AsyncEnvironment) -> dict[str, str]:
    return (
        {name: fault.error for name, fault in environment.faults.items()}
        if isinstance(environment, Live)
        else {}
    )


class _Reloading:
    """The configuration in force: a new one where there is one and it is valid, else the one before."""

    def __init__(self, file: ConfigFile | None, health: Health) -> None:
        self._file, self._health = file, health
        self.asked = False

    def __call__(self, config: PlannerConfig) -> PlannerConfig:
        if self._file is None or not (self._file.changed() or self.asked):
            return config
        self.asked = False
        try:
            new = self._file.load()
            check_reload(config, new)
        except (ValueError, OSError) as error:
            problems = getattr(error, "problems", None) or (str(error),)
            log.error(logfmt("reload refused", problems=" | ".join(problems)))
            self._health.note("config", "; ".join(problems))
            return config
        self._health.note("config", None)
        return config if new == config else new


@contextmanager
def _signals(stop: asyncio.Event, reloading: _Reloading) -> Iterator[None]:
    """SIGTERM and SIGINT stop after the tick in hand, a second SIGINT at once; SIGHUP reloads before the next tick."""
    loop = asyncio.get_running_loop()

    def end(signal_: signal.Signals) -> None:
        log.info(logfmt("stopping", signal=signal_.name))
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    def reload() -> None:
        reloading.asked = True

    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, end, signal_)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        for signal_ in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(signal_)
