"""Perfetto's message classes, in one place: their package carries no type information."""

from __future__ import annotations

from typing import Any

from perfetto.protos.perfetto.trace import perfetto_trace_pb2

pb: Any = perfetto_trace_pb2

#: All packets form one sequence: interned names and defaults hold for the whole trace.
SEQUENCE = 1
STATE_CLEARED = 1
NEEDS_STATE = 2


def framed(*packets: Any) -> bytes:
    """Return the packets as the bytes of a (piece of a) trace."""
    return bytes(pb.Trace(packet=packets).SerializeToString())


def packet(**fields: Any) -> Any:
    """Make a packet of the sequence."""
    return pb.TracePacket(trusted_packet_sequence_id=SEQUENCE, sequence_flags=NEEDS_STATE, **fields)
