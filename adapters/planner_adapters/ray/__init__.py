"""Ray Serve: the planner as the autoscaling policy of a deployment.

:func:`autoscaling_config` makes what ``@serve.deployment(autoscaling_config=…)`` takes; :class:`PlannerPolicy` is what
Serve's controller then calls. Needs the extra ``ray``, or a Ray Serve that is there already.
"""

from __future__ import annotations

from planner_adapters.ray.options import autoscaling_config
from planner_adapters.ray.policy import PlannerPolicy

__all__ = ["PlannerPolicy", "autoscaling_config"]
