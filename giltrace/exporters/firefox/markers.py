"""The markers of a Firefox profile: every hold, wait, switch request and block, on the thread that it is of."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.exporters._names import labels
from giltrace.exporters._places import KNOWN_BY, Places
from giltrace.exporters._relations import relate
from giltrace.exporters._text import Cells, decimals, integers, where, write_array
from giltrace.exporters.firefox.tables import BLOCKED, HOLDING, OTHER, WAITING, SharedTables
from giltrace.recording.order import stable_order
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import BlockEnd, Flag, Process

_HOLD, _WAIT, _REQUEST, _BLOCK = range(4)


def _schema(name: str, label: str, description: str, *fields: tuple[str, str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "tooltipLabel": label,
        "tableLabel": "{marker.data.ownLine}",
        "chartLabel": label,
        "description": description,
        "display": ["marker-chart", "marker-table", "timeline-overview"],
        "fields": [{"key": key, "label": words, "format": form} for key, words, form in fields],
    }


_OWN_LINE = ("ownLine", "Own line", "unique-string")
_SITE = ("site", "Where it stood", "unique-string")
_GIL = ("gil", "GIL", "integer")
_CULPRIT = ("culprit", "Culprit", "unique-string")
_CULPRIT_OWN_LINE = ("culpritOwnLine", "Own line of the culprit", "unique-string")
_CULPRIT_SITE = ("culpritSite", "Where the culprit stood", "unique-string")

SCHEMA = [
    _schema(
        "GilHold",
        "holds the GIL",
        "From acquiring the GIL to its release, which is voluntary or forced by a switch request.",
        ("reason", "Release", "unique-string"),
        _OWN_LINE,
        _SITE,
        ("knownBy", "Known by", "unique-string"),
        ("core", "Core", "integer"),
        _GIL,
    ),
    _schema(
        "GilWait",
        "waits for the GIL",
        "From asking for the GIL to having it. The culprit is the thread that held it for the most of that.",
        ("reason", "Outcome", "unique-string"),
        _CULPRIT,
        ("culpritShare", "Share of the culprit", "percentage"),
        ("culpritNs", "Time of the culprit", "nanoseconds"),
        _CULPRIT_OWN_LINE,
        _CULPRIT_SITE,
        ("culpritKnownBy", "Known by", "unique-string"),
        ("secondCulprit", "Second culprit", "unique-string"),
        ("secondCulpritNs", "Time of the second", "nanoseconds"),
        ("thirdCulprit", "Third culprit", "unique-string"),
        ("thirdCulpritNs", "Time of the third", "nanoseconds"),
        _OWN_LINE,
        _SITE,
        ("timeouts", "Timed-out waits", "integer"),
        _GIL,
    ),
    _schema(
        "GilSwitchRequest",
        "switch request",
        "This thread had waited for a switch interval and asked the holder to drop the GIL.",
        ("reason", "Reason", "unique-string"),
        _CULPRIT,
        _CULPRIT_OWN_LINE,
        _CULPRIT_SITE,
        _GIL,
    ),
    _schema(
        "LockBlock",
        "blocked: {marker.data.lockCause}",
        "Asleep in one of the interpreter's own locks. The waker is the thread that ended that.",
        ("lockCause", "By", "unique-string"),
        ("lock", "Lock", "unique-string"),
        ("reason", "Outcome", "unique-string"),
        _OWN_LINE,
        _SITE,
        ("waker", "Waker", "unique-string"),
        ("wakerOwnLine", "Own line of the waker", "unique-string"),
        ("wakerSite", "Where the waker stood", "unique-string"),
        ("wakeUpNs", "Time from that to the end", "nanoseconds"),
    ),
]

_NAMES = ["holds GIL", "waits for GIL", "switch request", "blocked"]
_HOLD_REASONS = ["voluntary", "forced", "still held at the end"]
_WAIT_REASONS = ["acquired", "still waiting at the end"]
_REQUEST_REASONS = ["a timed wait ran out"]
_BLOCK_REASONS = [end.label for end in BlockEnd]


class Markers:
    """The markers of one process; `hold_stacks` and `wait_stacks` are the stacks that they stand for, -1 if unknown."""

    def __init__(self, process: Process, shared: SharedTables, origin: int, recorded_ns: int) -> None:
        self._process, self._origin = process, origin
        self._relations = relate(process)
        self._places = Places(process, self._relations, recorded_ns)
        self.hold_stacks, self.wait_stacks = self._places.hold_stack, self._places.wait_stack
        self._stacks = (
            shared.stacks(process, self.hold_stacks, HOLDING)[0],
            shared.stacks(process, self.wait_stacks, WAITING)[0],
        )
        self._block_stacks = shared.known_stacks(process, self._places.block_stack)
        # The last of each stands for nobody and nowhere.
        self._place = np.append(shared.strings(list(self._places.texts[1:])), -1)
        self._thread = np.append(shared.strings(labels(process)), -1)
        self._name = shared.strings(_NAMES)
        self._known_by = np.append(-1, shared.strings(list(KNOWN_BY.values())[1:]))
        reasons = (_HOLD_REASONS, _WAIT_REASONS, _REQUEST_REASONS, _BLOCK_REASONS)
        self._reasons = [shared.strings(texts) for texts in reasons]
        self._causes = shared.strings([cause.label for cause in BlockCause])
        used, self._lock_of = np.unique(self._places.block_lock, return_inverse=True)
        self._locks = shared.strings([f"Lock #{lock}" for lock in used.tolist()])
        tables = (process.holds, process.waits, process.switch_requests, process.blocks)
        # When each of the rows begins and ends: a switch request is an instant.
        self._times = [
            tuple(table["time" if "time" in (table.dtype.names or ()) else edge] for edge in ("start", "end"))
            for table in tables
        ]
        self._rows = [_by_thread(process, table["thread"]) for table in tables]

    def rows_of(self, thread: int) -> tuple[Ints, Ints]:
        """The rows of this thread's holds and of its waits."""
        return self._rows[_HOLD][thread], self._rows[_WAIT][thread]

    def write(self, file: BinaryIO, thread: int) -> None:
        """Write the markers of one thread, by time."""
        own = [rows[thread] for rows in self._rows]
        start, end = (
            np.concatenate([times[edge][rows] for times, rows in zip(self._times, own, strict=True)]) for edge in (0, 1)
        )
        kind = np.repeat([_HOLD, _WAIT, _REQUEST, _BLOCK], [len(rows) for rows in own])
        row = np.concatenate(own)
        order = np.argsort(start, kind="stable")
        start, end, kind, row = start[order] - self._origin, end[order] - self._origin, kind[order], row[order]
        phase, category = np.array([1, 1, 0, 1]), np.array([HOLDING, WAITING, OTHER, BLOCKED])
        columns = {
            "name": lambda piece: integers(self._name[kind[piece]]),
            "startTime": lambda piece: decimals(start[piece], 6),
            "endTime": lambda piece: _or_null(kind[piece] != _REQUEST, decimals(end[piece], 6)),
            "phase": lambda piece: integers(phase[kind[piece]]),
            "category": lambda piece: integers(category[kind[piece]]),
            "data": lambda piece: self._data(kind[piece], row[piece]),
        }
        file.write(b',"markers":{"length":%d' % len(start))
        for name, cells in columns.items():
            file.write(b',"%s":' % name.encode())
            write_array(file, len(start), cells)
        file.write(b"}")

    def _data(self, kind: Ints, row: Ints) -> Cells:
        """The fields of markers of all kinds: one matrix, its rows filled kind by kind."""
        makers = (self._hold, self._wait, self._request, self._block)
        made = [make(row[kind == number]) for number, make in enumerate(makers)]
        cells = np.zeros((len(kind), max(part.shape[1] for part in made)), np.uint8)
        for number, part in enumerate(made):
            cells[np.flatnonzero(kind == number)[:, None], np.arange(part.shape[1])] = part
        return cells

    def _hold(self, row: Ints) -> Cells:
        holds = self._process.holds[row]
        reason = np.where(holds["flags"] & Flag.PARTIAL_END, 2, holds["flags"] & Flag.FORCED)
        return self._object(
            b"GilHold",
            ("gil", holds["gil"].astype(np.int64)),
            ("reason", self._reasons[_HOLD][reason]),
            *self._stood("ownLine", "site", self._places.hold_stack[row]),
            ("knownBy", self._known_by[self._places.hold_source[row]]),
            ("core", holds["core"].astype(np.int64)),
            stack=self._stacks[_HOLD][row],
        )

    def _wait(self, row: Ints) -> Cells:
        waits = self._process.waits[row]
        share = decimals(np.rint(10_000 * self._places.share(row)), 4)
        return self._object(
            b"GilWait",
            ("gil", waits["gil"].astype(np.int64)),
            ("reason", self._reasons[_WAIT][(waits["hold"] < 0).astype(np.int64)]),
            ("timeouts", waits["timeouts"].astype(np.int64)),
            *self._holders(row),
            *self._stood("culpritOwnLine", "culpritSite", self._places.culprit_stack[row]),
            ("culpritKnownBy", self._known_by[self._places.culprit_source[row]]),
            *self._stood("ownLine", "site", self._places.wait_stack[row]),
            stack=self._stacks[_WAIT][row],
            more=(where(self._places.culprits.thread[row, 0] >= 0, b',"culpritShare":', share),),
        )

    def _holders(self, row: Ints) -> list[tuple[str, Ints]]:
        """Who held the GIL during each wait, and for how long: the culprit and the next two."""
        found = self._places.culprits
        told: list[tuple[str, Ints]] = []
        for place, name in enumerate(("culprit", "secondCulprit", "thirdCulprit")):
            thread = found.thread[row, place]
            told += [(name, self._thread[thread]), (f"{name}Ns", np.where(thread >= 0, found.ns[row, place], -1))]
        return told

    def _stood(self, line: str, site: str, stack: npt.NDArray[np.int32]) -> list[tuple[str, Ints]]:
        """Where somebody stood: the user's own line, and the innermost frame."""
        places = self._places
        return [(line, self._place[places.own_line(stack) - 1]), (site, self._place[places.site(stack) - 1])]

    def _request(self, row: Ints) -> Cells:
        requests = self._process.switch_requests[row]
        return self._object(
            b"GilSwitchRequest",
            ("gil", requests["gil"].astype(np.int64)),
            ("reason", np.full(len(row), self._reasons[_REQUEST][0])),
            ("culprit", self._thread[self._relations.asked[row]]),
            *self._stood("culpritOwnLine", "culpritSite", self._places.asked_stack[row]),
            stack=np.full(len(row), -1),
        )

    def _block(self, row: Ints) -> Cells:
        blocks, places = self._process.blocks[row], self._places
        waker = blocks["waker"].astype(np.int64)
        return self._object(
            b"LockBlock",
            ("lockCause", self._causes[places.block_cause[row]]),
            ("lock", self._locks[self._lock_of.ravel()[row]]),
            ("reason", self._reasons[_BLOCK][blocks["ended"]]),
            *self._stood("ownLine", "site", places.block_stack[row]),
            ("waker", self._thread[waker]),
            *self._stood("wakerOwnLine", "wakerSite", places.wake_stack[row]),
            ("wakeUpNs", np.where(waker >= 0, blocks["end"] - blocks["woken"], -1)),
            stack=self._block_stacks[row],
        )

    def _object(self, kind: bytes, *fields: tuple[str, Ints], stack: Ints, more: tuple[Cells, ...] = ()) -> Cells:
        """JSON objects; a field below 0 is left out. `more` are further fields as they stand there."""
        every = np.ones(len(stack), np.bool_)
        parts = [where(every, b'{"type":"%s"' % kind)]
        for name, values in fields:
            parts.append(where(values >= 0, b',"%s":' % name.encode(), integers(np.maximum(values, 0))))
        parts += more
        parts.append(where(stack >= 0, b',"cause":{"stack":', integers(np.maximum(stack, 0)), b"}"))
        return np.concatenate([*parts, where(every, b"}")], axis=1)


def _or_null(known: npt.NDArray[np.bool_], cells: Cells) -> Cells:
    return np.concatenate((where(known, cells), where(~known, b"null")), axis=1)


def _by_thread(process: Process, thread: npt.NDArray[Any]) -> list[Ints]:
    """The rows of each thread, in their order."""
    count = len(process.threads)
    order = stable_order(thread, count)
    return np.split(order, np.searchsorted(thread[order], np.arange(1, count)))
