"""The formats of other profilers' files. A new one is one file here and one line in `FORMATS`."""

from __future__ import annotations

import gzip
import json
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from giltrace.errors import MergeError
from giltrace.merging.formats import chrome, gecko, speedscope
from giltrace.merging.parsed import Malformed, Parsed
from giltrace.recording.door import refuse_constant
from giltrace.text import cut, visible

_GZIP = b"\x1f\x8b"
_PERFETTO = b"\x0a"
_TACHYON_LINES = b'{"type":"meta"'
#: JSON of that size takes some ten times as much memory.
_MOST_BYTES = 1 << 32
_NAMED = "name a file of torch.profiler, viztracer, py-spy (chrometrace) or Tachyon (gecko), or another Chrome trace"


class Format(NamedTuple):
    """One format: whether JSON `is_it`, and what `reads` that."""

    is_it: Callable[[Any], bool]
    read: Callable[[Any], Parsed]


FORMATS = (
    Format(gecko.is_it, gecko.read),
    Format(speedscope.is_it, speedscope.read),
    Format(chrome.is_it, chrome.read),
)


def read(path: Path) -> Parsed:
    """Read another profiler's file, packed by gzip or not. Raises `MergeError` if it is none that can be merged."""
    data = _bytes_of(path)
    if data[: len(_TACHYON_LINES)] == _TACHYON_LINES:
        raise MergeError(
            f"{path} says how often each line was seen, not when", "record with Tachyon's --gecko instead of --jsonl"
        )
    if data[:1] == _PERFETTO and data.lstrip()[:1] not in (b"[", b"{"):
        raise MergeError(f"{path} is a Perfetto trace, not JSON", "convert it: `traceconv json TRACE TRACE.json`")
    try:
        content = json.loads(data, parse_constant=refuse_constant)
    except ValueError as error:
        raise MergeError(f"{path} is no JSON: {cut(visible(str(error)), 120)}", _NAMED) from None
    except RecursionError:
        raise MergeError(f"{path} is nested too deeply to be a profile", _NAMED) from None
    for one in FORMATS:
        if one.is_it(content):
            try:
                parsed = one.read(content)
            except Malformed as error:
                raise MergeError(f"{path}: {visible(str(error))}", error.remedy or _NAMED) from None
            if not len(parsed.rows):
                raise MergeError(f"{path} has no spans{parsed.left_out_text}", _NAMED)
            return parsed
    raise MergeError(f"{path} is JSON, but no profile", _NAMED)


def _bytes_of(path: Path) -> bytes:
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise MergeError(f"{path} is no regular file", _NAMED)
        if about.st_size > _MOST_BYTES:
            raise MergeError(f"{path} has {about.st_size:,} bytes", "record a shorter stretch with that profiler")
        with path.open("rb") as plain:
            packed = plain.read(len(_GZIP)) == _GZIP
        if not packed:
            return path.read_bytes()
        with gzip.open(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise MergeError(f"{path} cannot be unpacked", "copy it again: it is cut off or damaged") from None
    except OSError as error:
        raise MergeError(f"cannot read {path}: {error.strerror}", _NAMED) from None
    if len(data) > _MOST_BYTES:
        raise MergeError(f"{path} has more than {_MOST_BYTES:,} bytes", "record a shorter stretch with that profiler")
    return data
