"""The errors that the library raises, all of them before a tick: a valid tick never fails."""

from __future__ import annotations

from collections.abc import Iterable


class PlannerError(ValueError):
    """Base class of the library's errors."""


class ConfigError(PlannerError):
    """A configuration that can't be meant; raised when it is built.

    ``problems`` holds one line for each thing that is wrong, each naming key, value and mend.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class ObservationError(PlannerError):
    """A measurement that can't be true; raised when the observation is built."""


class MissingExtraError(PlannerError, ImportError):
    """A part of the library needs a package that isn't installed; the message has the pip command."""
