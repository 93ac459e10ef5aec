"""The processes below the test run: which there are, what they hang on, and how to end them."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sysconfig
from pathlib import Path

from giltrace.process.stat import stat_fields

#: Helpers that the standard library keeps for the whole run.
_KEPT = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def heed_interrupts() -> None:
    """Take SIGINT, SIGQUIT and SIGHUP as usual, in what is started from here, and all but the last here, too.

    A shell without job control starts what is to run in the background with both ignored, and Python leaves it so.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # under nohup; what is executed does not inherit a handler


def descendants(root: int, known: frozenset[int] = frozenset()) -> list[int]:
    """Return the living processes below `root`, parents first; `known` ones and those below them are not."""
    found: list[int] = []
    queue = [root]
    while queue:
        children = " ".join(_read(task / "children") for task in _tasks(queue.pop(0))).split()
        below = [pid for pid in map(int, children) if pid not in known and _lives(pid) and not _is_kept(pid)]
        found += below
        queue += below
    return found


def _tasks(pid: int) -> list[Path]:
    """The folders of a process's threads; none once it is gone, which may be while this looks."""
    folder = Path(f"/proc/{pid}/task")
    try:
        return sorted(folder / name for name in os.listdir(folder))
    except OSError:
        return []


def end(pids: list[int], grace: float) -> list[str]:
    """Give each of `pids` `grace` seconds to end by itself, kill those that do not, and return their command lines."""
    late: list[str] = []
    for pid in pids:
        command = command_line(pid)
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            waiter = select.poll()
            waiter.register(handle, select.POLLIN)
            if not waiter.poll(grace * 1000):
                late.append(f"{pid}: {command}")
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                waiter.poll()
        finally:
            os.close(handle)
    return late


def command_line(pid: int) -> str:
    """Return the command line of `pid`, or "?" if it has ended."""
    text = _read(Path(f"/proc/{pid}/cmdline"))
    return text.replace("\0", " ").strip() or "?"


def describe(pid: int) -> str:
    """Return what each thread of `pid` does: its Python stack where py-spy can read it, else what the kernel says."""
    lines = [f"--- process {pid}: {command_line(pid)}"]
    for task in _tasks(pid):
        state = next((li for li in _read(task / "status").splitlines() if li.startswith("State:")), "State: ?")
        lines.append(
            f"    thread {task.name} ({_read(task / 'comm').strip()}) {state.partition(':')[2].strip()}"
            f" wchan={_read(task / 'wchan') or '?'} syscall={_read(task / 'syscall').strip() or '?'}"
        )
        lines += [f"        {frame}" for frame in _read(task / "stack").splitlines()]
    lines.append(_python_stacks(pid))
    return "\n".join(lines)


def _python_stacks(pid: int) -> str:
    beside = Path(sysconfig.get_path("scripts"), "py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None or "python" not in _read(Path(f"/proc/{pid}/maps")):
        return ""
    try:
        dump = subprocess.run(
            [program, "dump", "--nonblocking", "-p", str(pid)], capture_output=True, text=True, timeout=10
        )
    except subprocess.TimeoutExpired:
        return "    py-spy gave no answer"
    return dump.stdout or dump.stderr


def _lives(pid: int) -> bool:
    try:
        return stat_fields(pid)[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False


def _is_kept(pid: int) -> bool:
    return any(word in command_line(pid) for word in _KEPT)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
