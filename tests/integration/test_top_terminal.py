"""`giltrace top` in a real terminal: keys, sizes, and what it leaves behind however it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from giltrace.recording import layout
from giltrace.timeline.load import load
from tests.terminal import Terminal
from tests.tracing import TARGETS, recorded

pytestmark = pytest.mark.needs("tmux")

GILTRACE = [sys.executable, "-m", "giltrace"]
ENDLESS = """
import threading
def count():
    while True: sum(range(500))
for number in range(2):
    threading.Thread(target=count, daemon=True, name='count-%d' % number).start()
print('hello from the command', flush=True)
threading.Event().wait()
"""


def top(folder: Path, *words: str, columns: int = 80, rows: int = 24, **changes: str) -> Terminal:
    command = [*GILTRACE, "top", "--interval", "200ms", *(words or ("-c", ENDLESS))]
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    return Terminal(command, folder, columns, rows, PYTHONPATH=paths, **changes)


def test_keys_in_80x24(tmp_path: Path) -> None:
    with top(tmp_path) as terminal:
        shown = terminal.wait_for(r"count-1 +\w+ +\d")
        assert len(shown.split("\n")) == 24
        assert "q quit" in shown.split("\n")[-1]
        assert "count (<string>:4)" in terminal.wait_for(r"ms +count \(<string>:4\)")
        terminal.press("s")
        terminal.wait_for(r"HELD +waiting")
        terminal.press("w")
        terminal.wait_for(r"WORST|HELD")
        terminal.press("f")
        terminal.wait_for("FROZEN")
        terminal.press("Space")
        terminal.wait_without("FROZEN")
        terminal.press("h")
        terminal.wait_for("Ctrl-C +quit")
        terminal.press("x")
        terminal.press("Down", "Up")
        terminal.wait_for(r"\n>(count-\d|MainThread)")
        terminal.press("Enter")
        assert re.match(r"thread \S+  tid \d+", terminal.wait_for("newest stack"))
        terminal.press("Escape")
        terminal.wait_for("culprit: held the GIL meanwhile")
        terminal.press("q")
        assert terminal.status() == 0, terminal.errors()
        assert terminal.is_as_before()
    assert "hello from the command" in terminal.errors()


def test_roles_share_rows_and_what_is_typed_is_found(tmp_path: Path) -> None:
    code = ENDLESS.replace("range(2)", "range(16)").replace("count-%d", "pool_%d")
    with top(tmp_path, "-c", code, columns=90) as terminal:
        terminal.wait_for(r"pool_\* \(16\) +\w+ +\d")
        terminal.press("t")
        terminal.wait_for(r"pool_1\d +\w+ +\d")
        terminal.press("/")
        terminal.wait_for(r"\n/_")
        terminal.press("p", "o", "q", "BSpace", "o", "l", "_", "1", "5")
        terminal.wait_for(r"\n/pool_15_")
        terminal.press("Enter")
        shown = terminal.wait_for(r"^.* /pool_15")
        assert re.findall(r"\n.(pool_\d+|MainThread)", shown) == ["pool_15"]
        terminal.press("Escape")
        terminal.press("t")
        terminal.wait_for(r"pool_\* \(16\)")
        terminal.press("Down", "Up", "Enter")
        shown = terminal.wait_for(r"^.* pool_\* only")
        assert "MainThread" not in shown
        terminal.press("Escape")
        terminal.wait_for(r"pool_\* \(16\)")
        terminal.press("q")
        assert terminal.status() == 0, terminal.errors()


def test_help_in_60_columns_is_read_to_its_end(tmp_path: Path) -> None:
    with top(tmp_path, columns=60) as terminal:
        terminal.wait_for(r"count-1 +\w+ +\d")
        terminal.press("h")
        terminal.wait_for("any key goes on")
        terminal.press("x")
        assert "q, Ctrl-C  quit" in terminal.wait_for("any key goes back")
        terminal.press("x")
        terminal.wait_for("culprit: held the GIL meanwhile")
        terminal.press("q")
        assert terminal.status() == 0, terminal.errors()


def test_starts_and_stops_a_recording(tmp_path: Path) -> None:
    with top(tmp_path) as terminal:
        terminal.wait_for(r"count-1 +\w+ +\d")
        terminal.press("r")
        terminal.wait_for(r"REC command-top\.giltrace")
        held = tmp_path / "command-top.giltrace"
        terminal.wait_for(r"count-0 +\w+ +\d")
        while not any(path.stat().st_size > layout.HEADER_SIZE for path in held.glob("gil-*.bin")):
            terminal.wait_for("REC")
        terminal.press("r")
        terminal.wait_for(r"kept as command-top\.giltrace")
        terminal.press("r")
        terminal.wait_for(r"REC command-top-2\.giltrace")
        terminal.press("q")
        assert terminal.status() == 0, terminal.errors()
        assert "recording command-top-2.giltrace" in "\n".join(terminal.lines())
    (process,) = load(held).processes
    assert {"count-0", "count-1"} <= {thread.name for thread in process.threads}
    assert len(process.holds) > 0
    assert load(tmp_path / "command-top-2.giltrace").violations == ()


def test_adapts_to_the_size(tmp_path: Path) -> None:
    with top(tmp_path) as terminal:
        terminal.wait_for(r"count-1 +\w+ +\d")
        for columns, rows in ((120, 40), (60, 15), (80, 24)):
            terminal.resize(columns, rows)
            terminal.wait_for(rf"^(.*\n){{{rows - 1}}}q quit")
        terminal.press("q")
        assert terminal.status() == 0, terminal.errors()
        assert terminal.is_as_before()


ENDS = {"SIGTERM": 143, "SIGHUP": 129, "SIGQUIT": 131, "SIGINT": 0}


@pytest.mark.parametrize("name", ENDS)
def test_a_signal_ends_it_and_the_terminal_is_put_back(name: str, tmp_path: Path) -> None:
    with top(tmp_path) as terminal:
        terminal.wait_for(r"count-1 +\w+ +\d")
        os.kill(terminal.program(), signal.Signals[name])
        assert terminal.status() == ENDS[name], terminal.errors()
        assert terminal.is_as_before()


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    with top(tmp_path) as terminal:
        terminal.wait_for(r"count-1 +\w+ +\d")
        terminal.press("C-c")
        assert terminal.status() == 0, terminal.errors()
        assert terminal.is_as_before()
    assert "Traceback" not in terminal.errors()


def test_an_error_puts_the_terminal_back_first(tmp_path: Path) -> None:
    with recorded(TARGETS / "contend.py", tmp_path / "x.giltrace") as pid:
        with top(tmp_path, str(pid)) as terminal:
            terminal.wait_for(r"count-1 +\w+ +\d")
            (tmp_path / "x.giltrace").rename(tmp_path / "y.giltrace")
            assert terminal.status() == 2
            assert terminal.is_as_before()
            assert re.search("error: .*x.giltrace", terminal.errors())
        (tmp_path / "y.giltrace").rename(tmp_path / "x.giltrace")


def test_goes_on_after_the_command_has_ended(tmp_path: Path) -> None:
    with top(tmp_path, str(TARGETS / "contend.py")) as terminal:
        shown = terminal.wait_for(r"the command has ended with status 0; q quits(.*\n)+.* ended ")
        assert not re.search(r" (holding|waiting|off) +\d", shown)
        terminal.press("q")
        assert terminal.status() == 0, terminal.errors()


@pytest.mark.parametrize("colour", [True, False])
def test_colours_only_where_they_are_wanted(colour: bool, tmp_path: Path) -> None:
    with top(tmp_path, NO_COLOR="" if colour else "1") as terminal:
        terminal.wait_for(r"count-1 +\w+ +\d")
        styled = "\n".join(terminal.lines(styles=True))
        assert bool(re.search(r"\x1b\[(\d+;)*3[1-7]m", styled)) == colour
        terminal.press("q")
        assert terminal.status() == 0, terminal.errors()


def test_stops_and_goes_on_with_the_shell_s_job_control(tmp_path: Path) -> None:
    with top(tmp_path) as terminal:
        terminal.wait_for(r"count-1 +\w+ +\d")
        program = terminal.program()
        os.kill(program, signal.SIGTSTP)
        terminal.wait_without("q quit")
        os.kill(program, signal.SIGCONT)
        terminal.wait_for("q quit")
        terminal.press("q")
        assert terminal.status() == 0, terminal.errors()
        assert terminal.is_as_before()


def test_without_a_terminal_it_says_what_to_use(tmp_path: Path) -> None:
    assert shutil.which("tmux")
    ran = subprocess.run(
        [*GILTRACE, "top", "-c", ENDLESS], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 2
    assert "needs a terminal" in ran.stderr
    assert "--once" in ran.stderr
