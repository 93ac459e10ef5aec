"""What tests/targets/blocks.py says of its blocks, held against what a recording says of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from giltrace.analysis.measure.block_causes import BlockCause, block_causes
from giltrace.analysis.measure.expressions import Expressions
from giltrace.timeline.model import BlockEnd, LockKind, Process
from tests.tracing import TARGETS

TARGET = TARGETS / "blocks.py"

#: What each of its blocks is called, by the name of the entry.
CAUSES = {
    "lock": BlockCause.LOCK,
    "rlock": BlockCause.LOCK,
    "condition": BlockCause.CONDITION,
    "event": BlockCause.EVENT,
    "queue": BlockCause.QUEUE,
    "full-queue": BlockCause.QUEUE,
    "simple-queue": BlockCause.QUEUE,
    "semaphore": BlockCause.SEMAPHORE,
    "barrier": BlockCause.BARRIER,
    "future": BlockCause.FUTURE,
    "logging": BlockCause.LOGGING_LOCK,
    "several": BlockCause.LOCK,
    "chain": BlockCause.LOCK,
    "chained": BlockCause.LOCK,
    "join": BlockCause.JOIN,
    "import": BlockCause.IMPORT_LOCK,
    "timed": BlockCause.LOCK,
    "signal": BlockCause.LOCK,
}

#: How far a time that the program took may lie from one on record: the clocks are compared by readings of both.
_NEAR_NS = 20_000
_MARK = re.compile(r"#\s(?P<mark>[a-z-]+: (?:waits|wakes))$")

Entry = Mapping[str, Any]


def entries_of(line: str) -> list[Entry]:
    """What the target printed."""
    told: list[Entry] = json.loads(line)
    assert {entry["name"] for entry in told} == set(CAUSES)
    return told


def marked() -> dict[str, set[int]]:
    """The numbers of the lines that have each of the marks."""
    found: dict[str, set[int]] = {}
    for number, line in enumerate(TARGET.read_text().splitlines(), 1):
        if (match := _MARK.search(line)) is not None:
            found.setdefault(match["mark"], set()).add(number)
    return found


def check(process: Process, entries: Iterable[Entry], error_ns: int) -> None:
    """Whether each block of which the target told is on record, with all that it knows of it."""
    assert process.stacks is not None
    causes = block_causes(process, Expressions(process, 1 << 62))
    tids = [thread.tid for thread in process.threads]
    lines = marked()
    near = _NEAR_NS + error_ns
    found: dict[str, int] = {}
    for entry in entries:
        at = _found(process, entry, tids, near)
        block, stacks = process.blocks[at], process.stacks
        told = entry, block.tolist()
        assert BlockEnd(int(block["ended"])).label == entry["ended"], told
        assert bool(block["timed"]) == (entry["name"] == "timed"), told
        # A semaphore that its owner waits for itself, and another thread posts, is there to wake it.
        wanted = {CAUSES[entry["name"]]} | ({BlockCause.EVENT} if entry["name"] == "signal" else set())
        assert causes[at] in wanted, (told, BlockCause(int(causes[at])).label)
        _compare(process, int(stacks.block[at]), lines.get(f"{entry['name']}: waits"), told)
        if entry["ended"] != "woken":
            assert block["waker"] == -1, told
            continue
        assert block["waker"] >= 0, told
        assert tids[int(block["waker"])] == entry["waker"], told
        assert entry["before"] - near <= block["woken"] <= entry["after"] + near, told
        assert block["woken"] <= block["end"], told
        _compare(process, int(stacks.wake[at]), lines.get(f"{entry['name']}: wakes"), told)
        found[entry["name"]] = at
    # What the thread in the middle has, while it sleeps, is what the other one waits for; PyMutexes do not tell.
    middle, last = (process.blocks[found[name]] for name in ("chain", "chained"))
    if process.locks["kind"][last["lock"]] == LockKind.SEMAPHORE:
        held = process.held["lock"][process.held["block"] == found["chain"]]
        assert last["lock"] in held, (middle, last, held)


def _found(process: Process, entry: Entry, tids: list[int], near: int) -> int:
    """The block that an entry is about: that which its waiter was in when the waker began, or all the while."""
    blocks = process.blocks
    mine = np.array([tids[thread] == entry["waiter"] for thread in blocks["thread"].tolist()], np.bool_)
    inside = mine & (blocks["start"] >= entry["begin"] - near) & (blocks["end"] <= entry["end"] + near)
    if "before" in entry:
        inside &= (blocks["start"] <= entry["before"] + near) & (blocks["end"] >= entry["before"] - near)
    rows = np.flatnonzero(inside)
    # What the waiter takes once it is woken may have it sleep again at once.
    assert len(rows) >= 1, (entry, blocks[mine].tolist())
    return int(rows[0])


def _compare(process: Process, stack: int, wanted: set[int] | None, told: object) -> None:
    """Whether the innermost frame of the target's own in a stack is at one of these lines."""
    if wanted is None:
        return
    assert process.stacks is not None
    table = process.stacks.table
    assert stack >= 0, told
    frames = table.frames[int(table.offsets[stack]) : int(table.offsets[stack + 1])]
    lines = [int(frame["line"]) for frame in frames if table.strings[frame["file"]] == str(TARGET)]
    assert lines, told
    assert lines[0] in wanted, (told, lines, wanted)
