"""Reads and writes `<collector>-<pid>.spans.npz`: the spans of one process from one collector."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.recording.door import (
    MAX_COUNT,
    MAX_ID,
    Damaged,
    Source,
    Times,
    is_int,
    leaving_out,
    matching,
    refuse_constant,
)
from giltrace.recording.events import SPAN, Array, Spans
from giltrace.recording.replacing import replacing
from giltrace.text import visible

_VERSION = 1
_EVER = Times()


def write_spans(folder: Path, spans: Spans) -> Path:
    """Write `spans` into the recording `folder`, sorted as `Spans` promises, and return the file's path.

    The file appears under its name only when it is whole. Raises OSError if it cannot be written.
    """
    rows = spans.spans[np.lexsort((spans.spans["depth"], spans.spans["start"], spans.spans["tid"]))]
    about = {
        "version": _VERSION,
        "collector": spans.collector,
        "pid": spans.pid,
        "sampled": spans.sampled,
        "clock_error_ns": spans.clock_error_ns,
        "lost": spans.lost,
        "names": list(spans.names),
        "native": list(spans.native),
        "interval_ns": spans.interval_ns,
    }
    path = folder / f"{spans.collector}-{spans.pid}.spans.npz"
    # Names come from other people's source files: surrogates from undecodable paths must survive.
    text = json.dumps(about, ensure_ascii=True).encode("ascii")
    with replacing(path) as file:
        np.savez(file, about=np.frombuffer(text, np.uint8), spans=rows)
    return path


def read_spans(
    folder: Path, pid: int | None = None, times: Times = _EVER, damage: list[str] | None = None
) -> list[Spans]:
    """Read the spans from every collector, of process `pid` or of all, ordered by the collector's name.

    Spans that are not of these `times`, or make no sense, are left out, and so are files that are damaged or of another
    version: in words, they are added to `damage`. Without that they raise `Damaged`.
    """
    found: list[Spans] = []
    refused: list[Damaged] = []
    problems: list[str] = []
    for path in matching(folder, re.compile(rf".+-({pid or '[0-9]{1,10}'})\.spans\.npz").fullmatch):
        with leaving_out(path, refused):
            spans = _read(path)
            rows = _sensible(spans, times)
            if len(rows) < len(spans.spans):
                problems.append(f"{visible(path.name)}: {len(spans.spans) - len(rows)} spans make no sense: left out")
            found.append(replace(spans, spans=rows))
    if refused and damage is None:
        raise refused[0]
    if damage is not None:
        damage += [*(error.left_out() for error in refused), *problems]
    return found


def _read(path: Path) -> Spans:
    remedy = "delete that file to go on without it"
    try:
        with Source(path) as source, zipfile.ZipFile(io.BytesIO(source.data())) as archive:
            about = json.loads(_array(archive, "about", np.dtype(np.uint8)).tobytes(), parse_constant=refuse_constant)
            rows = _array(archive, "spans", SPAN)
    except Damaged:
        raise
    except (ValueError, KeyError, EOFError, RuntimeError, RecursionError, struct.error, zipfile.BadZipFile) as error:
        raise Damaged(path, visible(str(error)) or "it is no archive", remedy) from error
    if not isinstance(about, dict) or about.get("version") != _VERSION:
        raise Damaged(path, "it is of another version", "upgrade giltrace")
    # Recordings from before there was `--native` lack the last two.
    about = {"native": [], "interval_ns": 0, **about}
    wrong = [name for name, accepted in _ACCEPTED.items() if name not in about or not accepted(about[name])]
    if wrong:
        raise Damaged(path, f"its {wrong[0]} makes no sense", remedy)
    return Spans(
        collector=visible(about["collector"]),
        pid=about["pid"],
        sampled=about["sampled"],
        names=tuple(map(visible, about["names"])),
        spans=rows,
        clock_error_ns=about["clock_error_ns"],
        lost=about["lost"],
        native=tuple(one for one in about["native"] if one < len(about["names"])),
        interval_ns=about["interval_ns"],
    )


def _array(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Read an array of one dimension of the archive, if it is there as it was written: not packed, and all of it."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ValueError(f"its {name} are packed")
    file = io.BytesIO(archive.read(entry))
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"its {name} are of another format")
    shape, fortran, found = np.lib.format.read_array_header_1_0(file)
    rest = file.read()
    if found != dtype or fortran or len(shape) != 1 or shape[0] * dtype.itemsize != len(rest):
        raise ValueError(f"its {name} have other columns, or not as many rows as they say")
    return np.frombuffer(rest, dtype)


def _sensible(spans: Spans, times: Times) -> Array:
    """The rows that make sense, sorted as `Spans` promises."""
    rows = spans.spans
    good = (rows["start"] >= times.first) & (rows["start"] <= rows["end"]) & (rows["end"] <= times.last)
    good &= (rows["name"] < len(spans.names)) & (rows["tid"] > 0) & (rows["tid"] <= MAX_ID)
    rows = rows[good]
    return rows[np.lexsort((rows["depth"], rows["start"], rows["tid"]))]


#: What the description beside the spans may be.
_ACCEPTED: dict[str, Callable[[Any], bool]] = {
    "collector": lambda value: isinstance(value, str),
    "pid": lambda value: is_int(value, 1, MAX_ID),
    "sampled": lambda value: isinstance(value, bool),
    "names": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    "clock_error_ns": is_int,
    "lost": lambda value: is_int(value, 0, MAX_COUNT),
    "native": lambda value: isinstance(value, list) and all(map(is_int, value)),
    "interval_ns": is_int,
}
