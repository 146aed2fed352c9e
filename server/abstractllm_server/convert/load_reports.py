"""Load as messages of ORCA (https://github.com/cncf/xds, `xds/data/orca/v3` and `xds/service/orca/v3`).

The package `xds-protos` has these messages among hundreds of others, and beside them files that take the place of
OpenTelemetry's and Google's packages. So the two that are needed are described here.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory

__all__ = ["LOAD_SERVICE", "LoadReport", "LoadReportRequest"]

LOAD_SERVICE = "xds.service.orca.v3.OpenRcaService"
"""The full name of the service that sends reports."""

_REPORT_FILE, _SERVICE_FILE = "xds/data/orca/v3/orca_load_report.proto", "xds/service/orca/v3/orca.proto"
_DURATION = duration_pb2.DESCRIPTOR

_Field = descriptor_pb2.FieldDescriptorProto

_NUMBERS = {"cpu_utilization": 1, "mem_utilization": 2, "rps_fractional": 6, "eps": 7, "application_utilization": 9}
_MAPS = {"request_cost": 4, "utilization": 5, "named_metrics": 8}


def _report_file() -> descriptor_pb2.FileDescriptorProto:
    """Describes OrcaLoadReport, without the outdated field `rps`."""
    package = "xds.data.orca.v3"
    file = descriptor_pb2.FileDescriptorProto(name=_REPORT_FILE, package=package, syntax="proto3")
    report = file.message_type.add(name="OrcaLoadReport")
    for name, number in _NUMBERS.items():
        report.field.add(name=name, number=number, type=_Field.TYPE_DOUBLE, label=_Field.LABEL_OPTIONAL)
    for name, number in _MAPS.items():
        entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        entry = report.nested_type.add(name=entry_name, options=descriptor_pb2.MessageOptions(map_entry=True))
        entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
        entry.field.add(name="value", number=2, type=_Field.TYPE_DOUBLE, label=_Field.LABEL_OPTIONAL)
        report.field.add(
            name=name,
            number=number,
            type=_Field.TYPE_MESSAGE,
            label=_Field.LABEL_REPEATED,
            type_name=f".{package}.OrcaLoadReport.{entry_name}",
        )
    return file


def _service_file() -> descriptor_pb2.FileDescriptorProto:
    """Describes OpenRcaService and its request."""
    file = descriptor_pb2.FileDescriptorProto(
        name=_SERVICE_FILE,
        package="xds.service.orca.v3",
        syntax="proto3",
        dependency=[_REPORT_FILE, _DURATION.name],
    )
    request = file.message_type.add(name="OrcaLoadReportRequest")
    request.field.add(
        name="report_interval",
        number=1,
        type=_Field.TYPE_MESSAGE,
        label=_Field.LABEL_OPTIONAL,
        type_name=".google.protobuf.Duration",
    )
    request.field.add(name="request_cost_names", number=2, type=_Field.TYPE_STRING, label=_Field.LABEL_REPEATED)
    service = file.service.add(name=LOAD_SERVICE.rpartition(".")[2])
    service.method.add(
        name="StreamCoreMetrics",
        input_type=".xds.service.orca.v3.OrcaLoadReportRequest",
        output_type=".xds.data.orca.v3.OrcaLoadReport",
        server_streaming=True,
    )
    return file


def _message(file: descriptor_pb2.FileDescriptorProto, name: str) -> Any:
    """Returns the class of a message; the description of a library that has one already counts."""
    pool = descriptor_pool.Default()
    try:
        described = pool.FindFileByName(file.name)
    except KeyError:
        pool.AddSerializedFile(file.SerializeToString())
        described = pool.FindFileByName(file.name)
    return message_factory.GetMessageClass(described.message_types_by_name[name])


LoadReport = _message(_report_file(), "OrcaLoadReport")
LoadReportRequest = _message(_service_file(), "OrcaLoadReportRequest")
