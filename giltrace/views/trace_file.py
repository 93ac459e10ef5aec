"""Is a file a whole Perfetto trace? Found out without Perfetto, from how its packets follow each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from giltrace.errors import RecordingError

#: What a trace is made of: field 1 of the message `Trace`, and its length as a varint.
_PACKET = b"\x0a"
_HEAD = 1 + 10
_PIECE = 1 << 20
_REMEDY = "name a trace that `giltrace record` or `giltrace export --to perfetto` wrote"


#: What a thinned trace says of itself, among its first packets.
_THINNED = re.compile(rb"trace thinned: [^;]+; elsewhere (?:in steps of [0-9.e+]+ m?s|quiet ones in a row as one)")
_BEGIN = 1 << 16


def thinned(trace: Path) -> str:
    """What a trace says that it leaves out of its recording, in words; empty if it does not."""
    try:
        with trace.open("rb") as file:
            found = _THINNED.search(file.read(_BEGIN))
    except OSError as error:
        raise RecordingError.unreadable(trace, error) from None
    return "" if found is None else found[0].decode()


def check_whole(trace: Path) -> None:
    """Raise `RecordingError` unless `trace` can be read, and is a Perfetto trace up to its last byte."""
    try:
        with trace.open("rb") as file:
            size = trace.stat().st_size
            if not size:
                raise RecordingError(f"{trace} is empty", _REMEDY)
            _check_packets(trace, file, size)
    except OSError as error:
        raise RecordingError.unreadable(trace, error) from None


def _check_packets(trace: Path, file: BinaryIO, size: int) -> None:
    at, data, begin = 0, b"", 0
    while at < size:
        if not begin <= at <= begin + len(data) - _HEAD:
            file.seek(at)
            data, begin = file.read(_PIECE), at
        head = data[at - begin : at - begin + _HEAD]
        if head[:1] != _PACKET:
            raise RecordingError(f"{trace} is no Perfetto trace", _REMEDY)
        length = shift = 0
        for byte in head[1:]:
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        else:
            at = size + 1
        at += 1 + length
    if at > size:
        raise RecordingError(
            f"{trace} is cut off: its last packet is not complete", "copy it again, or export its recording again"
        )
