"""Give a made-up process blocks: where its threads were off the GIL, in locks of many kinds, woken by who held it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from giltrace.timeline.model import BLOCK, HELD_LOCK, LOCK, BlockEnd, LockKind, Process, Stacks
from tests.unit.analysis_stacks import Frame, stack_table

_THREADING, _QUEUE = "/usr/lib/python3.13/threading.py", "/usr/lib/python3.13/queue.py"

#: Where blocked threads stand, and by what they are blocked; and where their wakers do.
BLOCKED: tuple[tuple[str, tuple[Frame, ...]], ...] = (
    ("lock", (("store", "/srv/app.py", 12), ("main", "/srv/app.py", 90))),
    ("queue", (("Condition.wait", _THREADING, 355), ("Queue.get", _QUEUE, 171), ("consume", "/srv/app.py", 20))),
    ("event", (("Condition.wait", _THREADING, 355), ("Event.wait", _THREADING, 655), ("pause", "/srv/app.py", 31))),
    ("join", (("Thread.join", _THREADING, 1094), ("main", "/srv/app.py", 95))),
)
WAKING: tuple[tuple[Frame, ...], ...] = (
    (("store", "/srv/app.py", 14), ("main", "/srv/app.py", 90)),
    (("Condition.notify", _THREADING, 400), ("Queue.put", _QUEUE, 151), ("produce", "/srv/app.py", 44)),
)
LOCKS = 3


def with_blocks(process: Process, shortest: int = 2000) -> Process:
    """Put a block into each gap of `shortest` ns or more in a thread's holds and waits; every fifth is not woken."""
    rows = []
    for thread in range(len(process.threads)):
        used = np.concatenate(
            [table[table["thread"] == thread][["start", "end"]] for table in (process.holds, process.waits)]
        )
        used = used[np.argsort(used["start"], kind="stable")]
        edges = zip(used["end"][:-1].tolist(), used["start"][1:].tolist(), strict=True)
        rows += [(start + 500, end - 200, thread) for start, end in edges if end - start >= shortest]
    rows.sort()
    blocks = np.zeros(len(rows), BLOCK)
    for at, (start, end, thread) in enumerate(rows):
        woken = end - min(700, (end - start) // 2)
        having = process.holds[(process.holds["start"] <= woken) & (process.holds["end"] >= woken)]
        having = having[having["thread"] != thread]
        if at % 5 == 4 or not len(having):
            blocks[at] = (start, end, thread, at % LOCKS, -1, end, BlockEnd.TIMED_OUT, True, False)
        else:
            blocks[at] = (start, end, thread, at % LOCKS, having["thread"][0], woken, BlockEnd.WOKEN, at % 2, True)
    locks = np.array([(0x7F0000001000 + 64 * at, LockKind.SEMAPHORE) for at in range(LOCKS)], LOCK)
    held = np.array([(0, 1)] if len(blocks) else [], HELD_LOCK)
    nowhere = {
        name: np.full(len(rows), -1, np.int32)
        for name, rows in (
            ("hold_begin", process.holds),
            ("hold_end", process.holds),
            ("wait", process.waits),
            ("request", process.switch_requests),
        )
    }
    place = np.arange(len(blocks), dtype=np.int32)
    stacks = Stacks(
        stack_table([*(stack for _, stack in BLOCKED), *WAKING]),
        **nowhere,
        block=place % len(BLOCKED),
        wake=np.where(blocks["waker"] >= 0, len(BLOCKED) + place % len(WAKING), -1).astype(np.int32),
    )
    return replace(process, blocks=blocks, locks=locks, held=held, stacks=stacks)


def causes(process: Process) -> list[str]:
    """By what each of the blocks is."""
    assert process.stacks is not None
    return [BLOCKED[stack][0] for stack in process.stacks.block.tolist()]
