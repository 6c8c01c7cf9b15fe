"""What a context of Ray Serve says, in the planner's terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from planner_core import ForwardPassMetrics, FpmBatch, Role, WorkerCounts

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

_NUMBERS = tuple(
    field.name for field in attrs.fields(ForwardPassMetrics) if field.name not in ("worker_id", "dp_rank")
)


def workers_of(context: AutoscalingContext, now_s: float) -> WorkerCounts:
    """Replicas that run, and those that have been asked for since the last growth."""
    ready, expected = context.current_num_replicas, context.target_num_replicas
    began_s = context.last_scale_up_time
    starting = 0 if began_s is None else max(0, expected - ready)
    return WorkerCounts(
        ready=ready, expected=expected, starting_ages_s=[max(0.0, now_s - (began_s or now_s))] * starting
    )


def passes_of(
    context: AutoscalingContext, role: Role, tokens_per_request: float | None
) -> dict[Role, FpmBatch]:
    """One pass per replica: what it reports, else its share of the requests; and its share of what waits for a replica.

    Serve gives means over its look-back period: means of passes, from which a regression learns as from passes. A
    replica that doesn't report all that the others do is left out; without reports and without
    ``tokens_per_request`` there are none at all.
    """
    reported = context.aggregated_metrics or {}
    metrics = {name: reported[name] for name in _NUMBERS if reported.get(name)}
    replicas = [
        each for each in context.running_replicas if all(each in metric for metric in metrics.values())
    ]
    if not replicas or (not metrics and tokens_per_request is None):
        return {}
    columns: dict[str, Any] = {"wall_time_s": [0.0] * len(replicas)}  # no duration: nothing to learn from
    columns |= {name: [float(metric[each]) for each in replicas] for name, metric in metrics.items()}
    if tokens_per_request is not None:
        queued = context.total_queued_requests or 0.0
        waiting, tokens = _QUEUE[role]
        shares = {waiting: queued / len(replicas), tokens: queued / len(replicas) * tokens_per_request}
        if not metrics:
            running = max(0.0, context.total_num_requests - queued) / len(replicas)
            at_work, held = _RUNNING[role]
            shares |= {at_work: running, held: running * tokens_per_request}
        for name, share in shares.items():
            columns[name] = [value + share for value in columns.get(name, [0.0] * len(replicas))]
    return {role: FpmBatch(worker_id=[each.unique_id for each in replicas], **columns)}


_QUEUE = {
    Role.PREFILL: ("queued_num_prefill", "queued_prefill_tokens"),
    Role.DECODE: ("queued_num_decode", "queued_decode_kv_tokens"),
    Role.AGG: ("queued_num_prefill", "queued_prefill_tokens"),
}
_RUNNING = {
    Role.PREFILL: ("num_prefill", "prefill_tokens"),
    Role.DECODE: ("num_decode", "decode_kv_tokens"),
    Role.AGG: ("num_decode", "decode_kv_tokens"),
}
