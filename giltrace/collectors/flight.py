"""The flight recorder: writes the last moments out when a wait or a hold was too long, or when somebody asks."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import numpy as np

from giltrace.collectors._code_names import name_code
from giltrace.collectors.base import Session
from giltrace.collectors.gil import GilCollector
from giltrace.errors import OutputError, RecordingError
from giltrace.process.folder import Folder
from giltrace.process.program_files import ProgramFiles
from giltrace.recording import clock, gil, layout, sched, snapshot
from giltrace.recording.collected import CollectorReport
from giltrace.recording.folder import SUFFIX
from giltrace.recording.meta import Meta
from giltrace.recording.sleepers import Sleeper
from giltrace.recording.trigger import Trigger

#: What happens this long after a trigger is still in its dump.
AFTERMATH_NS = 200_000_000


@dataclass(frozen=True)
class Rule:
    """When to dump: a "wait" or "hold" longer than `limit_ns`, or a "signal" of that `number`; `text` is as typed."""

    kind: str
    text: str
    limit_ns: int = 0
    number: int = 0


#: Tells from outside who sleeps in locks in a process.
AskSleepers = Callable[[int], Sequence[Sleeper]]


def nobody(pid: int) -> Sequence[Sleeper]:
    """Nobody is known to sleep."""
    return ()


def dump(folder: Folder, out: Path, trigger: Trigger, pid: int, ask: AskSleepers = nobody) -> None:
    """Copy the recording that is being written to `folder` into the new recording `out`, whole or not at all.

    `pid` is one of its processes: what native code was seen is looked up in the files that this one sees, and `ask`
    is asked for who sleeps in it for so long that a ring has forgotten since when.
    Raises `OutputError` if it cannot be written, `RecordingError` if `folder` is no recording.
    """
    if out.exists():
        raise OutputError(f"{out} exists", "choose another name with -o")
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True)
        begun = time.monotonic_ns()
        snapshot.copy(folder, unfinished)
        meta = Meta.read(unfinished)
        reports = [GilCollector().report(unfinished)]
        if any(unfinished.glob("sched-*.bin")):
            # Without the process, or the right to look at its files, its native code has no names.
            with contextlib.suppress(OSError, RecordingError), ProgramFiles(pid) as program:
                name_code(unfinished, program.open)
            records, lost = sched.count_records(unfinished)
            reports.append(CollectorReport("sched", "ok", cost=f"{records:,} records", lost=lost))
        known = {(one.pid, one.tid): one for one in (*meta.asleep, *ask(pid))}
        meta.asleep = list(known.values())
        meta.end_ns = begun
        meta.collectors = [asdict(report) for report in reports]
        meta.trigger = trigger
        meta.state = "complete"
        meta.write(unfinished)
        unfinished.rename(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}", "free some space, or choose another place") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


class FlightRecorder:
    """Watches for what `rules` describe and dumps the recording into ``NAME-1.giltrace``, ``NAME-2.giltrace``, ...

    At most `most` dumps are written; each takes in what happens until `AFTERMATH_NS` after its trigger. `announce` is
    told of each in a line. `ask` is as in `dump`.
    """

    name = "flight recorder"

    def __init__(
        self, rules: Sequence[Rule], most: int, announce: Callable[[str], None], ask: AskSleepers = nobody
    ) -> None:
        self._rules = tuple(rules)
        self._most = most
        self._announce = announce
        self._ask = ask
        self._folder, self._pid = Path(), 0
        self._ticks_per_ns = 1.0
        self._heads: dict[Path, mmap.mmap] = {}
        self._counts: dict[Path, int] = {}
        self._signals: list[int] = []
        self._pending: Trigger | None = None
        self._dumps = self._missed = 0
        self._problem = ""

    def available(self, python: str | None) -> str | None:
        """See `Collector.available`."""
        return None

    def prepare(self, folder: Path, env: dict[str, str]) -> None:
        """Tell the tracers the limits, and take over the signals that ask for a dump."""
        self._folder = folder
        self._ticks_per_ns = clock.ticks_per_ns()
        for kind in ("wait", "hold"):
            limits = [rule.limit_ns for rule in self._rules if rule.kind == kind]
            if limits:
                env[f"GILTRACE_{kind.upper()}_LIMIT"] = str(max(1, round(min(limits) * self._ticks_per_ns)))
        for rule in self._rules:
            if rule.kind == "signal":
                signal.signal(rule.number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def start(self, session: Session) -> None:
        """Remember the target: the tracers report by themselves."""
        self._pid = session.pid

    def poll(self) -> None:
        """Look for new triggers, and dump when the aftermath of one is over."""
        for trigger in self._triggers():
            if self._pending is None and self._dumps < self._most:
                self._pending = trigger
            else:
                self._missed += 1
        if self._pending is not None and time.monotonic_ns() >= self._pending.time_ns + AFTERMATH_NS:
            self._dump()

    def stop(self) -> CollectorReport:
        """Write the dump that is still due, and say how many there were."""
        self.poll()
        if self._pending is not None:
            self._dump()
        for head in self._heads.values():
            head.close()
        status = self._problem or "ok"
        more = f", {self._missed} further triggers without one of their own" if self._missed else ""
        return CollectorReport(self.name, status, f"{self._dumps} dumps{more}")

    def _triggers(self) -> list[Trigger]:
        signals, self._signals = self._signals, []
        by_number = {rule.number: rule.text for rule in self._rules if rule.kind == "signal"}
        found = [Trigger("signal", by_number[number], time.monotonic_ns()) for number in signals]
        for path in self._folder.glob("gil-*.bin"):
            if path not in self._heads:
                if path.stat().st_size < layout.HEADER_SIZE:
                    continue  # just being made
                with path.open("rb") as file:
                    self._heads[path] = mmap.mmap(file.fileno(), layout.HEADER_SIZE, access=mmap.ACCESS_READ)
            header = np.frombuffer(self._heads[path], layout.HEADER, 1)[0]
            count = int(header["trigger_count"])
            new = count - self._counts.get(path, 0)
            self._counts[path] = count
            if new:
                found.append(self._read(path, header))
                self._missed += new - 1  # the head tells the newest only
        return found

    def _read(self, path: Path, header: np.void) -> Trigger:
        is_wait = int(header["trigger_kind"]) == layout.Trigger.TRIGGER_WAIT
        kind = "wait" if is_wait else "hold"
        length = round(int(header["trigger_length"]) / self._ticks_per_ns)
        # The rule whose limit it exceeded by least tells most.
        rules = [rule for rule in self._rules if rule.kind == kind]
        rule = max((r for r in rules if r.limit_ns <= length), key=lambda r: r.limit_ns, default=rules[0])
        files = [file for file in gil.open_files(self._folder) if file.path == path]
        ticks = header["trigger_ticks"].reshape(1)
        at = int(gil.tick_clock(self._folder, files).to_ns(ticks)[0]) if files else time.monotonic_ns()
        return Trigger(kind, rule.text, at, length, int(header["pid"]), int(header["trigger_tid"]))

    def _dump(self) -> None:
        trigger, self._pending = self._pending, None
        if trigger is None:
            return
        self._dumps += 1
        out = self._free_name()
        try:
            with Folder.own(self._folder) as folder:
                dump(folder, out, trigger, self._pid, self._ask)
        except (OutputError, RecordingError) as error:
            self._problem = f"a dump failed: {error.message}"
            self._announce(self._problem)
            return
        self._announce(f"{trigger}: {out}")

    def _free_name(self) -> Path:
        stem = self._folder.name.removesuffix(SUFFIX)
        number = self._dumps
        while True:
            path = self._folder.with_name(f"{stem}-{number}{SUFFIX}")
            if not path.exists():
                return path
            number += 1
