"""Blocks: each sleep in a lock of the interpreter's is on record, with who ended it, and both lines."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from giltrace.timeline.load import load
from giltrace.timeline.model import Timeline
from tests import blocks
from tests.attaching import Running, is_at_work
from tests.interpreters import Interpreter

GILTRACE = (sys.executable, "-m", "giltrace")


def ran(*command: str | Path) -> list[blocks.Entry]:
    """Let the target, which `command` starts, block, and return what it says of that."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input="\n\n", capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    ready, told = done.stdout.splitlines()
    assert ready == "ready"
    return blocks.entries_of(told)


def recorded(interpreter: Interpreter, folder: Path, *options: str) -> tuple[list[blocks.Entry], Timeline]:
    command = [*GILTRACE, "record", *options, "-o", str(folder), "--python", str(interpreter.path), str(blocks.TARGET)]
    return ran(*command), load(folder)


def check(timeline: Timeline, entries: Sequence[blocks.Entry]) -> None:
    assert not timeline.violations
    (process,) = timeline.processes
    assert process.lost == 0
    blocks.check(process, entries, timeline.clock_error_ns)


def test_each_block_is_on_record(any_interpreter: Interpreter, tmp_path: Path) -> None:
    entries, timeline = recorded(any_interpreter, tmp_path / "x.giltrace", "--light")
    check(timeline, entries)


def test_each_block_is_in_a_ring(any_interpreter: Interpreter, tmp_path: Path) -> None:
    entries, timeline = recorded(any_interpreter, tmp_path / "x.giltrace", "--light", "--ring", "1MiB")
    check(timeline, entries)


def test_each_block_is_seen_by_who_attaches(any_interpreter: Interpreter, tmp_path: Path) -> None:
    folder = tmp_path / "x.giltrace"
    with Running(any_interpreter.path, "", target=blocks.TARGET) as target:
        command = [*GILTRACE, "attach", str(target.pid), "--light", "-o", str(folder)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as attached:
            while not is_at_work(folder):
                assert attached.poll() is None
                time.sleep(0.005)
            target.go_on()
            entries = blocks.entries_of(target.line())
            attached.send_signal(signal.SIGINT)
            _, told = attached.communicate(timeout=60)
        assert attached.returncode == 0, told
    check(load(folder), entries)


def test_each_block_is_seen_from_within(tmp_path: Path) -> None:
    folder = tmp_path / "x.giltrace"
    entries = ran(sys.executable, blocks.TARGET, "trace", folder)
    check(load(folder), entries)
