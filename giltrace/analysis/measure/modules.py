"""Which modules were imported on a stack, and what files are called as modules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.own_line import innermost_own
from giltrace.recording.events import StackTable
from giltrace.timeline.axis import Bools, Ints

#: The files of the import system's frames, in every version.
IMPORTING = "<frozen importlib"
_BODY = "<module>"
#: What comes before a module's own path, up to the last such part.
_FOLDER = re.compile(
    r""".*/(?:(?:site|dist)-packages|python\d+(?:\.zip)?  # what is installed; a standard library in an archive
    |lib(?:32|64)?/python\d+\.\d+t?(?:/lib-dynload)?|[^/]+\.(?:whl|egg))/""",
    re.VERBOSE | re.DOTALL,
)
_SUFFIX = re.compile(r"(?:/__init__)?\.pyc?$")


def imported(table: StackTable) -> tuple[Ints, tuple[str, ...]]:
    """For each stack the number of the module whose code was brought in there, -1 for none that is known; and how these
    are called.

    It is the one that the user's innermost line asks for: others that it imports itself are its doing. A module of the
    user's that runs code of its own meanwhile is told itself.
    """
    own, result = innermost_own(table), np.full(len(table), -1, np.int64)
    system = np.array([text.startswith(IMPORTING) for text in table.strings], np.bool_)
    body = np.array([text == _BODY for text in table.strings], np.bool_)
    importing, bodies = system[table.frames["file"]], body[table.frames["function"]]
    many = np.append(0, np.cumsum(importing))
    number: dict[str, int] = {}
    for stack in np.flatnonzero(many[table.offsets[1:]] > many[table.offsets[:-1]]).tolist():
        first, last = table.offsets[stack : stack + 2].tolist()
        place = _place(importing[first:last], bodies[first:last], int(own[stack]) - first)
        if place >= 0:
            name = module_name(table.strings[table.frames["file"][first + place]])
            result[stack] = number.setdefault(name, len(number))
    return result, tuple(number)


def packages(names: Sequence[str], ns: npt.NDArray[Any]) -> dict[str, int]:
    """What each package took of what its modules did (`ns`), by the name of that one which took most of it; where none
    did, by what all of them have in common.
    """
    members: dict[str, dict[str, int]] = {}
    for name, spent in zip(names, ns.astype(np.int64).tolist(), strict=True):
        members.setdefault(name.partition(".")[0], {})[name] = spent
    found = {}
    for parts in members.values():
        whole, most = sum(parts.values()), max(parts, key=lambda name: parts[name])
        levels = zip(*(name.split(".") for name in parts), strict=False)
        common = ".".join(one[0] for one in takewhile(lambda level: len(set(level)) == 1, levels))
        found[most if 2 * parts[most] > whole else common] = whole
    return found


def _place(importing: Bools, bodies: Bools, own: int) -> int:
    """Where on a stack, innermost first, the body of the module is, -1 where there is none; `own` is the place of the
    user's innermost frame, negative for none.
    """
    outer = int(np.flatnonzero(importing)[-1])
    inner = np.flatnonzero(bodies[: min(own, outer) if own >= 0 else outer])
    if len(inner):
        return int(inner[-1])
    mine = np.flatnonzero(bodies[max(own, 0) : outer])
    return int(mine[0]) + own if own >= 0 and len(mine) else -1


def module_name(file: str) -> str:
    """What the module in `file` is called, as far as its path tells that: "sqlalchemy.orm"."""
    installed = _FOLDER.match(file)
    path = _SUFFIX.sub("", file)
    if installed is not None:
        return path[installed.end() :].replace("/", ".")
    return path.strip("<>").removeprefix("frozen ").rpartition("/")[2]
