"""Perfetto's message classes, in one place: of the thousand that its package makes at import those that are used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

#: Their description, made by `tests/trace_messages.py`.
MESSAGES = Path(__file__).with_name("messages.binpb")

#: All packets form one sequence: interned names and defaults hold for the whole trace.
SEQUENCE = 1
STATE_CLEARED = 1
NEEDS_STATE = 2


def _described(description: bytes) -> Any:
    """The messages and the enums' values that a file describes, by their names."""
    pool = DescriptorPool()  # of our own: another may know the whole file by the same name
    file = pool.AddSerializedFile(description)
    classes = {name: GetMessageClass(kind) for name, kind in file.message_types_by_name.items()}
    values = {value.name: value.number for kind in file.enum_types_by_name.values() for value in kind.values}
    return SimpleNamespace(**classes, **values)


pb = _described(MESSAGES.read_bytes())


def framed(*packets: Any) -> bytes:
    """Return the packets as the bytes of a (piece of a) trace."""
    return bytes(pb.Trace(packet=packets).SerializeToString())


def packet(**fields: Any) -> Any:
    """Make a packet of the sequence."""
    return pb.TracePacket(trusted_packet_sequence_id=SEQUENCE, sequence_flags=NEEDS_STATE, **fields)
