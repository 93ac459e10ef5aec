"""An independent count of GIL events: kernel uprobes on the interpreter's own take_gil and drop_gil.

It is checked before it is believed: a compiler may have inlined either function where most calls are, and debug
information then names what is left of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interpreters import Interpreter

SYMBOLS = ("take_gil", "drop_gil")

#: Releases of the program that the probes are tried on; beginning and ending take far fewer.
_STEPS = 1000


@dataclass(frozen=True)
class Probes:
    """Probes in place under the perf event group `group`."""

    group: str

    def count(self, command: list[str], env: dict[str, str]) -> tuple[int, int]:
        """Run `command` and return how often it entered take_gil and drop_gil."""
        words = [f"{name}={value}" for name, value in env.items()]
        # `env` sets the variables below perf: perf itself has an interpreter inside that must not be traced.
        events = [word for symbol in SYMBOLS for word in ("-e", f"{self.group}:{symbol}")]
        counted = ["perf", "stat", "-x;", *events, "--", "env", *words, *command]
        ran = subprocess.run(counted, capture_output=True, text=True, check=True, timeout=100)
        found = self._read(ran.stderr)
        return found["take_gil"], found["drop_gil"]

    @contextlib.contextmanager
    def counting(self, pid: int) -> Iterator[dict[str, int]]:
        """Count in process `pid` during the block; the counts are there after it."""
        events = [word for symbol in SYMBOLS for word in ("-e", f"{self.group}:{symbol}")]
        control, answer = os.pipe(), os.pipe()
        descriptors = f"fd:{control[0]},{answer[1]}"
        words = ["perf", "stat", "-x;", *events, "-p", str(pid), "--delay", "-1", "--control", descriptors]
        counts: dict[str, int] = {}
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, pass_fds=(control[0], answer[1])) as perf:
            os.close(control[0])
            os.close(answer[1])
            os.write(control[1], b"enable\n")
            assert os.read(answer[0], 16).startswith(b"ack")
            try:
                yield counts
            finally:
                perf.send_signal(signal.SIGINT)
                counts.update(self._read(perf.communicate(timeout=60)[1]))
                os.close(control[1])
                os.close(answer[0])

    def _read(self, output: str) -> dict[str, int]:
        found = dict.fromkeys(SYMBOLS, 0)
        for line in output.splitlines():
            for symbol in SYMBOLS:
                if f"{self.group}:{symbol}" in line:
                    found[symbol] += int(line.split(";")[0])
        return found


def binary(interpreter: Interpreter) -> Path:
    """The file that holds the interpreter's code."""
    if not interpreter.shared:
        return interpreter.path
    major, minor, _ = interpreter.version
    folder = interpreter.path.parent.parent / "lib"
    return next(folder.glob(f"libpython{major}.{minor}*.so.1.0"))


@contextlib.contextmanager
def placed(interpreter: Interpreter) -> Iterator[Probes]:
    """Place the probes for the time of the block; the test is skipped where they do not count each call."""
    group = f"giltrace_test_{os.getpid()}"
    try:
        for symbol in SYMBOLS:
            add = ["perf", "probe", "-q", "-x", str(binary(interpreter)), f"{group}:{symbol}={symbol}"]
            if subprocess.run(add, capture_output=True, timeout=100, check=False).returncode != 0:
                pytest.skip(f"{interpreter.path} has no symbols for take_gil and drop_gil")
        probes = Probes(group)
        if not _count_truly(probes, interpreter):
            pytest.skip(f"{interpreter.path} has take_gil or drop_gil partly inlined: probes see few of its calls")
        yield probes
    finally:
        subprocess.run(["perf", "probe", "-q", "-d", f"{group}:*"], capture_output=True, timeout=100, check=False)


def _count_truly(probes: Probes, interpreter: Interpreter) -> bool:
    """Whether they see a single thread give the GIL up and take it back as often as it is known to do."""
    program = f"import time\nfor _ in range({_STEPS}): time.sleep(0)"
    counts = probes.count([str(interpreter.path), "-I", "-S", "-c", program], {})
    return all(_STEPS <= count < 2 * _STEPS for count in counts)
