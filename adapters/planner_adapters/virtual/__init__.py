"""Decisions for an environment that somebody else runs: written down with ids, waited for, acknowledged.

The planner's side is :func:`connect`, the environment's a client in Python or HTTP from :func:`serve`; between them
lies a store. A decision that isn't acknowledged yet counts as on its way, a newer one supersedes it, and none is lost
or made twice, whoever is restarted when. etcd and HTTP need the extra ``virtual``.
"""

from __future__ import annotations

from planner_adapters.virtual.address import open_store, store_of_environment
from planner_adapters.virtual.client import BlockingClient, VirtualClient
from planner_adapters.virtual.connector import Virtual, connect
from planner_adapters.virtual.decision import VirtualDecision
from planner_adapters.virtual.endpoint import serve
from planner_adapters.virtual.etcd import EtcdStore
from planner_adapters.virtual.ledger import UnknownDecisionError
from planner_adapters.virtual.sqlite import SqliteStore
from planner_adapters.virtual.store import MemoryStore, Store, Stored, StoreError

__all__ = [
    "BlockingClient",
    "EtcdStore",
    "MemoryStore",
    "SqliteStore",
    "Store",
    "StoreError",
    "Stored",
    "UnknownDecisionError",
    "Virtual",
    "VirtualClient",
    "VirtualDecision",
    "connect",
    "open_store",
    "serve",
    "store_of_environment",
]
