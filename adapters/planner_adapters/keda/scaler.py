"""The gRPC service that KEDA calls: the decided count as the value of a metric, of which a replica is to have 1.

HPA divides the one by the other and has the count. What isn't known is an error, never 0: then KEDA leaves the workload
as it is, or does what its ``fallback`` says. The service only tells counts; nobody can change anything through it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from planner_adapters.keda import messages
from planner_adapters.keda.decided import Decided, UndecidedError, UnknownDeploymentError
from planner_core import ConfigError

METRIC = "planner-decided-replicas"
"""The name of the metric, as the HPA shows it behind ``s0-``."""
MOST_BYTES = 16_384
"""Of a request. KEDA sends the metadata of a trigger."""
MOST_AT_ONCE = 256
"""Calls under way; a push trigger keeps one open."""


@asynccontextmanager
async def serve(
    decided: Decided, *, host: str = "127.0.0.1", port: int = 0, credentials: Any = None
) -> AsyncIterator[str]:
    """Serves KEDA while it is open, and gives its address, such as ``127.0.0.1:9090``: the ``scalerAddress``.

    Port 0 is any free one. KEDA runs elsewhere, so ``host`` is mostly ``0.0.0.0``; ``credentials`` are those of
    gRPC, as :func:`credentials_in` reads them. ``OSError`` where the address can't be had.
    """
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", MOST_BYTES), ("grpc.so_reuseport", 0)],
        maximum_concurrent_rpcs=MOST_AT_ONCE,
    )
    server.add_generic_rpc_handlers((_handlers(decided),))
    named = f"[{host}]" if ":" in host else host
    try:
        if credentials is None:
            bound = server.add_insecure_port(f"{named}:{port}")
        else:
            bound = server.add_secure_port(f"{named}:{port}", credentials)
    except RuntimeError as error:
        raise OSError(f"KEDA can't be served at {named}:{port}: {error}") from None
    await server.start()
    try:
        yield f"{named}:{bound}"
    finally:
        await server.stop(grace=None)


def credentials_in(folder: str | Path) -> Any:
    """TLS from the files ``tls.crt`` and ``tls.key``, as a Secret of Kubernetes has them.

    Where ``ca.crt`` is there too, only who shows a certificate of that authority is served.
    :class:`~planner_core.ConfigError` names a file that can't be read.
    """
    try:
        certificate, key = (Path(folder, name).read_bytes() for name in ("tls.crt", "tls.key"))
        authority = Path(folder, "ca.crt")
        root = authority.read_bytes() if authority.exists() else None
    except OSError as error:
        raise ConfigError(f"TLS for KEDA: {error.filename}: {error.strerror}") from None
    return grpc.ssl_server_credentials([(key, certificate)], root, require_client_auth=root is not None)


def _handlers(decided: Decided) -> Any:
    scaler = _Scaler(decided)
    calls: dict[str, tuple[Callable[..., Any], Callable[..., Any], Any, Any]] = {
        "IsActive": (
            scaler.is_active,
            grpc.unary_unary_rpc_method_handler,
            messages.ScaledObjectRef,
            messages.IsActiveResponse,
        ),
        "StreamIsActive": (
            scaler.stream_is_active,
            grpc.unary_stream_rpc_method_handler,
            messages.ScaledObjectRef,
            messages.IsActiveResponse,
        ),
        "GetMetricSpec": (
            scaler.metric_spec,
            grpc.unary_unary_rpc_method_handler,
            messages.ScaledObjectRef,
            messages.GetMetricSpecResponse,
        ),
        "GetMetrics": (
            scaler.metrics,
            grpc.unary_unary_rpc_method_handler,
            messages.GetMetricsRequest,
            messages.GetMetricsResponse,
        ),
    }
    return grpc.method_handlers_generic_handler(
        messages.SERVICE,
        {
            name: handler(
                call, request_deserializer=asked.FromString, response_serializer=answer.SerializeToString
            )
            for name, (call, handler, asked, answer) in calls.items()
        },
    )


class _Scaler:
    """The calls. Each is about one workload, which its trigger's metadata name by deployment and role."""

    def __init__(self, decided: Decided) -> None:
        self._decided = decided

    async def is_active(self, ref: Any, context: Any) -> Any:
        return messages.IsActiveResponse(result=await self._replicas(ref, context) > 0)

    async def stream_is_active(self, ref: Any, context: Any) -> AsyncIterator[Any]:
        place = await self._known(ref, context)
        told: bool | None = None
        async for replicas in self._decided.changes(*place):
            if replicas is not None and (active := replicas > 0) != told:
                told = active
                yield messages.IsActiveResponse(result=active)

    async def metric_spec(self, ref: Any, context: Any) -> Any:
        # Known before anything is decided, so that KEDA can make the HPA.
        await self._known(ref, context)
        # Older releases of KEDA read the whole number alone, newer ones the float.
        spec = {"metricName": METRIC, "targetSize": 1, "targetSizeFloat": 1.0}
        return messages.GetMetricSpecResponse(metricSpecs=[spec])

    async def metrics(self, request: Any, context: Any) -> Any:
        if request.metricName != METRIC:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"no metric {request.metricName[:80]!r}: there is {METRIC}"
            )
        count = await self._replicas(request.scaledObjectRef, context)
        value = {"metricName": METRIC, "metricValue": count, "metricValueFloat": float(count)}
        return messages.GetMetricsResponse(metricValues=[value])

    async def _replicas(self, ref: Any, context: Any) -> int:
        place = await self._known(ref, context)
        try:
            return self._decided.replicas(*place)
        except UndecidedError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise

    async def _known(self, ref: Any, context: Any) -> tuple[str, str]:
        """Deployment and role; ends the call if there are no such."""
        deployment, role = (ref.scalerMetadata.get(name, "") for name in ("deployment", "role"))
        missing = [name for name in ("deployment", "role") if not ref.scalerMetadata.get(name)]
        if missing:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"the trigger's metadata lack {' and '.join(missing)}: name the planner's namespace and the role",
            )
        try:
            self._decided.check(deployment, role)
        except UnknownDeploymentError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return deployment, role
