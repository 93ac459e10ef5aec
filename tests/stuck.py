"""Programs that hang: `tests/targets/stuck.py`, and what is to be said of it."""

from __future__ import annotations

import time
from pathlib import Path

from giltrace.launch.attach.process import Process
from giltrace.launch.attach.sleepers import places
from tests.attaching import ROOT, Running
from tests.interpreters import Interpreter

TARGET = ROOT / "tests" / "targets" / "stuck.py"

#: So many looks find a thread asleep at one place that sleeps there for good.
_LOOKS = 10


class Stuck(Running):
    """The target, in locks of the class `kind`."""

    def __init__(self, python: Path | str, kind: str, when: str = "now") -> None:
        super().__init__(python, when, kind, target=TARGET)

    def hangs(self, threads: int = 2) -> None:
        """Wait until so many threads beside the main one sleep for good."""
        asleep, looks = self._asleep(), 0
        while looks < _LOOKS or len(asleep) < threads:
            time.sleep(0.01)
            before, asleep = asleep, self._asleep()
            looks = looks + 1 if asleep == before else 0

    def hangs_alone(self) -> None:
        """Wait until the main thread does."""
        seen, looks = places(Process(self.pid)).get(self.pid), 0
        while looks < _LOOKS:
            time.sleep(0.01)
            before, seen = seen, places(Process(self.pid)).get(self.pid)
            looks = looks + 1 if seen is not None and seen == before else 0

    def say(self, word: str) -> None:
        """Tell the main thread something."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def _asleep(self) -> dict[int, object]:
        return {tid: place for tid, place in places(Process(self.pid)).items() if tid != self.pid}


def line(mark: str) -> int:
    """The number of the target's line that has this mark."""
    (found,) = (at for at, text in enumerate(TARGET.read_text().splitlines(), 1) if text.endswith(f"# {mark}"))
    return found


def stood() -> tuple[str, str]:
    """Where its threads stand, in words."""
    return f"pay (stuck.py:{line('payer waits')})", f"book (stuck.py:{line('booker waits')})"


def has_lines(interpreter: Interpreter) -> bool:
    """Whether stacks of threads that stood there before are known: py-spy does not read free-threaded builds."""
    return not interpreter.free_threaded
