"""A store from its address, for a planner that is started from a command line."""

from __future__ import annotations

import os
from collections.abc import Mapping

from planner_adapters.config_file import DEFAULT_NAMESPACE
from planner_adapters.virtual.etcd import EtcdStore
from planner_adapters.virtual.sqlite import SqliteStore
from planner_adapters.virtual.store import MemoryStore, Store
from planner_core import ConfigError

VARIABLE = "PLANNER_VIRTUAL_STORE"
"""Where decisions for a virtual environment are kept, by namespace: an address as of :func:`open_store`."""


def open_store(
    address: str,
    *,
    name: str = DEFAULT_NAMESPACE,
    environ: Mapping[str, str] = os.environ,
    where: str = "the address of a store",
) -> Store:
    """The store at ``sqlite:PATH``, at ``etcd:http://HOST:2379`` (several with commas in between), or ``memory:``.

    ``name`` tells deployments in one store apart, and is the same on both sides: for ``planner run`` it is the
    namespace. User and password of etcd come from ``ETCD_USERNAME`` and ``ETCD_PASSWORD`` in ``environ``, never from
    the address. :class:`~planner_core.ConfigError` for any other address, which begins with ``where``.
    """
    kind, _, place = address.partition(":")
    endpoints = [endpoint.strip() for endpoint in address.removeprefix("etcd:").split(",")]
    if address == "memory:":
        return MemoryStore()
    if kind == "sqlite" and place:
        return SqliteStore(place, name=name)
    if "@" not in address and all(endpoint.startswith(("http://", "https://")) for endpoint in endpoints):
        user, password = (environ.get(f"ETCD_{word}") or None for word in ("USERNAME", "PASSWORD"))
        if (user is None) != (password is None):
            raise ConfigError("ETCD_USERNAME and ETCD_PASSWORD go together: set both or none")
        return EtcdStore(endpoints, key=f"planner/{name}", username=user, password=password)
    # The address isn't repeated: it may hold a password.
    raise ConfigError(f"{where} must be sqlite:PATH, etcd:http://HOST:2379 without a password, or memory:")


def store_of_environment(name: str, environ: Mapping[str, str] = os.environ) -> Store:
    """The store that ``PLANNER_VIRTUAL_STORE`` names; :class:`~planner_core.ConfigError` where it doesn't."""
    where = f"environment = 'virtual' needs a store: ${VARIABLE}"
    return open_store(environ.get(VARIABLE, ""), name=name, environ=environ, where=where)
