"""The process that `giltrace.watch` starts: it follows what the tracer writes in the program, and says what it finds.

It reads answers from stdin, and ends with it; a line of JSON on stdout is a stall, or a question.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import sys
import time
from pathlib import Path

from giltrace.analysis.findings.stall import Look
from giltrace.collectors.base import Session
from giltrace.collectors.flight import HOLD_BACK_NS, FlightRecorder
from giltrace.collectors.rules import parse
from giltrace.collectors.rules.outside import Outside
from giltrace.recording.clock_file import append_pair
from giltrace.recording.live_file import LiveFile
from giltrace.recording.trigger import Trigger

_POLL_SECONDS, _PAIR_SECONDS = 0.03, 0.25
#: So many answers are kept.
_MOST_ANSWERS = 64


class Asking(Outside):
    """Asks the program, process `pid`, for the name of a thread's task, where that cannot be read from outside."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid
        self._answers: list[tuple[int, int, str]] = []

    def look(self, file: LiveFile, tid: int) -> list[Look]:
        """See `Outside.look`."""
        found = super().look(file, tid)
        if file.pid == self._pid and not any(look.task for look in found):
            _say({"ask": tid})
        return found

    def task(self, tid: int, start: int, end: int) -> str:
        """See `Outside.task`."""
        return next((task for time, who, task in reversed(self._answers) if who == tid and start <= time <= end), "")

    def hear(self, line: bytes) -> None:
        """An answer."""
        told = json.loads(line)
        self._answers = [*self._answers[-_MOST_ANSWERS:], (int(told["time"]), int(told["tid"]), str(told["task"]))]


def _say(told: dict[str, object]) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


def main() -> None:
    """Watch the process whose recording, id, time between stalls, folder for dumps and rules are the arguments."""
    path, pid, apart, keep, *rules = sys.argv[1:]
    # A terminal's Ctrl-C is the program's: this one ends with its stdin.
    with contextlib.suppress(OSError):
        os.setsid()

    def written(trigger: Trigger, out: Path) -> None:
        kept = ""
        if keep:
            kept = str(_kept(out, Path(keep)))
        else:
            shutil.rmtree(out, ignore_errors=True)
        told = {
            name: getattr(trigger, name) for name in ("sentence", "kind", "thread", "task", "cause", "lines", "pid")
        }
        _say(told | {"duration": trigger.length_ns / 1e9, "ended": trigger.time_ns / 1e9, "dump": kept})

    asking = Asking(int(pid))
    recorder = FlightRecorder(
        [parse(rule) for rule in rules],
        1 << 30,
        lambda problem: None,
        apart_ns=round(float(apart) * 1e9),
        written=written,
        outside=asking,
    )
    recorder.prepare(Path(path), {})
    recorder.start(Session(Path(path), int(pid), None))
    _follow(recorder, asking, Path(path))
    recorder.stop()


def _kept(out: Path, folder: Path) -> Path:
    number = 1
    while (place := folder / f"stall-{number}.giltrace").exists():
        number += 1
    shutil.move(out, place)
    return place


def _follow(recorder: FlightRecorder, asking: Asking, path: Path) -> None:
    """Go on until stdin ends."""
    poll, rest, paired = select.poll(), b"", 0.0
    poll.register(0, select.POLLIN)
    while True:
        if poll.poll(_POLL_SECONDS * 1e3):
            data = os.read(0, 1 << 16)
            if not data:
                # The tracer has left: what it wrote last is old enough then.
                time.sleep(HOLD_BACK_NS / 1e9 + _POLL_SECONDS)
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                asking.hear(line)
        if time.monotonic() - paired > _PAIR_SECONDS:
            append_pair(path)
            paired = time.monotonic()
        recorder.poll()


if __name__ == "__main__":
    main()
