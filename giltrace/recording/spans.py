"""Reads and writes `<collector>-<pid>.spans.npz`: the spans of one process from one collector."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from giltrace.recording.archive import read_archive, write_archive
from giltrace.recording.door import MAX_COUNT, MAX_ID, Damaged, Times, is_int, leaving_out, matching
from giltrace.recording.events import SPAN, Array, Spans
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
    }
    path = folder / f"{spans.collector}-{spans.pid}.spans.npz"
    write_archive(path, about, "spans", rows)
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
            found.append(spans._replace(spans=rows))
    if refused and damage is None:
        raise refused[0]
    if damage is not None:
        damage += [*(error.left_out() for error in refused), *problems]
    return found


def _read(path: Path) -> Spans:
    about, rows = read_archive(path, _VERSION, _ACCEPTED, "spans", SPAN)
    return Spans(
        collector=visible(about["collector"]),
        pid=about["pid"],
        sampled=about["sampled"],
        names=tuple(map(visible, about["names"])),
        spans=rows,
        clock_error_ns=about["clock_error_ns"],
        lost=about["lost"],
    )


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
}
