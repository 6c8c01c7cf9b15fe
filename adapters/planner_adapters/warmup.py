"""A past trace as traffic windows, so that the forecasters know a day before their first tick."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from planner_adapters.simulation.traces import load_workload
from planner_adapters.simulation.workload import Workload
from planner_core import PlannerConfig, TrafficObservation


def warmup_traffic(config: PlannerConfig) -> tuple[TrafficObservation, ...]:
    """The windows of the configuration's ``load_predictor_warmup_trace``, oldest first; none if none is named.

    Any trace that ``planner replay`` reads will do. ``WorkloadError`` or ``OSError`` if this one can't be read.
    """
    path, slow = config.shell.load_predictor_warmup_trace, config.throughput_loop
    if path is None or slow is None:
        return ()
    return traffic_windows(load_workload(Path(path)), slow.interval_s)


def traffic_windows(workload: Workload, interval_s: float) -> tuple[TrafficObservation, ...]:
    """What a shell would have measured in each whole interval; what is left at the end is no whole one."""
    number = (workload.arrival_s // interval_s).astype(np.int64)
    num_windows = int(number[-1])
    inside = number < num_windows
    number = number[inside]
    count = np.bincount(number, minlength=num_windows)
    inputs, outputs = (
        np.bincount(number, weights=tokens[inside], minlength=num_windows) / np.maximum(count, 1)
        for tokens in (workload.input_tokens, workload.output_tokens)
    )
    return tuple(
        TrafficObservation(duration_s=interval_s, num_requests=int(n), isl=float(isl), osl=float(osl))
        for n, isl, osl in zip(count, inputs, outputs, strict=True)
    )
