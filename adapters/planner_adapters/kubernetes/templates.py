"""What a pod template says about an engine: its GPUs and its model. What it doesn't say is ``None``, never a guess."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

_GPU = re.compile(r"(.+[./])?(gpu|mig-.+)")
"""``nvidia.com/gpu``, ``amd.com/gpu``, ``gpu`` as Dynamo writes it, and slices of one."""
_MODEL_FLAGS = ("--served-model-name", "--model", "--model-path", "--model-name")
"""Of vLLM, SGLang, TensorRT-LLM and Dynamo; the name that clients use comes first."""


def gpus_of_pod(template: Mapping[str, Any]) -> int | None:
    """GPUs of a pod, over its containers; ``None``: it names none."""
    counts = [gpus_of(container.get("resources")) for container in _containers(template)]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def gpus_of(resources: Mapping[str, Any] | None) -> int | None:
    """GPUs of a container: its limits, else its requests."""
    for part in ("limits", "requests"):
        asked = (resources or {}).get(part) or {}
        counts = [
            int(str(count))
            for name, count in asked.items()
            if _GPU.fullmatch(name) and str(count).isdecimal()
        ]
        if counts:
            return sum(counts)
    return None


def model_of_pod(template: Mapping[str, Any]) -> str | None:
    """The model that the command line of a container names."""
    found = (model_of(container) for container in _containers(template))
    return next((model for model in found if model), None)


def model_of(container: Mapping[str, Any]) -> str | None:
    """The model in a container's command and arguments, also where these are a line for a shell."""
    words = [
        word
        for part in (*_texts(container.get("command")), *_texts(container.get("args")))
        for word in _words(part)
    ]
    for flag in _MODEL_FLAGS:
        for word, following in itertools.pairwise([*words, ""]):
            if word == flag and following and not following.startswith("-"):
                return following
            if word.startswith(f"{flag}="):
                return word.removeprefix(f"{flag}=")
    return None


def _containers(template: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((template.get("spec") or {}).get("containers") or ())


def _texts(value: Any) -> Iterable[str]:
    return [str(part) for part in value] if isinstance(value, list) else [str(value)] if value else []


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an open quote: a shell would refuse it too
        return text.split()
