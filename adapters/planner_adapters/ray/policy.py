"""The planner as Ray Serve calls it: a context goes in, a number of replicas and a state come out.

Serve asks ten times a second. A tick is made when one is due, and between two ticks the answer is the last one. All
that is remembered is in the state that Serve keeps, so that equal contexts get equal answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from planner_adapters.ray.context import passes_of, workers_of
from planner_core import ConfigError, PlannerConfig, TickInput, first_tick, initial_state, tick

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

_MEMORY = "planner"
_log = logging.getLogger("ray.serve.planner")


class PlannerPolicy:
    """An autoscaling policy of one deployment. Serve makes it from the ``policy_kwargs`` of its ``AutoscalingPolicy``.

    ``config`` has the keys of a configuration file, with a mode of one role (``agg``, ``prefill`` or ``decode``).
    ``tokens_per_request`` is for deployments that report nothing themselves: what a request has in the KV cache while
    it runs, on average; for prefill, its prompt. :class:`~planner_core.ConfigError` if they can't be meant.
    """

    def __init__(self, config: Mapping[str, Any], tokens_per_request: float | None = None) -> None:
        self.config = PlannerConfig.from_mapping(config)
        if len(self.config.engines) != 1:
            raise ConfigError(
                f"mode = {self.config.mode!r}: Ray Serve scales each deployment by itself, so it must be "
                "agg, prefill or decode"
            )
        if tokens_per_request is not None and not 0 < tokens_per_request < 1e9:
            raise ConfigError(
                f"tokens_per_request = {tokens_per_request!r}: must be above 0, such as a prompt and half an answer"
            )
        (self._role,) = self.config.engines
        self._tokens_per_request = tokens_per_request

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """How many replicas there should be, and the state for the next call."""
        now_s = time.time() if context.current_time is None else context.current_time
        memory = context.policy_state.get(_MEMORY)
        if memory is None:
            upcoming = first_tick(self.config, now_s)
            memory = (initial_state(self.config, now_s), now_s, upcoming.at_s, None)
        state, before_s, at_s, replicas = memory
        if not before_s <= now_s < at_s:  # due, or the clock was set back
            decision = tick(
                TickInput(
                    config=self.config,
                    state=state,
                    now_s=now_s,
                    workers={self._role: workers_of(context, now_s)},
                    fpm=passes_of(context, self._role, self._tokens_per_request),
                )
            )
            replicas = decision.replicas.get(self._role)
            if replicas not in (None, context.target_num_replicas):
                _log.info("%s", decision.explanations[self._role].sentence())
            memory = (decision.state, now_s, decision.next_tick.at_s, replicas)
        return context.target_num_replicas if replicas is None else replicas, {_MEMORY: memory}
