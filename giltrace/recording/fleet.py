"""fleet.json: which recordings a recording of several machines is made of, and how far their clocks are apart.

Each part is a recording in a folder of its own below it, as it was made where it was made, on that machine's clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from giltrace.recording.door import MAX_ID, MAX_TIME, Damaged, is_int, read_json
from giltrace.recording.replacing import replacing
from giltrace.text import visible

FILE = "fleet.json"
_VERSION = 1
_MOST_BYTES = 64 << 20
_FOLDER = re.compile(r"part-\d{3,6}", re.ASCII)


@dataclass(frozen=True)
class Part:
    """One part: the recording in `folder`, made by a `worker` at an `address`, whose process was `pid` on its `host`.

    `offset_ns` added to its times makes them those of the whole, wrong by at most `error_ns`. Parts with the same
    `clock` were made on one machine. `told` says in words what is missing of it, empty if nothing is.
    """

    folder: str
    worker: str
    address: str
    host: str
    pid: int
    clock: str
    offset_ns: int
    error_ns: int
    told: str = ""


@dataclass(frozen=True)
class Fleet:
    """The parts of a recording, and what else is to be told of it: of workers of which it has none."""

    parts: tuple[Part, ...] = ()
    told: tuple[str, ...] = ()


def part_name(number: int) -> str:
    """What the folder of a part is called."""
    return f"part-{number:03d}"


def write_fleet(folder: Path, fleet: Fleet) -> None:
    """Write which parts the recording `folder` has; raises OSError if that cannot be written."""
    about = {"version": _VERSION, **asdict(fleet)}
    with replacing(folder / FILE) as file:
        file.write((json.dumps(about, indent=1) + "\n").encode())


def read_fleet(folder: Path) -> Fleet:
    """Read which parts the recording `folder` has, none if it is of one machine; all texts are `visible`.

    Raises `Damaged` where the file makes no sense, and OSError.
    """
    path = folder / FILE
    try:
        data = read_json(path, _MOST_BYTES)
    except FileNotFoundError:
        return Fleet()
    if not isinstance(data, dict) or not isinstance(data.get("parts"), list):
        raise Damaged(path, "it does not describe a fleet")
    if data.get("version") != _VERSION:
        raise Damaged(path, "it is of another version", "upgrade giltrace")
    told = data.get("told")
    if not isinstance(told, list) or not all(map(_is_text, told)):
        raise Damaged(path, "what it tells makes no sense")
    return Fleet(tuple(_part(path, one) for one in data["parts"]), tuple(map(visible, told)))


def _part(path: Path, data: Any) -> Part:
    if not isinstance(data, dict):
        raise Damaged(path, "a part of it makes no sense")
    for one in fields(Part):
        if not _ACCEPTED[one.name](data.get(one.name)):
            raise Damaged(path, f"the {one.name} of a part makes no sense")
    given = ((one.name, data[one.name]) for one in fields(Part))
    shown: dict[str, Any] = {name: visible(value) if isinstance(value, str) else value for name, value in given}
    return Part(**shown)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_ACCEPTED: dict[str, Callable[[Any], bool]] = {
    "folder": lambda value: _is_text(value) and _FOLDER.fullmatch(value) is not None,
    **dict.fromkeys(("worker", "address", "host", "clock", "told"), _is_text),
    "pid": lambda value: is_int(value, 1, MAX_ID),
    "offset_ns": lambda value: is_int(value, -MAX_TIME, MAX_TIME),
    "error_ns": is_int,
}
