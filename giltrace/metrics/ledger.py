"""Sums that never shrink: over processes that come and go, and for whoever asks.

Each reading of a process is compared with the one before it, and what is new goes to the sums. A process that has ended
leaves what it had added. Several programs may keep one ledger, as the workers of a server do, each of which may be the
one that is asked: it is a file then, written whole under a lock.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from giltrace.launch.count_folder import had_alone
from giltrace.metrics.reading import (
    MAIN_GIL,
    CauseReading,
    Counts,
    LineReading,
    ProcessReading,
    RoleKey,
    RoleReading,
    Unnamed,
    of_gils,
)
from giltrace.metrics.sketch import Sketch
from giltrace.metrics.totals import RECENT_NS, Totals, added

#: Roles that are told apart at the main interpreter's GIL, and at each other; the rest are one, `OTHER`, and stay that.
MOST_ROLES, MOST_ROLES_ELSEWHERE = 32, 8
#: GILs that are told apart, likewise.
MOST_GILS = 16
OTHER = "other"

NAME = "totals.json"
_VERSION = 3
#: A minute is looked at in steps of this.
_STEP_NS = 5_000_000_000
#: Processes that are remembered to have been added already, for files of theirs that are not gone yet.
_MOST_SETTLED = 256
_TABLES = ("culprits", "victims", "blocked")

_Key = tuple[int, int]


class Readable(Protocol):
    """What has the readings of all processes that count, as `page.Pages`."""

    def read(self, *, reset_longest: bool = False) -> tuple[ProcessReading, ...]:
        """Of all that live, and of those that have ended and are not forgotten."""

    @property
    def refused(self) -> tuple[str, ...]:
        """Why some were not read the last time."""

    def forget(self, pid: int) -> None:
        """Let one that has ended be gone, and its files."""


@dataclass
class _Last:
    """What a process said when it was last read."""

    roles: dict[RoleKey, Counts] = field(default_factory=dict)
    causes: dict[str, tuple[int, int]] = field(default_factory=dict)
    lines: dict[str, dict[str, tuple[int, int]]] = field(default_factory=lambda: {name: {} for name in _TABLES})
    #: Instants of the last minute, and how long each GIL was held until then.
    held: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    lost: int = 0
    unnamed_ns: Unnamed = (0, 0, 0)


@dataclass
class _State:
    started_ns: int = 0
    roles: dict[RoleKey, Counts] = field(default_factory=dict)
    causes: dict[str, tuple[int, int]] = field(default_factory=dict)
    sketches: dict[str, Sketch] = field(default_factory=lambda: {name: Sketch() for name in _TABLES})
    longest: dict[RoleKey, list[tuple[int, int, int]]] = field(default_factory=dict)  #: step, hold, wait
    last: dict[_Key, _Last] = field(default_factory=dict)
    settled: list[_Key] = field(default_factory=list)
    ended: int = 0
    lost: int = 0
    unnamed_ns: Unnamed = (0, 0, 0)


class Ledger:
    """Reads `pages` and keeps the sums; in the folder `shared` if several programs do so together.

    Any thread may ask.
    """

    def __init__(self, pages: Readable, shared: Path | None = None) -> None:
        self._pages = pages
        self._shared = shared
        self._state = _State()
        self._turn = threading.Lock()
        self._newest: Totals | None = None

    def update(self) -> Totals:
        """Read everything now; once a shared folder was removed by who made it, what there was.

        Raises `OSError` if a ledger that is shared cannot be written, `RecordingError` if a page cannot be read.
        """
        with self._turn:
            try:
                with self._kept():
                    self._newest, ended = self._read()
            except FileNotFoundError:
                if self._shared is None or self._shared.is_dir():
                    raise
                return self._newest or _totals(self._state, ())
            # Not before that is written: it would be lost if this process ended in between.
            for pid in ended:
                self._pages.forget(pid)
            return self._newest

    def _read(self) -> tuple[Totals, list[int]]:
        """The sums, and which processes have ended."""
        readings = self._pages.read(reset_longest=True)
        state, ended = self._state, []
        for reading in readings:
            key = (reading.pid, reading.started_ns)
            if key not in state.settled:
                _add(state, reading)
            if reading.ended:
                ended.append(reading.pid)
                state.last.pop(key, None)
                if key not in state.settled:
                    state.settled = [*state.settled, key][-_MOST_SETTLED:]
                    state.ended += 1
        there = {(reading.pid, reading.started_ns) for reading in readings}
        for key in state.last.keys() - there:  # its file is gone without a last word
            del state.last[key]
            state.ended += 1
        living = tuple(reading for reading in readings if not reading.ended)
        totals = replace(_totals(state, living), refused=self._pages.refused)
        self._save()
        return totals, ended

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Have the ledger's file alone, and its state loaded; nothing to do for one that is not shared."""
        if self._shared is None:
            yield
            return
        with had_alone(self._shared):
            with contextlib.suppress(FileNotFoundError):
                self._state = _from_json((self._shared / NAME).read_bytes())
            yield

    def _save(self) -> None:
        if self._shared is not None:
            new = self._shared / f"{NAME}.new"
            new.write_bytes(_to_json(self._state))
            new.replace(self._shared / NAME)


def _add(state: _State, reading: ProcessReading) -> None:
    """Put what a process did since it was last read to the sums."""
    last = state.last.setdefault((reading.pid, reading.started_ns), _Last())
    state.started_ns = min(state.started_ns or reading.started_ns, reading.started_ns)
    step = reading.at_ns // _STEP_NS
    for role, counts in _by_label(state, reading.roles).items():
        before = last.roles.get(role, Counts())
        new = counts.since(before)
        state.roles[role] += new
        # What is under way is told up to the instant, and may be told a little less when it has ended.
        last.roles[role] = before + new
        longest = state.longest.setdefault(role, [])
        if not longest or longest[-1][0] != step:
            longest.append((step, 0, 0))
        _, hold, wait = longest[-1]
        longest[-1] = (step, max(hold, counts.longest_hold_ns), max(wait, counts.longest_wait_ns))
        del longest[: -RECENT_NS // _STEP_NS - 1]
    for cause in reading.causes:
        # What is certain of it: what made room for others, and came back, is not counted twice.
        sure, (blocks, ns) = (cause.blocks, cause.blocked_ns - cause.error_ns), state.causes.get(cause.cause, (0, 0))
        was = last.causes.get(cause.cause, (0, 0))
        state.causes[cause.cause] = (blocks + max(sure[0] - was[0], 0), ns + max(sure[1] - was[1], 0))
        last.causes[cause.cause] = sure
    for name, lines in zip(_TABLES, (reading.culprits, reading.victims, reading.blocked), strict=True):
        last.lines[name] = _add_lines(state.sketches[name], last.lines[name], lines)
    state.lost += max(reading.lost - last.lost, 0)
    last.lost = max(reading.lost, last.lost)
    new_unnamed = added(reading.unnamed_ns, last.unnamed_ns)
    state.unnamed_ns = _sum(state.unnamed_ns, new_unnamed)
    last.unnamed_ns = _sum(last.unnamed_ns, new_unnamed)
    held = _held(reading)
    if not last.held:
        last.held.append((reading.started_ns, {}))
    if reading.at_ns - last.held[-1][0] >= _STEP_NS:
        last.held.append((reading.at_ns, held))
    while len(last.held) > 1 and last.held[1][0] <= reading.at_ns - RECENT_NS:
        del last.held[0]


def _sum(one: Unnamed, other: Unnamed) -> Unnamed:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _by_label(state: _State, roles: Iterable[RoleReading]) -> dict[RoleKey, Counts]:
    """The counts of a process's roles as they are told apart; a role that is told by its name always is."""
    together: dict[RoleKey, Counts] = {}
    for role in roles:
        label = _label(state, role)
        together[label] = together.get(label, Counts()) + role.counts
    return together


def _label(state: _State, reading: RoleReading) -> RoleKey:
    role, gil = reading.key
    gils = Counter(gil for _, gil in state.roles)
    if gil != MAIN_GIL and gil not in gils and len(gils.keys() - {MAIN_GIL, OTHER}) == MOST_GILS - 2:
        gil = OTHER
    if (role, gil) not in state.roles:
        room = gils[gil] < (MOST_ROLES if gil == MAIN_GIL else MOST_ROLES_ELSEWHERE) - 1
        role = role if room else OTHER
        state.roles.setdefault((role, gil), Counts())
    return role, gil


def _add_lines(
    sketch: Sketch, last: Mapping[str, tuple[int, int]], lines: Iterable[LineReading]
) -> dict[str, tuple[int, int]]:
    """Put what is new to the sketch; returns what is to be compared with the next time."""
    now = {}
    for line in lines:
        key = f"{line.place} {line.function} {line.collecting:d}"
        sure, was = line.ns - line.error_ns, last.get(key, (0, 0))
        sketch.add(line, sure - was[0], max(line.times - was[1], 0))
        now[key] = (sure, line.times)
    return now


def _totals(state: _State, processes: tuple[ProcessReading, ...]) -> Totals:
    at_ns = max((reading.at_ns for reading in processes), default=time.monotonic_ns())
    oldest = (at_ns - RECENT_NS) // _STEP_NS
    threads: dict[RoleKey, int] = {}
    for reading in processes:
        for role in reading.roles:
            label = _label(state, role)
            threads[label] = threads.get(label, 0) + role.threads
    roles = []
    for key, counts in state.roles.items():
        recent = [one for one in state.longest.get(key, []) if one[0] >= oldest]
        hold, wait = (max((one[index] for one in recent), default=0) for index in (1, 2))
        counts = replace(counts, longest_hold_ns=hold, longest_wait_ns=wait)
        roles.append(RoleReading(key[0], threads.get(key, 0), counts, key[1]))
    return Totals(
        started_ns=state.started_ns or at_ns,
        at_ns=at_ns,
        processes=processes,
        roles=tuple(sorted(roles, key=lambda role: role.key)),
        culprits=state.sketches["culprits"].lines(),
        victims=state.sketches["victims"].lines(),
        blocked=state.sketches["blocked"].lines(),
        causes=tuple(CauseReading(cause, blocks, ns, 0) for cause, (blocks, ns) in sorted(state.causes.items())),
        busiest=max((_share(state, reading) for reading in processes), default=0.0),
        ended=state.ended,
        lost=state.lost,
        unnamed_ns=state.unnamed_ns,
    )


def _share(state: _State, reading: ProcessReading) -> float:
    """Of the time that a GIL of the process was held, the greatest."""
    begin, before = state.last[reading.pid, reading.started_ns].held[0]
    length = reading.at_ns - begin
    held = max((ns - before.get(gil, 0) for gil, ns in _held(reading).items()), default=0)
    return min(held / length, 1.0) if length > 0 else 0.0


def _held(reading: ProcessReading) -> dict[str, int]:
    return {gil: counts.held_ns for gil, counts in of_gils(reading.roles).items()}


def _to_json(state: _State) -> bytes:
    told = {
        "version": _VERSION,
        "started_ns": state.started_ns,
        "roles": [[*key, astuple(counts)] for key, counts in state.roles.items()],
        "causes": state.causes,
        "sketches": {name: sketch.to_json() for name, sketch in state.sketches.items()},
        "longest": [[*key, steps] for key, steps in state.longest.items()],
        "last": [
            [
                *key,
                [[*role, astuple(counts)] for role, counts in one.roles.items()],
                one.causes,
                one.lines,
                one.held,
                one.lost,
                one.unnamed_ns,
            ]
            for key, one in state.last.items()
        ],
        "settled": state.settled,
        "ended": state.ended,
        "lost": state.lost,
        "unnamed": state.unnamed_ns,
    }
    return json.dumps(told, separators=(",", ":")).encode()


def _from_json(data: bytes) -> _State:
    """What `_to_json` wrote; a new beginning for what is damaged or of another version."""
    try:
        told: dict[str, Any] = json.loads(data)
        if told["version"] != _VERSION:
            return _State()
        last = {}
        for pid, started, roles, causes, lines, held, lost, unnamed in told["last"]:
            last[int(pid), int(started)] = _Last(
                _roles(roles),
                {cause: (one[0], one[1]) for cause, one in causes.items()},
                {name: {key: (one[0], one[1]) for key, one in lines[name].items()} for name in _TABLES},
                [(int(at), {gil: int(ns) for gil, ns in of.items()}) for at, of in held],
                int(lost),
                _unnamed(unnamed),
            )
        return _State(
            int(told["started_ns"]),
            _roles(told["roles"]),
            {cause: (one[0], one[1]) for cause, one in told["causes"].items()},
            {name: Sketch.from_json(told["sketches"][name]) for name in _TABLES},
            {(role, gil): [(one[0], one[1], one[2]) for one in steps] for role, gil, steps in told["longest"]},
            last,
            [(one[0], one[1]) for one in told["settled"]],
            int(told["ended"]),
            int(told["lost"]),
            _unnamed(told["unnamed"]),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return _State()


def _roles(rows: list[Any]) -> dict[RoleKey, Counts]:
    return {(str(role), str(gil)): _counts(row) for role, gil, row in rows}


def _counts(row: list[Any]) -> Counts:
    counts = Counts(*row)
    lengths = (tuple(counts.hold_lengths), tuple(counts.wait_lengths), tuple(counts.block_lengths))
    return replace(counts, hold_lengths=lengths[0], wait_lengths=lengths[1], block_lengths=lengths[2])


def _unnamed(told: list[int]) -> Unnamed:
    culprits, victims, sleepers = map(int, told)
    return culprits, victims, sleepers
