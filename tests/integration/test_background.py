"""Started to ignore Ctrl-C, as `nohup` and a script's `&` start things: what is ignored stays so, SIGTERM ends it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from giltrace.launch.attach.heads import Heads
from giltrace.process.folder import Folder
from giltrace.recording.layout import Status
from tests.attaching import ROOT, Running

GILTRACE = (sys.executable, "-m", "giltrace")
IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)

ASKED = """
from signal import SIG_IGN, SIGHUP, SIGINT, SIGQUIT, getsignal
print([getsignal(number) == SIG_IGN for number in (SIGINT, SIGQUIT, SIGHUP)], flush=True)
input()
"""


def ignore() -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def started(*words: str | Path) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, preexec_fn=ignore
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def signals(pid: int, field: str) -> set[signal.Signals]:
    """Those that process `pid` ignores ("SigIgn") or has handlers for ("SigCgt")."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (int(line.split()[1], 16) for line in lines if line.startswith(f"{field}:"))
    return {number for number in signal.Signals if mask >> (number - 1) & 1}


def under_way(pid: int, folder: Path) -> bool:
    """Whether `pid` records into `folder`, so that it ends in order when it is asked to."""
    if not folder.is_dir():
        return False
    with Folder.own(folder) as files:
        begun = any(head.status & (Status.HOOKED | Status.OBSERVED) for head in Heads(files).look())
    return begun and signal.SIGTERM in signals(pid, "SigCgt")


def test_what_is_recorded_ignores_what_it_would_bare(tmp_path: Path) -> None:
    with started(*GILTRACE, "record", "--light", "-o", tmp_path / "x", "-c", ASKED) as recorder:
        assert recorder.stdout is not None
        assert recorder.stdout.readline() == "[True, True, True]\n"
        recorder.send_signal(signal.SIGINT)
        _, errors = recorder.communicate("\n", timeout=60)
    assert recorder.returncode == 0, errors


def test_a_view_stays_until_it_is_terminated(tmp_path: Path) -> None:
    record: list[str | Path] = [
        *GILTRACE,
        "record",
        "--light",
        "-o",
        tmp_path / "x",
        ROOT / "tests" / "targets" / "contend.py",
    ]
    subprocess.run(record, check=True, capture_output=True, input=b"\n", timeout=60)
    with started(*GILTRACE, "view", "--print-url", tmp_path / "x") as view:
        assert view.stdout is not None
        assert view.stdout.readline().startswith("http://")
        assert signals(view.pid, "SigIgn") >= set(IGNORED)
        view.terminate()
        assert view.wait(60) == 0


@pytest.mark.parametrize("how", [("--light",), ("--observe",)])
def test_attaching_goes_on_until_it_is_terminated(how: tuple[str, ...], tmp_path: Path) -> None:
    with Running(sys.executable, "idle") as target:
        folder = tmp_path / "x.giltrace"
        with started(*GILTRACE, "attach", *how, "-o", folder, str(target.pid)) as attached:
            while not under_way(attached.pid, folder):
                assert attached.poll() is None
                time.sleep(0.005)
            assert signals(attached.pid, "SigIgn") >= set(IGNORED)
            attached.terminate()
            _, said = attached.communicate(timeout=60)
            assert attached.returncode == 0, said
        assert target.answers()


def test_the_tests_can_be_run_in_the_background() -> None:
    chosen = "tests/integration/attach/test_attach.py::test_interrupt_ends_the_recording_and_not_the_program"
    with started(sys.executable, "-m", "pytest", "-q", chosen) as tests:
        said, _ = tests.communicate(timeout=110)
    assert tests.returncode == 0, said
    assert "1 passed" in said
