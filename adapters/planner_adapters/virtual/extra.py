"""The extra that HTTP needs, to etcd and from schedulers."""

from __future__ import annotations

from planner_core import MissingExtraError


def require_aiohttp() -> None:
    """:class:`~planner_core.MissingExtraError` with the pip command if aiohttp isn't there."""
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        raise MissingExtraError("HTTP needs aiohttp: pip install 'planner-core[virtual]'") from None
