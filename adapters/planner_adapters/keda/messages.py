"""What KEDA and an external scaler send each other, in KEDA's names, numbers and types.

protobuf reads and writes it, from a description that is made here: seven messages are a table. What protoc generates is
longer than that, nothing to read, and refuses releases of protobuf that are older than its generator.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE: Final = "externalscaler.ExternalScaler"
_PACKAGE: Final = "externalscaler"

_TABLE: Final = {
    "ScaledObjectRef": ("name string", "namespace string", "scalerMetadata map"),
    "IsActiveResponse": ("result bool",),
    "GetMetricSpecResponse": ("metricSpecs MetricSpec…",),
    "MetricSpec": ("metricName string", "targetSize int64", "targetSizeFloat double"),
    "GetMetricsRequest": ("scaledObjectRef ScaledObjectRef", "metricName string"),
    "GetMetricsResponse": ("metricValues MetricValue…",),
    "MetricValue": ("metricName string", "metricValue int64", "metricValueFloat double"),
}
"""The fields of each message, numbered from 1 as they stand; ``…`` is a list, ``map`` one of strings to strings."""
_ENTRY: Final = ("key string", "value string")


def _describe(message: Any, fields: tuple[str, ...]) -> None:
    """Fills in a description of a message."""
    kinds = descriptor_pb2.FieldDescriptorProto
    for number, field in enumerate(fields, start=1):
        name, kind = field.split()
        described = message.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL)
        if kind == "map":
            entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
            entry.options.map_entry = True
            _describe(entry, _ENTRY)
            kind = f"{message.name}.{entry.name}…"
        if kind.endswith("…"):
            described.label = kinds.LABEL_REPEATED
        if kind[0].isupper():
            described.type = kinds.TYPE_MESSAGE
            described.type_name = f".{_PACKAGE}.{kind.removesuffix('…')}"
        else:
            described.type = getattr(kinds, f"TYPE_{kind.upper()}")


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="planner_adapters/keda.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _TABLE.items():
        _describe(file.message_type.add(name=name), fields)
    # A pool of our own: who has KEDA's generated file in the same process has these names in the common one.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _TABLE
    }


_CLASSES = _classes()
ScaledObjectRef: Any = _CLASSES["ScaledObjectRef"]
IsActiveResponse: Any = _CLASSES["IsActiveResponse"]
GetMetricSpecResponse: Any = _CLASSES["GetMetricSpecResponse"]
GetMetricsRequest: Any = _CLASSES["GetMetricsRequest"]
GetMetricsResponse: Any = _CLASSES["GetMetricsResponse"]
