"""The loop: wait → observe → tick → write down → scale, whatever fails on the way.

One tick at a time: what falls due meanwhile is dropped, since the next decision knows all that a late one would have
known. What can't be measured is unknown, what couldn't be carried out is decided anew at the next tick.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import attrs

from planner_adapters.environment import AsyncEnvironment, Environment, Measured
from planner_adapters.runner.health import Health
from planner_adapters.runner.logs import decision_line, log, logfmt
from planner_adapters.runner.records import Records
from planner_adapters.runner.reload import carry_over
from planner_core import (
    Decision,
    NextTick,
    PlannerConfig,
    PlannerState,
    TickInput,
    initial_state,
    next_tick,
    tick,
)

Watcher = Callable[[TickInput, Decision], None]
"""Is told of every tick: a report, an exporter, a test."""
LATE_S = 1.0


def run_sync(
    environment: Environment,
    config: PlannerConfig,
    *,
    state: PlannerState | None = None,
    num_ticks: int | None = None,
    on_tick: Watcher = lambda inputs, decision: None,
) -> PlannerState:
    """The loop where waiting is a plain call, with nothing around it; what the environment raises, it raises.

    Goes on from ``state``, if there is one, for ``num_ticks``, or for ever. Gives the last state.
    """
    state = initial_state(config, environment.wait_until(0.0)) if state is None else state
    upcoming = next_tick(config, state)
    while num_ticks != 0:
        now_s = environment.wait_until(upcoming.at_s)
        measured = environment.observe(upcoming)
        inputs = TickInput(config=config, state=state, now_s=now_s, **measured)
        decision = tick(inputs)
        if not config.shell.advisory:
            environment.scale(decision)
        on_tick(inputs, decision)
        state, upcoming = decision.state, decision.next_tick
        num_ticks = None if num_ticks is None else num_ticks - 1
    return state


async def run(
    environment: AsyncEnvironment,
    config: PlannerConfig,
    *,
    state: PlannerState | None = None,
    first: NextTick | None = None,
    num_ticks: int | None = None,
    stop: asyncio.Event | None = None,
    records: Records | None = None,
    health: Health | None = None,
    reconfigure: Callable[[PlannerConfig], PlannerConfig] = lambda config: config,
    on_tick: Sequence[Watcher] = (),
) -> PlannerState:
    """The loop. Gives the last state, after ``num_ticks`` or when ``stop`` is set: the tick in hand is finished first.

    Goes on from ``state``, if there is one; ``first`` is when to tick first and what to measure for it, if the state
    doesn't say it. ``reconfigure`` is asked before every tick, and returns the configuration in force. The environment
    isn't closed.
    """
    stop, health, records = stop or asyncio.Event(), health or Health(), records or Records()
    if state is None:
        state = initial_state(config, await environment.wait_until(0.0))
    upcoming = first or next_tick(config, state)
    last_s = state.schedule.last_tick_s
    while num_ticks != 0:
        health.waits(upcoming.at_s - last_s)
        now_s = await _unless(stop, environment.wait_until(upcoming.at_s))
        if now_s is None:
            break
        new = reconfigure(config)
        if new is not config:
            state, anew = carry_over(state, config, new)
            log.info(logfmt("reloaded", anew=", ".join(anew) or None))
            config = new
        measured = await _observe(environment, upcoming)
        health.observed(config, upcoming, measured)
        inputs = _inputs(config, state, now_s, measured)
        decision = await _decide(inputs, health)
        if decision is None:
            upcoming = attrs.evolve(upcoming, at_s=now_s + _interval_s(config))
        else:
            await asyncio.to_thread(records.write, inputs, decision)
            scaled = await _scale(environment, config, decision)
            health.note("records", records.problem)
            health.note("scale", scaled if scaled not in ("done", "advisory") else None)
            late_s = now_s - upcoming.at_s
            line = decision_line(
                now_s,
                decision,
                scaled=scaled,
                unfed=health.unfed(),
                late_s=late_s if late_s > LATE_S else None,
                records=records.problem,
            )
            log.log(30 if health.problems else 20, line)  # a warning, or for information
            for watcher in on_tick:
                _tell(watcher, inputs, decision)
            state, upcoming = decision.state, decision.next_tick
        health.ticked()
        last_s = now_s
        num_ticks = None if num_ticks is None else num_ticks - 1
    return state


async def _unless(stop: asyncio.Event, waiting: Coroutine[Any, Any, float]) -> float | None:
    """What was waited for; ``None`` if ``stop`` came first."""
    told = asyncio.ensure_future(waiting)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({told, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return None if stop.is_set() else told.result()
    finally:
        for task in (told, stopped):
            task.cancel()
        await asyncio.gather(told, stopped, return_exceptions=True)


async def _observe(environment: AsyncEnvironment, upcoming: NextTick) -> Measured:
    try:
        return await environment.observe(upcoming)
    except Exception as error:  # noqa: BLE001  # an environment may be anybody's: what it can't tell is unknown
        log.warning(logfmt("not observed", error=f"{type(error).__name__}: {error}"))
        return Measured()


def _inputs(config: PlannerConfig, state: PlannerState, now_s: float, measured: Measured) -> TickInput:
    try:
        return TickInput(config=config, state=state, now_s=now_s, **measured)
    except Exception as error:  # noqa: BLE001  # something that is no measurement is none
        log.error(logfmt("refused what was measured", error=f"{type(error).__name__}: {error}"))
        return TickInput(config=config, state=state, now_s=now_s)


async def _decide(inputs: TickInput, health: Health) -> Decision | None:
    """One tick, in a thread, so that a slow predictor keeps no health probe waiting; ``None`` if it failed."""
    try:
        decision = await asyncio.to_thread(tick, inputs)
    except Exception as error:  # noqa: BLE001  # a predictor may be anybody's; everything stays as it is
        log.exception(logfmt("no decision", error=f"{type(error).__name__}: {error}"))
        health.note("tick", f"{type(error).__name__}: {error}")
        return None
    health.note("tick", None)
    return decision


async def _scale(environment: AsyncEnvironment, config: PlannerConfig, decision: Decision) -> str:
    """``done``, ``advisory``, or why not."""
    if config.shell.advisory:
        return "advisory"
    try:
        await environment.scale(decision)
    except Exception as error:  # noqa: BLE001  # an environment may be anybody's; the next tick's target is absolute
        return str(error) or type(error).__name__
    return "done"


def _tell(watcher: Watcher, inputs: TickInput, decision: Decision) -> None:
    try:
        watcher(inputs, decision)
    except Exception as error:  # noqa: BLE001  # who only looks on must not stop the loop
        log.error(logfmt("watcher failed", watcher=repr(watcher), error=f"{type(error).__name__}: {error}"))


def _interval_s(config: PlannerConfig) -> float:
    loops = (config.load_loop, config.throughput_loop)
    return min(loop.interval_s for loop in loops if loop is not None)
