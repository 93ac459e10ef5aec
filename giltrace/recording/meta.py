"""meta.json: what was recorded, when, on what machine, by which collectors, and how it ended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from giltrace.errors import RecordingError
from giltrace.recording.door import MAX_COUNT, MAX_ID, MAX_TIME, Damaged, is_int, read_json
from giltrace.recording.replacing import replacing
from giltrace.recording.sleepers import MOST_SLEEPERS, Sleeper, is_sleeper
from giltrace.recording.trigger import Trigger
from giltrace.text import visible

FILE = "meta.json"
FORMAT = "giltrace-recording"
VERSION = 1

#: More than a million names of threads take.
_MOST_BYTES = 64 << 20
_MOST_CPUS = 1 << 16
# By less than that a clock is corrected, by more a machine is started later.
_CLOCK_SET_NS = 10_000_000_000
_OFFSET_ERROR_NS = 1_000_000


@dataclass
class Meta:
    """The recording's own description. Times are CLOCK_MONOTONIC ns, offsets are that clock minus MONOTONIC.

    `state` is "recording" until the recorder ends it, then "complete"; a recording that stayed in the former was
    cut short and is read as far as it goes. `exit_status` is the target's, negative for a signal; None if it was not
    waited for. `thread_names` has, by tid, the names of threads that were there before the recording. `ids` has, for
    a target in a pid namespace of its own, the id here of each process and thread by its id there. As in all of JSON,
    keys are texts. `trigger` is what a flight recorder wrote it for; then `end_ns` is when copying began, and what is
    later is there in part only. `stops` has, of each time that giltrace stopped a thread of the program, that one's id
    here, the begin and the end; `own_threads` the same of threads that giltrace itself had in the program. `holders`
    has, of each GIL of a process that ran already, the process, the thread that had it as the tracer came (0: it was
    free), both by their ids here, and the address of its mutex. `asleep` are the threads that slept in a lock then.
    `lived` has processes by their ids here, each with an instant at which it is known to have executed the program
    still that its newest file is of. `files` has, by the name that the interpreter has for a piece of code, what people
    call it: a notebook's cells. `ended` says why recording ended before the program did.
    """

    giltrace: str
    command: list[str]
    start_ns: int
    realtime_offset_ns: int
    boottime_offset_ns: int
    machine: dict[str, str | int]
    state: str = "recording"
    end_ns: int = 0
    exit_status: int | None = None
    collectors: list[dict[str, Any]] = field(default_factory=list)
    thread_names: dict[str, str] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    trigger: Trigger | None = None
    stops: list[list[int]] = field(default_factory=list)
    own_threads: list[list[int]] = field(default_factory=list)
    holders: list[list[int]] = field(default_factory=list)
    asleep: list[Sleeper] = field(default_factory=list)
    lived: list[list[int]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    ended: str = ""
    format: str = FORMAT
    version: int = VERSION

    @property
    def finished(self) -> bool:
        """Tell whether the recorder has ended it."""
        return self.state == "complete"

    @property
    def is_of_this_boot(self) -> bool:
        """Tell whether this machine's CLOCK_MONOTONIC is still the one that its times are of."""
        return abs(_offset(time.CLOCK_REALTIME) - self.realtime_offset_ns) < _CLOCK_SET_NS

    @classmethod
    def begin(cls, giltrace: str, command: list[str]) -> Meta:
        """Describe a recording that begins now."""
        uname = os.uname()
        return cls(
            giltrace=giltrace,
            command=command,
            start_ns=time.monotonic_ns(),
            realtime_offset_ns=_offset(time.CLOCK_REALTIME),
            boottime_offset_ns=_offset(time.CLOCK_BOOTTIME),
            machine={
                "sysname": uname.sysname,
                "release": uname.release,
                "version": uname.version,
                "machine": uname.machine,
                "cpus": os.cpu_count() or 1,
            },
        )

    def write(self, folder: Path) -> None:
        """Replace meta.json in one step, so that a reader sees the old one or the new one."""
        with replacing(folder / FILE) as file:
            file.write((json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Meta:
        """Read a folder's meta.json; raises `RecordingError` if it is not a recording that can be read.

        All texts in it are `visible`, and what it has beyond the fields here is ignored.
        """
        path = folder / FILE
        try:
            data = read_json(path, _MOST_BYTES)
        except FileNotFoundError:
            raise RecordingError(
                f"{folder} is not a giltrace recording (no {FILE})",
                "name a NAME.giltrace folder made by `giltrace record`",
            ) from None
        except OSError as error:
            raise RecordingError.unreadable(path, error) from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise Damaged(path, "it does not describe a recording")
        if data.get("version") != VERSION:
            raise RecordingError(
                f"{folder} has recording version {str(data.get('version'))[:20]}, this giltrace reads {VERSION}",
                f"read it with giltrace {str(data.get('giltrace', '?'))[:20]}",
            )
        given = {one.name: data[one.name] for one in fields(cls) if one.name in data}
        missing = [name for name in _NEEDED if name not in given]
        wrong = [name for name, value in given.items() if not _ACCEPTED[name](value)]
        if missing or wrong:
            raise Damaged(path, f"it has no {missing[0]}" if missing else f"its {wrong[0]} makes no sense")
        given = _shown(given)
        trigger = given.pop("trigger", None)
        if trigger:
            trigger = Trigger(**trigger | {"lines": tuple(trigger.get("lines", ()))})
        asleep = [Sleeper.of_json(one) for one in given.pop("asleep", [])]
        return cls(**given, trigger=trigger or None, asleep=asleep)


def _shown(value: Any) -> Any:
    """The value with all texts in it made `visible`."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [_shown(one) for one in value]
    if isinstance(value, dict):
        return {visible(name): _shown(one) for name, one in value.items()}
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return is_int(value, 0, MAX_COUNT)


def _is_id(value: object) -> bool:
    return is_int(value, 1, MAX_ID)


def _may_be_id(value: object) -> bool:
    return value == 0 or _is_id(value)


def _is_offset(value: object) -> bool:
    """Neither clock is behind CLOCK_MONOTONIC, but for the error of reading them."""
    return is_int(value, -_OFFSET_ERROR_NS, 2 * MAX_TIME)


def _is_machine(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return is_int(value.get("cpus", 1), 1, _MOST_CPUS) and all(isinstance(one, str | int) for one in value.values())


def _are_stretches(value: object) -> bool:
    """Whether a value is a list of [id of a thread, begin, end]."""
    return isinstance(value, list) and all(
        isinstance(one, list) and len(one) == 3 and all(is_int(part, 0, MAX_TIME) for part in one) and _is_id(one[0])
        for one in value
    )


def _are_instants(value: object) -> bool:
    """Whether a value is a list of [id of a process, time]."""
    return isinstance(value, list) and all(
        isinstance(one, list) and len(one) == 2 and _is_id(one[0]) and is_int(one[1], 0, MAX_TIME) for one in value
    )


def _are_holders(value: object) -> bool:
    """Whether a value is a list of [id of a process, id of a thread or 0, address]."""
    # Where this is asked numpy is there; a recorder starts its target without.
    from giltrace.recording.layout import MAX_GILS

    return (
        isinstance(value, list)
        and len(value) <= MAX_GILS
        and all(
            isinstance(one, list) and len(one) == 3 and _is_id(one[0]) and _may_be_id(one[1]) and is_int(one[2])
            for one in value
        )
    )


def _is_by_id(accepted: Callable[[object], bool]) -> Callable[[object], bool]:
    """Whether a value is an object with numbers of threads or processes for names, and `accepted` values."""

    def is_by_id(value: object) -> bool:
        return isinstance(value, dict) and all(
            name.isdecimal() and len(name) < 8 and accepted(one) for name, one in value.items()
        )

    return is_by_id


def _has(**accepted: Callable[[object], bool]) -> Callable[[object], bool]:
    """Whether a value is an object with no other fields than these, all of them `accepted`."""
    return lambda value: (
        isinstance(value, dict) and all(name in accepted and accepted[name](one) for name, one in value.items())
    )


_is_report = _has(name=_is_text, status=_is_text, cost=_is_text, clock_error_ns=is_int, lost=_is_count)
_is_trigger = _has(
    **dict.fromkeys(("kind", "rule", "sentence", "thread", "task", "cause"), _is_text),
    **dict.fromkeys(("time_ns", "length_ns"), is_int),
    **dict.fromkeys(("pid", "tid"), _may_be_id),
    lines=lambda value: isinstance(value, list) and all(map(_is_text, value)),
)

#: What a field of meta.json may be.
_ACCEPTED: dict[str, Callable[[Any], bool]] = {
    "giltrace": _is_text,
    "stops": _are_stretches,
    "own_threads": _are_stretches,
    "holders": _are_holders,
    "asleep": lambda value: isinstance(value, list) and len(value) <= MOST_SLEEPERS and all(map(is_sleeper, value)),
    "lived": _are_instants,
    "files": lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
    "command": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "start_ns": is_int,
    "realtime_offset_ns": _is_offset,
    "boottime_offset_ns": _is_offset,
    "machine": _is_machine,
    "state": lambda value: value in ("recording", "complete"),
    "end_ns": is_int,
    "exit_status": lambda value: value is None or is_int(value, -64, 255),
    "collectors": lambda value: (
        isinstance(value, list) and all(_is_report(one) and {"name", "status"} <= one.keys() for one in value)
    ),
    "thread_names": _is_by_id(_is_text),
    "ids": _is_by_id(_is_id),
    "trigger": lambda value: value is None or (_is_trigger(value) and {"kind", "rule", "time_ns"} <= value.keys()),
    "ended": _is_text,
    "format": _is_text,
    "version": is_int,
}
_NEEDED = ("giltrace", "command", "start_ns", "realtime_offset_ns", "boottime_offset_ns", "machine")


def _offset(clock: int) -> int:
    """How far `clock` is ahead of CLOCK_MONOTONIC: the best of a few readings."""
    best, offset = None, 0
    for _ in range(5):
        before = time.monotonic_ns()
        other = time.clock_gettime_ns(clock)
        after = time.monotonic_ns()
        if best is None or after - before < best:
            best, offset = after - before, other - (before + after) // 2
    return offset
