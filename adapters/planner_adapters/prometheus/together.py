"""Several requests at a time, none left behind: when the first error is raised, all of them have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def together(requests: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results in order; the first error in order is raised once every request has ended."""
    ended = await asyncio.gather(*requests, return_exceptions=True)
    results = []
    for result in ended:
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results
