"""What `giltrace/exporters/perfetto/messages.binpb` holds: of Perfetto's messages those that a trace of ours has.

    python -m tests.trace_messages

writes it anew, from the perfetto package that is installed.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2
from perfetto.protos.perfetto.trace import perfetto_trace_pb2

from giltrace.exporters.perfetto.protos import MESSAGES

_PACKAGE = ".perfetto.protos."

#: Top-level messages and enums, and the nested ones that are kept in them. A field of another type is left out.
_WANTED = {
    "BuiltinClock",
    "ClockSnapshot",
    "ClockSnapshot.Clock",
    "CounterDescriptor",
    "CounterDescriptor.BuiltinCounterType",
    "CounterDescriptor.Unit",
    "DebugAnnotation",
    "DebugAnnotationName",
    "EventCategory",
    "EventName",
    "FtraceEventBundle",
    "FtraceEventBundle.CompactSched",
    "InternedData",
    "InternedString",
    "ProcessDescriptor",
    "ProcessTree",
    "ProcessTree.Process",
    "ProcessTree.Thread",
    "SystemInfo",
    "ThreadDescriptor",
    "Trace",
    "TracePacket",
    "TracePacketDefaults",
    "TrackDescriptor",
    "TrackDescriptor.ChildTracksOrdering",
    "TrackDescriptor.SiblingMergeBehavior",
    "TrackEvent",
    "TrackEvent.Type",
    "Utsname",
}


def wanted() -> bytes:
    """The description of these messages, as the file has it."""
    file = descriptor_pb2.FileDescriptorProto()
    perfetto_trace_pb2.DESCRIPTOR.CopyToProto(file)
    _keep(file.message_type, "")
    _keep(file.enum_type, "")
    del file.extension[:]
    return bytes(file.SerializeToString(deterministic=True))


def _keep(types: Any, within: str) -> None:
    for at in reversed(range(len(types))):
        name = within + types[at].name
        if name not in _WANTED:
            del types[at]
        elif isinstance(types[at], descriptor_pb2.DescriptorProto):
            _prune(types[at], name)


def _prune(message: Any, name: str) -> None:
    _keep(message.nested_type, f"{name}.")
    _keep(message.enum_type, f"{name}.")
    for at in reversed(range(len(message.field))):
        if message.field[at].type_name.removeprefix(_PACKAGE) not in {*_WANTED, ""}:
            del message.field[at]
    choices = [one.name for one in message.oneof_decl]
    chosen = sorted({one.oneof_index for one in message.field if one.HasField("oneof_index")})
    for one in message.field:
        if one.HasField("oneof_index"):
            one.oneof_index = chosen.index(one.oneof_index)
    del message.oneof_decl[:]
    for at in chosen:
        message.oneof_decl.add(name=choices[at])
    for others in (message.extension, message.extension_range, message.reserved_range, message.reserved_name):
        del others[:]


if __name__ == "__main__":
    MESSAGES.write_bytes(wanted())
