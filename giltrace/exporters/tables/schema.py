"""What tables have: their columns and these columns' types, fixed by version, whatever was recorded."""

from __future__ import annotations

from typing import Literal

#: Counts up when a column goes or changes its meaning; columns and tables may be added. Each Parquet file's metadata
#: say it.
VERSION = 1

#: int64, bool, float64, or a dictionary of strings.
Kind = Literal["int", "bool", "share", "text"]
_KINDS: dict[str, Kind] = {"": "int", "?": "bool", "%": "share", "$": "text"}


def _columns(words: str) -> dict[str, Kind]:
    names = ((word.rstrip("?%$"), word) for word in words.split())
    return {name: _KINDS[word.removeprefix(name)] for name, word in names}


_WHOSE = "image pid thread_id tid thread$"
_INTERVAL = f"{_WHOSE} start end duration"
_PARTIAL = "partial? partial_start? partial_end?"

#: Each table's columns in their order, with their types. Below, what has no mark is a number.
SCHEMA: dict[str, dict[str, Kind]] = {
    "hosts": _columns(
        "host hostname$ boot_id$ sysname$ release$ kernel$ machine$ cores start end duration realtime_offset"
        " boottime_offset clock_error"
    ),
    "processes": _columns(
        "image host pid ppid process$ python$ cmdline$ start end duration gils has_sched? lost lost_stacks first_hold"
    ),
    "threads": _columns("image pid thread_id tid thread$ role$ start end duration lost"),
    "holds": _columns(
        f"hold {_INTERVAL} gil core forced? {_PARTIAL} site$ own_line$ known_by$ stack"
        " to_thread_id to_tid to_thread$ handoff_ns to_waited?"
    ),
    "waits": _columns(
        f"{_INTERVAL} gil timeouts hold {_PARTIAL} site$ culprit$ culprit_site$ culprit_ns culprit_share%"
        " second_culprit$ second_culprit_ns third_culprit$ third_culprit_ns own_line$ culprit_own_line$"
        " culprit_known_by$ stack culprit_stack"
    ),
    "blocks": _columns(
        f"block {_INTERVAL} cause$ lock lock_kind$ ended$ timed? owned? site$ own_line$ stack"
        " waker_thread_id waker_tid waker$ woken waker_site$ waker_own_line$ waker_stack"
    ),
    "held_locks": _columns("image pid block lock"),
    "blame": _columns(
        "image pid victim$ victim_site$ victim_own_line$ culprit$ culprit_site$ culprit_own_line$"
        " waits duration max_duration"
    ),
    "tasks": _columns(f"{_INTERVAL} key$ prefix$ waits waited held blocked"),
    "task_blame": _columns(
        "image pid prefix$ own_line$ cause$ culprit_prefix$ culprit_own_line$ times duration max_duration"
    ),
    "waiting": _columns("image pid gil waiting duration"),
    "stacks": _columns("image stack depth position function$ file$ line text$ own? truncated?"),
    "switch_requests": _columns(f"{_WHOSE} time gil"),
    "states": _columns(f"{_INTERVAL} state$"),
    "runs": _columns(f"{_INTERVAL} core preempted?"),
}

#: These grow with the recording, and are parted by process image; the others are one file each.
PARTED = frozenset({"holds", "waits", "blocks", "held_locks", "stacks", "switch_requests", "states", "runs", "tasks"})
#: Data sets that were written before there were these are data sets all the same: of these tables they have nothing.
LATER = frozenset({"blocks", "held_locks", "tasks", "task_blame"})
#: The column that they are parted by: the folders' names have it, their files do not.
PART_KEY = "image"
