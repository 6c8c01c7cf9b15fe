"""Does the deployment fit the configuration? Everything that doesn't is said at once, before the first tick."""

from __future__ import annotations

from collections.abc import Mapping

from planner_adapters.kubernetes.graph import Component
from planner_adapters.kubernetes.services import Service
from planner_core import PlannerConfig, Role


def components_by_role(
    graph: str, components: list[Component], roles: list[Role]
) -> tuple[dict[Role, Component], list[str]]:
    """The one service of each role, and a line for each role that has none or several."""
    found: dict[Role, Component] = {}
    problems = []
    for role in roles:
        ours = [component for component in components if component.role is role]
        if len(ours) == 1:
            found[role] = ours[0]
        elif ours:
            names = ", ".join(component.name for component in ours)
            problems.append(
                f"DynamoGraphDeployment {graph!r} has {len(ours)} services with the role {role}: {names}; "
                "a planner scales one of each role"
            )
        else:
            there = ", ".join(
                f"{component.name} ({component.role or 'no engine'})" for component in components
            )
            problems.append(
                f"DynamoGraphDeployment {graph!r} has no service with the role {role}: {_how_to_be(role)}; "
                f"it has {there or 'none at all'}"
            )
    return found, problems


def misfits(config: PlannerConfig, services: Mapping[Role, Service]) -> list[str]:
    """A line for each GPU count and model name that contradicts the configuration or another role."""
    problems = []
    for role, service in services.items():
        configured = config.engines[role].num_gpus
        if service.num_gpus is not None and service.num_gpus != configured:
            nodes = f" on {service.pods_per_replica} nodes" if service.pods_per_replica > 1 else ""
            problems.append(
                f"{service.name} has {service.num_gpus} GPUs per replica{nodes}, the configuration says {configured}: "
                f"set engines.{role}.num_gpus: {service.num_gpus}"
            )
    models = {role: service.model for role, service in services.items() if service.model is not None}
    if len({_normal(model) for model in models.values()}) > 1:
        pairs = ", ".join(f"{role} {model!r}" for role, model in models.items())
        problems.append(f"the roles serve different models ({pairs}): one planner scales one model")
    elif models and config.shell.model_name is not None:
        model = next(iter(models.values()))
        if _normal(model) != _normal(config.shell.model_name):
            problems.append(
                f"model_name is {config.shell.model_name!r}, the deployment serves {model!r}: set model_name: {model}"
            )
    return problems


def _normal(model: str) -> str:
    return model.strip().lower()


def _how_to_be(role: Role) -> str:
    if role is Role.AGG:
        return "it would be of componentType (in v1beta1: type) worker, without subComponentType"
    return f"it would have subComponentType (in v1beta1: type) {role}"
