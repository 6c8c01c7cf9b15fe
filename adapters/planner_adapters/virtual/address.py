"""A store from its address, for a planner that is started from a command line."""

from __future__ import annotations

import os
from collections.abc import Mapping

from planner_adapters.virtual.etcd import EtcdStore
from planner_adapters.virtual.sqlite import SqliteStore
from planner_adapters.virtual.store import Store
from planner_core import ConfigError

VARIABLE = "PLANNER_VIRTUAL_STORE"


def open_store(address: str, *, name: str, environ: Mapping[str, str] = os.environ) -> Store:
    """The store at ``sqlite:PATH``, or at ``http://HOST:2379`` of etcd, several with commas in between.

    ``name`` tells deployments apart, and is the same on both sides; ``connect`` takes the namespace. User and
    password of etcd come from ``ETCD_USERNAME`` and ``ETCD_PASSWORD`` in ``environ``, never from the address.
    :class:`~planner_core.ConfigError` for any other address.
    """
    if address.startswith("sqlite:") and len(address) > len("sqlite:"):
        return SqliteStore(address.removeprefix("sqlite:"), name=name)
    endpoints = [endpoint.strip() for endpoint in address.split(",")]
    if "@" not in address and all(endpoint.startswith(("http://", "https://")) for endpoint in endpoints):
        user, password = (environ.get(f"ETCD_{word}") or None for word in ("USERNAME", "PASSWORD"))
        if (user is None) != (password is None):
            raise ConfigError("ETCD_USERNAME and ETCD_PASSWORD go together: set both or none")
        return EtcdStore(endpoints, key=f"planner/{name}", username=user, password=password)
    # The address isn't repeated: it may hold a password.
    raise ConfigError(
        "the address of a virtual environment's store must be sqlite:PATH, or http://HOST:2379 of etcd without a "
        f"password (in {VARIABLE}, where the command line is used)"
    )


def store_of_environment(name: str, environ: Mapping[str, str] = os.environ) -> Store:
    """The store that ``PLANNER_VIRTUAL_STORE`` names; :class:`~planner_core.ConfigError` where it doesn't."""
    address = environ.get(VARIABLE)
    if not address:
        raise ConfigError(
            f"environment = 'virtual' needs a store: set {VARIABLE} to sqlite:PATH or http://HOST:2379 of etcd"
        )
    return open_store(address, name=name, environ=environ)
