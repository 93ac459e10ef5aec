"""The flight recorder: writes the last moments out when one of its rules is met, or when somebody asks."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from giltrace.collectors._code_names import name_code
from giltrace.collectors.afterwards import Afterwards
from giltrace.collectors.base import Session
from giltrace.collectors.gil import GilCollector
from giltrace.collectors.rules.base import Caught, Following, Rule
from giltrace.collectors.rules.outside import Outside
from giltrace.collectors.telling import told
from giltrace.errors import OutputError, RecordingError
from giltrace.process.folder import Folder
from giltrace.process.program_files import ProgramFiles
from giltrace.recording import sched, snapshot
from giltrace.recording.collected import CollectorReport
from giltrace.recording.folder import SUFFIX
from giltrace.recording.live import LiveReader
from giltrace.recording.locate import writers
from giltrace.recording.meta import Meta
from giltrace.recording.sleepers import Sleeper
from giltrace.recording.trigger import Trigger
from giltrace.text import plural

#: What happens this long after a trigger is still in its dump.
AFTERMATH_NS = 200_000_000
#: What happened longer ago than this is taken as complete by the rules that follow: they look at what takes longer.
HOLD_BACK_NS = 25_000_000

#: Tells from outside who sleeps in locks in a process.
AskSleepers = Callable[[int], Sequence[Sleeper]]


def nobody(pid: int) -> Sequence[Sleeper]:
    """Nobody is known to sleep."""
    return ()


def dump(
    folder: Folder, out: Path, caught: Caught, pid: int, ask: AskSleepers = nobody, files: Folder | None = None
) -> Trigger:
    """Copy the recording that is being written to `folder` into the new recording `out`, whole or not at all.

    The tracers write to `files`, if that is another folder.
    `pid` is one of its processes: what native code was seen is looked up in the files that this one sees, and `ask`
    is asked for who sleeps in it for so long that a ring has forgotten since when. Returns the trigger with its
    sentence. Raises `OutputError` if it cannot be written, `RecordingError` if `folder` is no recording.
    """
    if out.exists():
        raise OutputError(f"{out} exists", "choose another name with -o")
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True)
        begun = time.monotonic_ns()
        snapshot.copy(folder, unfinished, files or folder)
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
        meta.end_ns, meta.lived = begun, [[one, begun] for one in writers(files or folder, meta.ids)]
        meta.collectors = [asdict(report) for report in reports]
        meta.trigger = caught.trigger
        meta.state = "complete"
        meta.write(unfinished)
        meta.trigger = told(unfinished, caught)
        meta.write(unfinished)
        unfinished.rename(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}", "free some space, or choose another place") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return meta.trigger


class FlightRecorder:
    """Watches for what `rules` describe and dumps the recording into ``NAME-1.giltrace``, ``NAME-2.giltrace``, ...

    At most `most` dumps are written, and of each rule none within `apart_ns` of its last one, but for what somebody
    asks for; each takes in what happens until `AFTERMATH_NS` after its trigger. `announce` is told of each in a line,
    and of the first trigger in a row that gets none. `ask` is as in `dump`. `command` is run after each, with the path
    of the dump for each ``{}``. Where `written` is given, it is told of each dump instead. `outside` looks at threads.
    """

    name = "flight recorder"

    def __init__(
        self,
        rules: Sequence[Rule],
        most: int,
        announce: Callable[[str], None],
        ask: AskSleepers = nobody,
        *,
        apart_ns: int = 0,
        command: Sequence[str] = (),
        written: Callable[[Trigger, Path], None] | None = None,
        outside: Outside | None = None,
    ) -> None:
        # Of several limits that a trigger exceeds, that which it exceeded by least tells most: the last one counts.
        self._rules = sorted(rules, key=lambda rule: rule.limit_ns)
        self._most, self._apart_ns = most, apart_ns
        self._announce, self._ask = announce, ask
        self._afterwards = Afterwards(announce, command, written)
        self._folder, self._pid = Path(), 0
        self._files: Folder | None = None
        self._reader: LiveReader | None = None
        self._outside = outside or Outside()
        self._pending: Caught | None = None
        self._dumps = self._missed = 0
        self._last: dict[str, int] = {}
        self._suppressed: set[str] = set()
        self._problem = ""

    def available(self, python: str | None) -> str | None:
        """See `Collector.available`."""
        return None

    def prepare(self, folder: Path, env: dict[str, str]) -> None:
        """Let each rule tell the tracers, or the program, what it wants to know."""
        self._folder = folder
        for rule in self._rules:
            rule.prepare(env)

    def start(self, session: Session) -> None:
        """Remember the target: the tracers report by themselves."""
        self._pid, self._files = session.pid, session.files
        if any(isinstance(rule, Following) for rule in self._rules):
            self._reader = LiveReader(self._folder)

    def poll(self) -> None:
        """Look for new triggers, and dump when the aftermath of one is over."""
        for rule, caught in self._triggers():
            if self._pending is None and self._is_due(rule, caught.trigger):
                self._pending = caught
                self._last[rule.text] = caught.trigger.time_ns
            else:
                self._missed += 1
        if self._pending is not None and time.monotonic_ns() >= self._pending.trigger.time_ns + AFTERMATH_NS:
            self._dump()

    def _is_due(self, rule: Rule, trigger: Trigger) -> bool:
        """Whether a trigger gets a dump of its own."""
        if self._dumps >= self._most:
            self._tell_once("most", f"{trigger}: no dump, there are {self._dumps} (--max-dumps)")
            return False
        if rule.asked or trigger.time_ns - self._last.get(rule.text, -self._apart_ns) >= self._apart_ns:
            self._suppressed.discard(rule.text)
            return True
        ago = (trigger.time_ns - self._last[rule.text]) / 1e9
        self._tell_once(rule.text, f"{trigger}: no dump, the last one is {ago:.1f} s old (--dump-apart)")
        return False

    def _tell_once(self, why: str, text: str) -> None:
        if why not in self._suppressed:
            self._suppressed.add(why)
            self._announce(text)

    def stop(self) -> CollectorReport:
        """Write the dump that is still due, and say how many there were."""
        self.poll()
        if self._pending is not None:
            self._dump()
        self._afterwards.finish()
        if self._reader is not None:
            self._reader.close()
        self._outside.close()
        status = self._afterwards.problem or self._problem or "ok"
        missed = self._missed + sum(rule.missed for rule in self._rules)
        more = f", {plural(missed, 'further trigger')} without one of their own" if missed else ""
        return CollectorReport(self.name, status, f"{self._dumps} dumps{more}")

    def _triggers(self) -> list[tuple[Rule, Caught]]:
        found = [(rule, caught) for rule in self._rules for caught in rule.poll(self._folder)]
        if self._reader is not None:
            found += self._followed(self._reader)
        # A wait may exceed the limits of several rules.
        one_each = {
            (caught.trigger.kind, caught.trigger.pid, caught.trigger.tid, caught.trigger.time_ns): (rule, caught)
            for rule, caught in found
        }
        return sorted(one_each.values(), key=lambda one: one[1].trigger.time_ns)

    def _followed(self, reader: LiveReader) -> list[tuple[Rule, Caught]]:
        until = time.monotonic_ns() - HOLD_BACK_NS
        found: list[tuple[Rule, Caught]] = []
        try:
            for update in reader.poll(until):
                for rule in self._rules:
                    if isinstance(rule, Following):
                        found += [(rule, caught) for caught in rule.see(update, until, self._outside)]
                if update.ended:
                    self._outside.forget(update.file.pid)
        except (RecordingError, OSError) as error:
            self._problem = f"nothing is followed any more: {error}"
            self._announce(self._problem)
            reader.close()
            self._reader = None
        return found

    def _dump(self) -> None:
        caught, self._pending = self._pending, None
        if caught is None:
            return
        self._dumps += 1
        number, pid, ask, files = self._dumps, self._pid, self._ask, self._files

        def write() -> tuple[Trigger, Path]:
            out = self._free_name(number)
            with Folder.own(self._folder) as folder:
                return dump(folder, out, caught, pid, ask, files), out

        self._afterwards.write(write)

    def _free_name(self, number: int) -> Path:
        stem = self._folder.name.removesuffix(SUFFIX)
        while True:
            path = self._folder.with_name(f"{stem}-{number}{SUFFIX}")
            if not path.exists():
                return path
            number += 1
