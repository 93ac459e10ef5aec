"""Files of a recording that are cut off or taken away while they are written, and a SIGBUS that is none of ours."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, overlaps, read, traced_environment

CUT_OFF = TARGETS / "hosts" / "cut_off.py"


def traced(
    interpreter: Interpreter, folder: Path, *words: str | Path, depth: int = 0
) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    append_pair(folder)
    env = {**traced_environment(folder), "GILTRACE_STACKS": str(depth)}
    command = [interpreter.path, "-W", "ignore", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("pattern", "size", "options"),
    [
        ("gil-*", 0, ()),
        ("gil-*", 0, ("-X", "faulthandler")),
        ("gil-*", 9000, ()),
        ("stacks-*", 0, ()),
        ("*-*", 0, ("-X", "faulthandler")),
    ],
    ids=["all", "all, faulthandler", "chunks", "stacks", "both, faulthandler"],
)
def test_truncation_costs_what_was_there(
    interpreter: Interpreter, tmp_path: Path, options: tuple[str, ...], pattern: str, size: int
) -> None:
    ran = traced(interpreter, tmp_path, *options, CUT_OFF, tmp_path, "truncate", pattern, str(size), depth=64)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "unharmed\n", "")
    last = read(tmp_path)[-1]
    acquired = np.flatnonzero(last.events["kind"] == layout.Kind.ACQUIRE)
    assert len(acquired) > 3 * 3000 + 1000
    assert overlaps(last.events[acquired[0] :]) == 0
    assert "late" in [thread.name for thread in last.threads]
    if pattern != "stacks-*":
        assert "cut off" in last.note


def test_without_its_folder_it_goes_on(interpreter: Interpreter, tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    ran = traced(interpreter, folder, CUT_OFF, folder, "remove", "", "0", depth=64)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "unharmed\n", "")
    assert not folder.exists()


def test_the_recorder_survives_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "cut.giltrace"
    record = [sys.executable, "-m", "giltrace", "record", "--light", "-o", str(folder), str(CUT_OFF)]
    ran = subprocess.run(
        [*record, str(folder), "truncate", "gil-*", "0"], capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("unharmed\n")
    report = [sys.executable, "-m", "giltrace", "report", str(folder)]
    said = subprocess.run(report, capture_output=True, text=True, timeout=100, check=True)
    assert "cut off" in " ".join(said.stdout.split())


FOREIGN = """
    import ctypes, mmap, os, sys, tempfile
    zero = os.open("/dev/zero", os.O_RDONLY)
    for _ in range(3000): os.read(zero, 1)
    if "late" in sys.argv:
        import faulthandler
        faulthandler.enable()
        for _ in range(3000): os.read(zero, 1)
    with tempfile.TemporaryFile() as file:
        file.truncate(4096)
        memory = mmap.mmap(file.fileno(), 4096)
        file.truncate(0)
        print("now", flush=True)
        memory[0]
"""


@pytest.mark.parametrize("options", [(), ("-X", "faulthandler")], ids=["plain", "faulthandler"])
@pytest.mark.parametrize("words", [(), ("late",)], ids=["", "late"])
def test_a_bus_error_of_the_hosts_own_ends_it_as_ever(
    interpreter: Interpreter, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    ran = traced(interpreter, tmp_path, *options, "-c", textwrap.dedent(FOREIGN), *words)
    assert (ran.returncode, ran.stdout) == (-signal.SIGBUS, "now\n")
    assert ran.stderr.count("Fatal Python error: Bus error") == bool(options or words)
    (process,) = read(tmp_path)
    assert process.note == ""


SENT = """
    import ctypes, os, signal
    assert signal.getsignal(signal.SIGBUS) is signal.SIG_DFL
    zero = os.open("/dev/zero", os.O_RDONLY)
    def use():
        for _ in range(3000): os.read(zero, 1)
    heard = []
    use()
    for number in range(4):
        assert signal.signal(signal.SIGBUS, lambda *_: heard.append(number)) != None
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGBUS)
            use()
        assert heard == [number] * 3, heard
        heard.clear()
    signal.signal(signal.SIGBUS, signal.SIG_IGN)
    use()
    os.kill(os.getpid(), signal.SIGBUS)
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    use()
    print("now", flush=True)
    os.kill(os.getpid(), signal.SIGBUS)
    print("still there")
"""


def test_a_bus_error_that_is_sent_reaches_the_host(interpreter: Interpreter, tmp_path: Path) -> None:
    ran = traced(interpreter, tmp_path, "-c", textwrap.dedent(SENT))
    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGBUS, "now\n", "")


SWITCHED = """
    import ctypes, faulthandler, os
    zero = os.open("/dev/zero", os.O_RDONLY)
    for _ in range(20):
        for _ in range(2000): os.read(zero, 1)
        faulthandler.enable()
        for _ in range(2000): os.read(zero, 1)
        faulthandler.disable()
    print("now", flush=True)
    import mmap, tempfile
    with tempfile.TemporaryFile() as file:
        file.truncate(4096)
        memory = mmap.mmap(file.fileno(), 4096)
        file.truncate(0)
        memory[0]
"""


def test_faulthandler_that_comes_and_goes(interpreter: Interpreter, tmp_path: Path) -> None:
    ran = traced(interpreter, tmp_path, "-c", textwrap.dedent(SWITCHED))
    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGBUS, "now\n", "")
