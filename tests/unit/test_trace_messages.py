"""The messages that traces are made of are Perfetto's."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from giltrace.exporters.perfetto.protos import MESSAGES
from tests.trace_messages import wanted


def described(description: bytes) -> FileDescriptorProto:
    return FileDescriptorProto.FromString(description)


def fields(messages: Any, within: str = "") -> dict[str, object]:
    """Each field of these messages and of those in them, and each value of an enum, with what a trace has for it."""
    found: dict[str, object] = {}
    for message in messages:
        name = f"{within}{message.name}."
        found |= {name + one.name: (one.number, one.type, one.label, one.type_name) for one in message.field}
        found |= fields(message.nested_type, name)
        found |= {name + value.name: value.number for enum in message.enum_type for value in enum.value}
    return found


def test_each_field_is_as_the_package_has_it() -> None:
    ours, theirs = described(MESSAGES.read_bytes()), described(wanted())
    assert fields(ours.message_type).items() <= fields(theirs.message_type).items()
    assert len(fields(ours.message_type)) > 200
    clocks = [{value.name: value.number for enum in one.enum_type for value in enum.value} for one in (ours, theirs)]
    assert "BUILTIN_CLOCK_MONOTONIC" in clocks[0]
    assert clocks[0].items() <= clocks[1].items()
