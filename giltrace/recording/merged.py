"""Reads and writes `merged-<label>.npz`: the spans of another profiler's file, on the recording's clock.

They stand beside what was recorded and change nothing of it: no analysis of the GIL reads them, and a thread or a
process that only such a file knows is none of the recording's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from giltrace.recording.archive import read_archive, write_archive
from giltrace.recording.door import MAX_ID, MAX_TIME, Damaged, Times, is_int, leaving_out, matching
from giltrace.recording.events import Array
from giltrace.text import visible

#: One span. `track`, `name` and `category` are numbers in the tables of its `Merged`; `depth` is 0 for the outermost of
#: its track. `launcher` is the track of the thread that asked for it, as one does for a GPU's work; -1 if unknown.
MERGED = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),
        ("track", "<u4"),
        ("name", "<u4"),
        ("launcher", "<i4"),
        ("category", "<u2"),
        ("depth", "<u2"),
    ]
)

#: Under these labels are the tasks of a scheduler, of which categories are the kinds: an analysis asks for them.
TASKS = ("dask", "ray")

#: What a label may be: it is part of a file's name.
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")

_VERSION = 1
_FILE = re.compile(r"merged-(.+)\.npz")
_EVER = Times()


class Track(NamedTuple):
    """Where spans are drawn: on a thread, by its process and its own id, or, both 0, on a track with a `name`."""

    pid: int
    tid: int
    name: str


class Merged(NamedTuple):
    """The spans of one file: `rows` has dtype `MERGED` and is sorted by (track, start, depth).

    `source` is the file's name; `sampled` says that a span is a run of equal samples. `clock` says in words how its
    times came to be CLOCK_MONOTONIC's, and `clock_error_ns` bounds their error.
    """

    label: str
    source: str
    sampled: bool
    clock: str
    clock_error_ns: int
    tracks: tuple[Track, ...]
    names: tuple[str, ...]
    categories: tuple[str, ...]
    rows: Array


def path_of(folder: Path, label: str) -> Path:
    """Where the recording `folder` has what was merged under `label`."""
    return folder / f"merged-{label}.npz"


def write_merged(folder: Path, merged: Merged) -> Path:
    """Write `merged` into the recording `folder`, in the place of an earlier one of its label; return the file's path.

    The file appears under its name only when it is whole. Raises OSError if it cannot be written.
    """
    about = {
        "version": _VERSION,
        **{name: getattr(merged, name) for name in ("label", "source", "sampled", "clock", "clock_error_ns")},
        "tracks": [list(track) for track in merged.tracks],
        "names": list(merged.names),
        "categories": list(merged.categories),
    }
    path = path_of(folder, merged.label)
    write_archive(path, about, "rows", merged.rows)
    return path


def has_merged(folder: Path) -> bool:
    """Whether something was merged into the recording `folder`."""
    return bool(matching(folder, _FILE.fullmatch))


def read_merged(folder: Path, times: Times = _EVER, damage: list[str] | None = None) -> list[Merged]:
    """Read all that was merged into the recording `folder`, by label.

    Spans that are not of these `times`, or make no sense, are left out, and so are files that are damaged: in words,
    they are added to `damage`.
    """
    found: list[Merged] = []
    refused: list[Damaged] = []
    problems: list[str] = []
    for path in matching(folder, _FILE.fullmatch):
        with leaving_out(path, refused):
            merged = _read(path)
            rows = merged.rows[_sensible(merged, times)]
            if len(rows) < len(merged.rows):
                problems.append(f"{visible(path.name)}: {len(merged.rows) - len(rows)} spans make no sense: left out")
            found.append(merged._replace(rows=rows[np.lexsort((rows["depth"], rows["start"], rows["track"]))]))
    if damage is not None:
        damage += [*(error.left_out() for error in refused), *problems]
    return found


def _read(path: Path) -> Merged:
    about, rows = read_archive(path, _VERSION, _ACCEPTED, "rows", MERGED)
    return Merged(
        label=about["label"],
        source=visible(about["source"]),
        sampled=about["sampled"],
        clock=visible(about["clock"]),
        clock_error_ns=about["clock_error_ns"],
        tracks=tuple(Track(pid, tid, visible(name)) for pid, tid, name in about["tracks"]),
        names=tuple(map(visible, about["names"])),
        categories=tuple(map(visible, about["categories"])),
        rows=rows,
    )


def _sensible(merged: Merged, times: Times) -> Any:
    """Which rows make sense."""
    rows = merged.rows
    good = (rows["start"] >= times.first) & (rows["start"] <= rows["end"]) & (rows["end"] <= times.last)
    good &= (rows["track"] < len(merged.tracks)) & (rows["launcher"] >= -1) & (rows["launcher"] < len(merged.tracks))
    return good & (rows["name"] < len(merged.names)) & (rows["category"] < len(merged.categories))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_track(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 3 or not _is_text(value[2]):
        return False
    return is_int(value[0], 0, MAX_ID) and is_int(value[1], 0, MAX_ID)


#: What the description beside the rows may be.
_ACCEPTED: dict[str, Callable[[Any], bool]] = {
    "label": lambda value: _is_text(value) and LABEL.fullmatch(value) is not None,
    "source": _is_text,
    "sampled": lambda value: isinstance(value, bool),
    "clock": _is_text,
    "clock_error_ns": lambda value: is_int(value, 0, MAX_TIME),
    "tracks": lambda value: isinstance(value, list) and all(map(_is_track, value)),
    "names": _are_texts,
    "categories": _are_texts,
}
