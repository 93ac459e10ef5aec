"""Room that cannot be had: lost events are counted, the host does not notice, and what passes is not for ever."""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from giltrace.recording.events import ProcessEvents
from tests.interpreters import Interpreter
from tests.tracing import overlaps, read, traced_environment

DEPTH = "0"

USE = """
    import os, resource, signal, sys, threading, time
    zero = os.open("/dev/zero", os.O_RDONLY)
    def use(times):
        for _ in range(times): os.read(zero, 1)
"""


def run(interpreter: Interpreter, program: str, folder: Path, *words: str | Path) -> str:
    append_pair(folder)
    source = textwrap.dedent(USE) + textwrap.dedent(program)
    ran = subprocess.run(
        [interpreter.path, "-c", source, *words],
        env={**traced_environment(folder), "GILTRACE_STACKS": DEPTH},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def turns(process: ProcessEvents) -> int:
    return int(np.isin(process.events["kind"], (layout.Kind.ACQUIRE, layout.Kind.RELEASE)).sum())


def test_a_size_limit_that_is_set_and_lifted(interpreter: Interpreter, tmp_path: Path) -> None:
    program = """
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        use(3000)
        for limit in (0, 4096, 20000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            use(100000)
            threads = [threading.Thread(target=use, args=(100,)) for _ in range(3)]
            for t in threads: t.start()
            for t in threads: t.join()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        use(200000)
        print(time.monotonic_ns())
        use(5000)
    """
    late = int(run(interpreter, program, tmp_path))
    (process,) = read(tmp_path)
    assert process.lost > 100000
    assert process.lost + turns(process) > 2 * 508000
    events = process.events[process.events["time"] >= late]
    assert np.count_nonzero(events["kind"] == layout.Kind.ACQUIRE) >= 5000
    assert overlaps(events[int(events["kind"][0] == layout.Kind.RELEASE) :]) == 0


def test_a_size_limit_that_keeps_changing_raises_no_signal(interpreter: Interpreter, tmp_path: Path) -> None:
    """Between the look at the limit and the growth of the file lies a moment, in which another thread changes it."""
    program = """
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        ended = False
        def change():
            while not ended:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        changer = threading.Thread(target=change)
        changer.start()
        for _ in range(15):
            threads = [threading.Thread(target=use, args=(20,)) for _ in range(8)]
            for t in threads: t.start()
            for t in threads: t.join()
        ended = True
        changer.join()
        assert not signal.sigpending()
        print("unharmed")
    """
    assert run(interpreter, program, tmp_path) == "unharmed\n"


@pytest.mark.parametrize("blocked", ["blocked", "open"])
def test_a_signal_that_was_pending_stays_so(interpreter: Interpreter, tmp_path: Path, blocked: str) -> None:
    program = """
        heard = []
        signal.signal(signal.SIGXFSZ, lambda *_: heard.append(1))
        if sys.argv[1] == "blocked":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGXFSZ])
        signal.pthread_kill(threading.get_ident(), signal.SIGXFSZ)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        use(20000)
        print(len(heard), signal.SIGXFSZ in signal.sigpending())
    """
    out = run(interpreter, program, tmp_path, blocked)
    assert out == ("0 True\n" if blocked == "blocked" else "1 False\n")


def test_descriptors_that_come_back(interpreter: Interpreter, tmp_path: Path) -> None:
    program = """
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        use(1000)
        taken = []
        try:
            while True: taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError: pass
        use(50000)
        for each in taken: os.close(each)
        use(70000)
        print(time.monotonic_ns())
        use(5000)
    """
    late = int(run(interpreter, program, tmp_path))
    (process,) = read(tmp_path)
    assert 0 < process.lost < 2 * 120000
    assert process.lost + turns(process) > 2 * 126000
    events = process.events[process.events["time"] >= late]
    assert np.count_nonzero(events["kind"] == layout.Kind.ACQUIRE) >= 5000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a small file system here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_disk_that_is_full_for_a_while(interpreter: Interpreter, tmp_path: Path, small_disk: Path) -> None:
    program = """
        use(1000)
        name = os.path.join(sys.argv[1], "big")
        with open(name, "wb", 0) as big:
            try:
                while True: big.write(bytes(4096))
            except OSError: pass
        use(40000)
        os.remove(name)
        use(70000)
        print(time.monotonic_ns())
        use(2000)
    """
    late = int(run(interpreter, program, small_disk, small_disk))
    (process,) = read(small_disk)
    assert process.lost > 0
    assert process.lost + turns(process) > 2 * 113000
    events = process.events[process.events["time"] >= late]
    assert np.count_nonzero(events["kind"] == layout.Kind.ACQUIRE) >= 2000
