"""A timeline as the JSON of chrome://tracing, which the Perfetto UI and other viewers read too.

It has a group per GIL (holder, waiting threads, switch requests) and each thread's holds, waits and blocks, with arrows
from a release to the acquire that had waited for it, and from a waker's hold to what the block gave way to. Times are
CLOCK_MONOTONIC microseconds with three decimals: exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.measure.culprits import MOST
from giltrace.exporters._names import command_words, labels
from giltrace.exporters._places import KNOWN_BY, Places
from giltrace.exporters._relations import Relations, relate, waiting_counts, waking_holds
from giltrace.exporters._text import Cells, choices, decimals, integers, json_text, pieces, rows, where
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import BlockEnd, Flag, Process, Timeline

# Groups of GILs stand in for processes: their pids must be no process's, and Linux ends at 2**22.
_FIRST_GROUP = 1 << 24
_HOLDER = 1
_HAND_OFF, _WAKE = b'"cat":"gil","name":"hand-off"', b'"cat":"block","name":"wake"'


def stream(timeline: Timeline, file: BinaryIO) -> None:
    """Write `timeline` to an open file, from its begin to its end."""
    file.write(b'{"displayTimeUnit":"ns","otherData":{"clock":"CLOCK_MONOTONIC"},"traceEvents":[\n')
    first_flow, group = 1, _FIRST_GROUP
    # Written last: JSON allows no comma after the last element, and these are few.
    names: list[bytes] = []
    for process in timeline.processes:
        relations = relate(process)
        writer = _Writer(file, process, relations, timeline.began_ns)
        names += writer.names()
        for gil in range(process.gils):
            names += writer.group(group, gil)
            group += 1
        writer.waits()
        writer.holds()
        writer.blocks()
        writer.arrows(first_flow)
        writer.wakes(first_flow + len(process.holds))
        first_flow += len(process.holds) + len(process.blocks)
    file.write(b",\n".join(names) + b"\n]}\n")


class _Writer:
    """Writes the events of one process."""

    def __init__(self, file: BinaryIO, process: Process, relations: Relations, recorded_ns: int) -> None:
        self._file, self._process, self._relations = file, process, relations
        self._places = Places(process, relations, recorded_ns)
        self._names = [json_text(label) for label in labels(process)]
        self._name = choices(self._names)
        self._text = choices([json_text(text) for text in self._places.texts])
        self._known_by = choices([json_text(text) for text in KNOWN_BY.values()])
        self._tids = np.array([thread.tid for thread in process.threads], np.int64)
        self._pid = b'"pid":%d' % process.pid

    def names(self) -> list[bytes]:
        """Return the events that name the process and its threads."""
        return [
            _meta(b"process_name", self._pid, b'"name":' + json_text(command_words(self._process)[0])),
            _meta(b"process_labels", self._pid, b'"labels":' + json_text(self._process.cmdline)),
            *(
                _meta(b"thread_name", b'%s,"tid":%d' % (self._pid, tid), b'"name":' + name)
                for tid, name in ((self._tids[at], self._names[at]) for at in self._process.chosen_threads)
            ),
        ]

    def group(self, pid: int, gil: int) -> list[bytes]:
        """Write the group of one GIL: its holder, how many threads wait, and the switch requests; return its names."""
        process = self._process
        title = f"GIL {gil} (pid {process.pid})" if process.gils > 1 else f"GIL (pid {process.pid})"
        where_at = b'"pid":%d,"tid":%d' % (pid, _HOLDER)
        self._holder(where_at, np.flatnonzero(process.holds["gil"] == gil))
        times, counts = waiting_counts(process, gil)
        for piece in pieces(len(times)):
            self._file.write(
                rows(
                    b'{"ph":"C","name":"threads waiting for the GIL","pid":%d,"ts":' % pid,
                    decimals(times[piece], 3),
                    b',"args":{"threads":',
                    integers(counts[piece]),
                    b"}},\n",
                )
            )
        self._requests(where_at, np.flatnonzero(process.switch_requests["gil"] == gil))
        return [
            _meta(b"process_name", b'"pid":%d' % pid, b'"name":' + json_text(title)),
            _meta(b"process_sort_index", b'"pid":%d' % pid, b'"sort_index":-1'),
            _meta(b"thread_name", where_at, b'"name":"holder"'),
        ]

    def _holder(self, where_at: bytes, chosen: Ints) -> None:
        for piece in pieces(len(chosen)):
            holds = self._process.holds[chosen[piece]]
            name = self._name(holds["thread"])
            self._file.write(
                rows(b'{"ph":"X","cat":"gil","name":', name, b",", where_at, *_interval(holds), b"},\n"),
            )

    def _requests(self, where_at: bytes, chosen: Ints) -> None:
        for piece in pieces(len(chosen)):
            at = chosen[piece]
            requests, asked = self._process.switch_requests[at], self._relations.asked[at]
            self._file.write(
                rows(
                    b'{"ph":"i","s":"p","cat":"gil","name":"switch request",',
                    where_at,
                    b',"ts":',
                    decimals(requests["time"], 3),
                    b',"args":{"by":',
                    self._name(requests["thread"]),
                    where(asked >= 0, b',"holder":', self._name(asked)),
                    self._stood(b"holder ", self._places.asked_stack[at]),
                    b"}},\n",
                )
            )

    def holds(self) -> None:
        """Write each hold of a chosen thread on it."""
        reason = choices([b"voluntary", b"forced", b"still held at the end"])
        for piece in self._pieces(self._process.holds):
            holds = self._process.holds[piece]
            core = holds["core"]
            flags = holds["flags"]
            ended = np.where(flags & Flag.PARTIAL_END, 2, flags & Flag.FORCED)
            self._slices(
                b"holds GIL",
                holds,
                b',"cname":"good","args":{"release":"',
                reason(ended),
                b'"',
                where(core >= 0, b',"core":', integers(np.maximum(core, 0))),
                b',"hold":',
                integers(piece),
                self._stood(b"", self._places.hold_stack[piece]),
                self._known(b"", self._places.hold_source[piece]),
            )

    def waits(self) -> None:
        """Write each wait of a chosen thread on it."""
        for piece in self._pieces(self._process.waits):
            waits = self._process.waits[piece]
            self._slices(
                b"waits for GIL",
                waits,
                b',"cname":"terrible","args":{"timeouts":',
                integers(waits["timeouts"]),
                where(waits["hold"] >= 0, b',"led to hold":', integers(np.maximum(waits["hold"], 0))),
                self._holders(piece),
                self._stood(b"culprit ", self._places.culprit_stack[piece]),
                self._known(b"culprit ", self._places.culprit_source[piece]),
                self._stood(b"", self._places.wait_stack[piece]),
            )

    def blocks(self) -> None:
        """Write each block of a chosen thread on it."""
        causes = choices([cause.label.encode() for cause in BlockCause])
        ended = choices([end.label.encode() for end in BlockEnd])
        pid, places = self._pid, self._places
        for piece in self._pieces(self._process.blocks):
            blocks = self._process.blocks[piece]
            woken = blocks["waker"] >= 0
            columns: tuple[bytes | Cells, ...] = (
                b'{"ph":"X","cat":"block","name":"blocked: ',
                causes(places.block_cause[piece]),
                b'",%s,"tid":' % pid,
                integers(self._tids[blocks["thread"]]),
                *_interval(blocks),
                b',"cname":"thread_state_uninterruptible","args":{"ended":"',
                ended(blocks["ended"]),
                b'","lock":"Lock #',
                integers(places.block_lock[piece]),
                b'"',
                self._stood(b"", places.block_stack[piece]),
                where(woken, b',"waker":', self._name(blocks["waker"])),
                where(woken, b',"wake-up ns":', integers(blocks["end"] - blocks["woken"])),
                self._stood(b"waker ", places.wake_stack[piece]),
            )
            self._file.write(rows(*columns, b"}},\n"))

    def arrows(self, first_flow: int) -> None:
        """Write an arrow from each release to the acquire that had waited for it, where both are written."""
        holds = self._process.holds
        told = self._process.of_chosen(holds)
        out = np.flatnonzero(self._relations.arrow_out & told & told[self._relations.following])
        for piece in pieces(len(out)):
            before = holds[out[piece]]
            into = self._relations.following[out[piece]]
            # At its end a slice is over, so that the arrow leaves from just before.
            leaves = np.maximum(before["end"] - 1, before["start"])
            self._arrow(b'"ph":"s"', _HAND_OFF, first_flow + into, before["thread"], leaves)
            self._arrow(b'"ph":"f","bp":"e"', _HAND_OFF, first_flow + into, holds["thread"][into], holds["start"][into])

    def wakes(self, first_flow: int) -> None:
        """Write an arrow from each waker to what comes after the block, where there is a hold that it leaves from."""
        process = self._process
        hold = waking_holds(process)
        # None is -1, the last.
        out = np.flatnonzero(
            process.of_chosen(process.blocks) & np.append(process.of_chosen(process.holds), False)[hold]
        )
        for piece in pieces(len(out)):
            row, before = out[piece], process.holds[hold[out[piece]]]
            blocks = process.blocks[row]
            # Here too a slice is over at its end.
            leaves = np.clip(blocks["woken"], before["start"], np.maximum(before["end"] - 1, before["start"]))
            self._arrow(b'"ph":"s"', _WAKE, first_flow + row, before["thread"], leaves)
            # To the slice that begins next: the block itself began before the arrow leaves.
            self._arrow(b'"ph":"f"', _WAKE, first_flow + row, blocks["thread"], blocks["end"])

    def _pieces(self, table: npt.NDArray[np.void]) -> Iterator[Ints]:
        """The numbers of the chosen threads' rows, a piece at a time."""
        chosen = np.flatnonzero(self._process.of_chosen(table))
        return (chosen[piece] for piece in pieces(len(chosen)))

    def _arrow(self, kind: bytes, what: bytes, flow: Ints, thread: npt.NDArray[np.uint32], time: Ints) -> None:
        tid = integers(self._tids[thread])
        head = b"{%s,%s" % (kind, what) + b',"id":'
        self._file.write(
            rows(head, integers(flow), b",", self._pid, b',"tid":', tid, b',"ts":', decimals(time, 3), b"},\n")
        )

    def _slices(self, name: bytes, table: npt.NDArray[np.void], *columns: bytes | Cells) -> None:
        """Write slices on their threads; `columns` follow the interval and end within the arguments."""
        several = self._process.gils > 1
        numbered: tuple[bytes | Cells, ...] = (b" ", integers(table["gil"])) if several else ()
        tid = integers(self._tids[table["thread"]])
        head = b'{"ph":"X","cat":"gil","name":"' + name
        self._file.write(
            rows(head, *numbered, b'",', self._pid, b',"tid":', tid, *_interval(table), *columns, b"}},\n")
        )

    def _holders(self, piece: Ints) -> Cells:
        """Who held the GIL during each wait of a piece: the culprit and its share, and the next two."""
        found = self._places.culprits
        permille = np.rint(1000 * self._places.share(piece)).astype(np.int64)
        parts = []
        for place, name in zip(range(MOST), (b"culprit", b"second culprit", b"third culprit"), strict=True):
            thread, ns = found.thread[piece, place], found.ns[piece, place]
            there = thread >= 0
            parts.append(where(there, b',"%s":' % name, self._name(thread), b',"%s ns":' % name, integers(ns)))
        parts.insert(1, where(found.thread[piece, 0] >= 0, b',"culprit share":', decimals(permille, 3)))
        return np.concatenate(parts, axis=1)

    def _stood(self, whose: bytes, stack: npt.NDArray[np.int32]) -> Cells:
        """Where somebody stood: the user's own line, then the innermost frame."""
        line, site = self._places.own_line(stack), self._places.site(stack)
        known = line > 0
        own = where(known, b',"%sown line":' % whose, self._text(line))
        return np.concatenate((own, where(known, b',"%ssite":' % whose, self._text(site))), axis=1)

    def _known(self, whose: bytes, source: npt.NDArray[np.uint8]) -> Cells:
        return where(source > 0, b',"%sknown by":' % whose, self._known_by(source))


def _meta(kind: bytes, of: bytes, args: bytes) -> bytes:
    return b'{"ph":"M","name":"%s",%s,"args":{%s}}' % (kind, of, args)


def _interval(table: npt.NDArray[np.void]) -> tuple[bytes | Cells, ...]:
    return b',"ts":', decimals(table["start"], 3), b',"dur":', decimals(table["end"] - table["start"], 3)
