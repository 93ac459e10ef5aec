"""What takes long says so on a terminal, and leaves nothing of that behind."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from giltrace.cli import progress
from giltrace.cli.progress import say, working
from traces.regenerate import unpack

ROOT = Path(__file__).resolve().parents[2]
CLEARED = b"\r\x1b[K"
#: A command line that shows its progress from the first moment on.
AT_ONCE = """
import sys
from giltrace.cli import progress
from giltrace.cli.app import main
progress._SILENT_SECONDS = float(sys.argv.pop(1))
progress._EVERY_SECONDS = 0.001
main()
"""


class Screen:
    """A terminal: what is written to `slave` is seen by `seen` and `wait_for`."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        os.set_blocking(self.master, False)
        self._text = b""

    def wait_for(self, part: bytes) -> None:
        while part not in self._text:
            select.select([self.master], [], [])
            self._text += os.read(self.master, 4096)

    def seen(self) -> bytes:
        """All that was written up to now."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._text += os.read(self.master, 4096)
        return self._text


@contextlib.contextmanager
def stderr_on_a_screen() -> Iterator[Screen]:
    screen = Screen()
    # In the test itself: pytest's own takes the place of what a fixture puts there.
    with os.fdopen(screen.slave, "w") as stderr, contextlib.redirect_stderr(stderr):
        yield screen
    os.close(screen.master)


def on_a_terminal(command: list[str], folder: Path, **env: str) -> tuple[int, bytes, bytes]:
    """The status, stdout and what a terminal on stderr shows of a command."""
    master, slave = pty.openpty()
    with (folder / "stdout").open("w+b") as stdout:
        with subprocess.Popen(command, cwd=folder, env=env, stdout=stdout, stderr=slave) as process:
            os.close(slave)
            shown = b""
            with contextlib.suppress(OSError):  # as the system tells the end
                while more := os.read(master, 4096):
                    shown += more
        os.close(master)
        stdout.seek(0)
        return process.returncode, stdout.read(), shown


def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SILENT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0.001)


def test_the_innermost_is_told_and_all_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch)
    monkeypatch.setenv("COLUMNS", "40")
    with stderr_on_a_screen() as screen:
        with working("outer"):
            screen.wait_for(b"\rgiltrace: outer  0 s\x1b[K")
            with working("in\x1bner"):
                screen.wait_for(b"\rgiltrace: in\\x1bner  0 s\x1b[K")
                say("a line")
                screen.wait_for(b"\x1b[Ka line\r\n")
            with working("x" * 100):
                screen.wait_for("…  0 s\x1b[K".encode())
        shown = screen.seen()
    assert shown.endswith(CLEARED)
    assert all(len(line.decode()) < 48 for line in shown.split(b"\r"))


def test_an_error_clears_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch)
    with stderr_on_a_screen() as screen:
        with contextlib.suppress(KeyboardInterrupt), working("failing"):
            screen.wait_for(b"failing")
            raise KeyboardInterrupt
        assert screen.seen().endswith(CLEARED)
    assert progress._doing == []


def test_what_is_short_says_nothing() -> None:
    with stderr_on_a_screen() as screen:
        with working("something"):
            pass
        assert screen.seen() == b""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for name in ("convoy", "hog"):
        unpack(name, folder)
    return folder


COMMANDS = {
    "report": ["report", "convoy"],
    "report --html": ["report", "convoy", "--html", "page.html", "-f"],
    "export": ["export", "convoy", "--to", "chrome", "-f"],
    "compare": ["compare", "convoy", "hog"],
    "check": ["check", "convoy", "hog", "--max-lost", "0"],
    "query": ["query", "convoy", "select count(*) from gil_waits"],
    "record": ["record", "--light", "-f", "-c", "pass"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_tell_how_it_goes(name: str, folder: Path) -> None:
    command = [sys.executable, "-c", AT_ONCE, "0", *COMMANDS[name]]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    status, stdout, shown = on_a_terminal(command, folder, **env)
    assert status == 0, shown
    assert b"\x1b" not in stdout
    *told, last = shown.rpartition(CLEARED)
    assert b" s\x1b[K" in b"".join(told)
    assert b" s\x1b[K" not in last


@pytest.mark.parametrize("name", COMMANDS)
def test_nobody_else_is_told(name: str, folder: Path) -> None:
    command = [sys.executable, "-c", AT_ONCE, "0", *COMMANDS[name]]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=100, check=True)
    assert b"\x1b" not in done.stderr + done.stdout
    assert b" s\r" not in done.stderr
