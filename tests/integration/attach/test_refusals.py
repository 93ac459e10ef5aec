"""What cannot be attached to is told so, each with its own reason, before anything is touched."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from giltrace.errors import TargetError
from giltrace.launch.attach.checkup import check_up
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.ptrace import Thread
from giltrace.launch.attach.session import attach
from giltrace.timeline.load import load
from tests.attaching import ROOT, Running
from tests.interpreters import Interpreter
from tests.tracing import traced_environment


def refusal(pid: int, folder: Path) -> str:
    with pytest.raises(TargetError) as refused:
        attach(pid, folder / "refused.giltrace", [], depth=0, seconds=0.01)
    assert not (folder / "refused.giltrace").exists()
    return refused.value.message


@contextlib.contextmanager
def running(*words: str | Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program that says "ready", until the end of the block."""
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_what_is_no_python_process(tmp_path: Path) -> None:
    assert refusal(2**22 + 1, tmp_path) == f"there is no process {2**22 + 1}"
    assert refusal(os.getpid(), tmp_path) == f"process {os.getpid()} is giltrace itself"
    with running("sh", "-c", "echo ready; read line") as shell:
        assert refusal(shell.pid, tmp_path) == f"process {shell.pid} is not Python"
        _, findings = check_up(shell.pid)
        told = {finding.name: finding.problem or "" for finding in findings}
        assert [name for name in ("exact", "observe", "py-spy") if "is not Python" not in told[name]] == []


def test_thread(tmp_path: Path) -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        assert refusal(thread.native_id or 0, tmp_path) == f"{thread.native_id} is a thread of process {os.getpid()}"
    finally:
        ended.set()
        thread.join()


def test_zombie(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert "zombie" in refusal(process.pid, tmp_path)
    process.wait(timeout=60)


def test_stopped_or_under_a_debugger(tmp_path: Path) -> None:
    with Running(sys.executable, "idle") as target:
        thread = Thread(target.pid)
        assert "is being traced by" in refusal(target.pid, tmp_path)
        thread.detach()
        os.kill(target.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, target.pid, os.WSTOPPED)
        assert "is stopped by a signal" in refusal(target.pid, tmp_path)
        os.kill(target.pid, signal.SIGCONT)
        assert target.answers()


ALLOWS_ALL = """
import ctypes, struct, time
libc = ctypes.CDLL(None)
program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))  # return SECCOMP_RET_ALLOW
filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 1, ctypes.addressof(program)))
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, filter_) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
print("ready", flush=True)
while True:
    time.sleep(0.001)
"""


def test_under_a_seccomp_filter_only_if_somebody_says_so(tmp_path: Path) -> None:
    with running(sys.executable, "-c", ALLOWS_ALL) as process:
        assert "runs under a seccomp filter" in refusal(process.pid, tmp_path)
        attach(process.pid, tmp_path / "x.giltrace", [], depth=8, seconds=0.2, allow_seccomp=True)
        assert process.poll() is None
    (recorded,) = load(tmp_path / "x.giltrace").processes
    assert len(recorded.holds) > 10


def test_traced_already(tmp_path: Path) -> None:
    code = "import time; print('ready', flush=True); time.sleep(100)"
    with running(sys.executable, "-c", code, env=traced_environment(tmp_path)) as process:
        assert refusal(process.pid, tmp_path) == (
            f"process {process.pid} is traced already, by `giltrace record` into {tmp_path}"
        )


def test_any_build_can_be_attached_to(any_interpreter: Interpreter) -> None:
    """Free-threaded ones too: they have locks."""
    with Running(any_interpreter.path, "idle") as target:
        _, findings = check_up(target.pid)
        assert {finding.name: finding.problem for finding in findings}["exact"] is None
        assert Process(target.pid).status()["TracerPid"] == "0"
        assert target.answers()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_another_users_process() -> None:
    # Another user could not read our files: only what giltrace asks of the process is run as one.
    program = """
import os, sys
from giltrace.errors import TargetError
from giltrace.launch.attach import refusals
os.seteuid(65534)
try:
    refusals.find(int(sys.argv[1]))
except TargetError as error:
    print(error.message, "|", error.remedy)
"""
    with Running(sys.executable, "idle") as target:
        ran = subprocess.run(
            [sys.executable, "-c", program, str(target.pid)], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert ran.stdout == (
            f"process {target.pid} belongs to another user (uid 0) | sudo giltrace attach {target.pid}\n"
        )
