"""Write the tracer's file of stacks by hand, record by record (native/FORMAT.md)."""

from __future__ import annotations

import struct

PADDING, CODE, STACK = 3, 4, 5
#: A line table of 3.11 and later: one entry (no columns, 8 units of code) on the first line.
TABLE = bytes([0x80 | 13 << 3 | 7, 0])


def record(kind: int, body: bytes) -> bytes:
    return struct.pack("<I", kind | (len(body) // 4 + 1) << 8) + body


def padding(words: int) -> bytes:
    return record(PADDING, bytes(4 * (words - 1)))


def text(value: bytes, alignment: int = 4) -> bytes:
    return struct.pack("<2I", 1, len(value)) + value + bytes(-len(value) % alignment)


def code(ident: int, name: str, line: int = 10, file: str = "app.py") -> bytes:
    return record(CODE, struct.pack("<2I", ident, line) + b"".join(map(text, (file.encode(), name.encode(), TABLE))))


def stack(number: int, *codes: int, cut: bool = False) -> bytes:
    flat = [word for ident in codes for word in (ident, 0)]
    return record(STACK, struct.pack(f"<{3 + len(flat)}I", number, len(codes), cut, *flat))


def unsized(*records: tuple[str, int, str] | tuple[int, tuple[int, ...]]) -> bytes:
    """As before records told their length: codes as ("code", id, name), stacks as (number, (codes))."""
    data = b""
    for one in records:
        if len(one) == 3:
            texts = b"".join(text(value, 1) for value in (b"app.py", one[2].encode(), TABLE))
            data += struct.pack("<3I", 1, one[1], 10) + texts
        else:
            flat = [word for ident in one[1] for word in (ident, 0)]
            data += struct.pack(f"<{4 + len(flat)}I", 2, one[0], len(one[1]), 0, *flat)
    return data
