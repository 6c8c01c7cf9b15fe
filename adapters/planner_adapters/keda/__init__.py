"""KEDA's external scaler: KEDA asks over gRPC how many replicas there should be, the planner has decided, HPA scales.

:func:`serve` answers for what connectors have published in a :class:`Decided`; :func:`connect` publishes with replica
counts from any connector, :func:`on_kubernetes` with those of Kubernetes, where it marks the drain list too. Needs the
extra ``keda``.
"""

from __future__ import annotations

from planner_core import MissingExtraError

try:
    import google.protobuf as _protobuf  # noqa: F401
    import grpc as _grpc  # noqa: F401
except ImportError:
    raise MissingExtraError(
        "planner_adapters.keda needs grpcio and protobuf: pip install 'planner-core[keda]'"
    ) from None

from planner_adapters.keda.connector import Keda, connect, on_kubernetes
from planner_adapters.keda.decided import Decided, UndecidedError, UnknownDeploymentError
from planner_adapters.keda.scaler import METRIC, credentials_in, serve

__all__ = [
    "METRIC",
    "Decided",
    "Keda",
    "UndecidedError",
    "UnknownDeploymentError",
    "connect",
    "credentials_in",
    "on_kubernetes",
    "serve",
]
