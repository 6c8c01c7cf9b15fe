"""Who looks on while a planner runs: the live dashboard and the periodic reports that the configuration asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from planner_adapters.runner.health import Health
from planner_adapters.runner.logs import log, logfmt
from planner_adapters.runner.loop import Watcher
from planner_core import Decision, MissingExtraError, PlannerConfig, TickInput


@asynccontextmanager
async def onlookers(
    config: PlannerConfig, health: Health, *, dashboard_host: str = "127.0.0.1"
) -> AsyncIterator[tuple[Watcher, ...]]:
    """Opens the dashboard on ``live_dashboard_port`` and begins a report, each unless it is switched off.

    Both are on by default and neither is needed to plan, so one that can't begin (its extra is missing, its port is
    taken) is a line in the log.
    """
    watchers: list[Watcher] = []
    async with AsyncExitStack() as stack:
        for begin in (_dashboard, _reports):
            try:
                watchers += await begin(config, health, dashboard_host, stack)
            except (MissingExtraError, OSError) as error:
                log.warning(logfmt("nobody looks on", error=str(error)))
        yield tuple(watchers)


async def _dashboard(
    config: PlannerConfig, health: Health, host: str, stack: AsyncExitStack
) -> list[Watcher]:
    if not config.shell.live_dashboard_port:
        return []
    from planner_adapters.dashboard import Dashboard

    port = config.shell.live_dashboard_port
    dashboard = await stack.enter_async_context(Dashboard(config, port=port, host=host, health=health.ready))
    log.info(logfmt("dashboard", url=f"http://{host}:{dashboard.port}/"))
    return [dashboard.update]


async def _reports(config: PlannerConfig, health: Health, host: str, stack: AsyncExitStack) -> list[Watcher]:
    if config.shell.report_interval_hours is None:
        return []
    from planner_adapters.report import PeriodicReport

    reports = stack.enter_context(PeriodicReport(config))

    def add(inputs: TickInput, decision: Decision) -> None:
        reports.add(inputs, decision)
        health.note("reports", reports.problem)

    return [add]
