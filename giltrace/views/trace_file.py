"""Is a file a whole Perfetto trace? Found out without Perfetto, from how its packets follow each other."""

from __future__ import annotations

import mmap
from pathlib import Path

from giltrace.errors import RecordingError

#: What a trace is made of: field 1 of the message `Trace`, and its length as a varint.
_PACKET = 0x0A
_LONGEST_VARINT = 10
_REMEDY = "name a trace that `giltrace record` or `giltrace export --to perfetto` wrote"


def check_whole(trace: Path) -> None:
    """Raise `RecordingError` unless `trace` can be read, and is a Perfetto trace up to its last byte."""
    try:
        with trace.open("rb") as file:
            if not trace.stat().st_size:
                raise RecordingError(f"{trace} is empty", _REMEDY)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _check_packets(trace, data)
    except OSError as error:
        raise RecordingError.unreadable(trace, error) from None


def _check_packets(trace: Path, data: mmap.mmap) -> None:
    at, size = 0, len(data)
    while at < size:
        if data[at] != _PACKET:
            raise RecordingError(f"{trace} is no Perfetto trace", _REMEDY)
        at += 1
        length = shift = 0
        for byte in data[at : at + _LONGEST_VARINT]:
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        else:
            at = size + 1
        at += length
    if at > size:
        raise RecordingError(
            f"{trace} is cut off: its last packet is not complete", "copy it again, or export its recording again"
        )
