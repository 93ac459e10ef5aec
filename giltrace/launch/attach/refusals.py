"""Can this process be attached to? Found out before anything is touched; each no has its reason and its remedy."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from giltrace import native
from giltrace.errors import TargetError
from giltrace.launch.attach.heads import is_recorded
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.ptrace import Denied, Gone, read_memory
from giltrace.launch.attach.target import Target
from giltrace.process.capabilities import granted, lacking
from giltrace.process.deputy import Deputy, User
from giltrace.process.folder import Folder

_OLDEST = (3, 8)
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
_ELF64 = 2
#: What root takes to change a process of another user, besides SYS_PTRACE: the capabilities of which one is enough.
_FOR_OTHERS = {"SETUID": (7,), "SETGID": (6,), "DAC_READ_SEARCH": (2, 1)}


def find(pid: int) -> Process:
    """Return the process `pid` if it is one that this user may look into. Raises `TargetError`."""
    process = Process(pid)
    try:
        status = process.status()
    except OSError:
        raise TargetError(f"there is no process {pid}", "find the right one with `ps -ef | grep python`") from None
    if int(status["Tgid"]) != pid:
        raise TargetError(f"{pid} is a thread of process {status['Tgid']}", f"giltrace attach {status['Tgid']}")
    if pid == os.getpid():
        raise TargetError(f"process {pid} is giltrace itself", "in Python, use `with giltrace.trace(...)`")
    if status["State"][0] in "ZX":
        raise TargetError(f"process {pid} has ended and waits for its parent {status['PPid']} to notice (a zombie)")
    owner = int(status["Uid"].split()[1])
    if os.geteuid() not in (0, owner):
        raise TargetError(f"process {pid} belongs to another user (uid {owner})", f"sudo giltrace attach {pid}")
    return process


def check_readable(process: Process) -> None:
    """Raise `TargetError` unless the kernel lets this user read the memory of `process`, and so trace it."""
    pid = process.pid
    try:
        first = next(iter(process.maps()), None)
        if first is None:
            raise TargetError(f"process {pid} is not Python but a part of the kernel")
        read_memory(pid, first.start, 1)
    except (Denied, PermissionError):
        raise TargetError(f"the kernel does not let you trace process {pid}", _denied_remedy(process)) from None
    except Gone:
        raise TargetError(f"process {pid} has ended") from None
    except OSError:
        return  # this mapping cannot be read by anybody


def _denied_remedy(process: Process) -> str:
    pid = process.pid
    try:
        scope = int(_YAMA.read_text())
    except (OSError, ValueError):
        scope = 0
    if scope == 3:
        return (
            "kernel.yama.ptrace_scope is 3, which forbids it to everybody until the next boot: start it with `record`"
        )
    if os.geteuid() == 0:
        # All that is missing, so that nobody has to come again for the rest.
        return granted("SYS_PTRACE", *_lacking_for_others(process))
    if scope == 2:
        return f"kernel.yama.ptrace_scope is 2: it takes root with CAP_SYS_PTRACE: sudo giltrace attach {pid}"
    if scope == 1:
        return f"kernel.yama.ptrace_scope is 1: sudo giltrace attach {pid}, or sudo sysctl kernel.yama.ptrace_scope=0"
    return f"it has more rights than you, or has forbidden it (prctl PR_SET_DUMPABLE): sudo giltrace attach {pid}"


def check_capabilities(process: Process) -> None:
    """Raise `TargetError` if this is root without the capabilities that it takes to work for another user."""
    missing = _lacking_for_others(process)
    if missing:
        owner = process.owner
        raise TargetError(
            f"process {process.pid} belongs to uid {owner}, and root here may not act for another user",
            f"{granted(*missing)}, or run it as uid {owner}",
        )


def _lacking_for_others(process: Process) -> list[str]:
    """What this user, if it is root, lacks for a process of another user's."""
    return lacking(_FOR_OTHERS) if os.geteuid() == 0 and process.owner != 0 else []


def check_exact(process: Process, *, allow_seccomp: bool = False) -> Target:
    """Return what to attach to. Raises `TargetError` if `process` cannot be traced exactly.

    `allow_seccomp` takes one with a seccomp filter: somebody knows that it does not kill for what the tracer does.
    """
    check_machine(process)
    _check_state(process)
    if not allow_seccomp:
        check_filter(process)
    check_readable(process)
    check_capabilities(process)
    try:
        target = Target(process)
        interpreter = target.interpreter
        native.tracer_library(target.library.libc, "x86_64")
    except (Gone, OSError):
        raise TargetError(f"process {process.pid} ended while it was being looked at") from None
    if interpreter.version is not None and interpreter.version < _OLDEST:
        shown = ".".join(map(str, interpreter.version))
        raise TargetError(f"process {process.pid} runs Python {shown}", "giltrace follows CPython 3.8 and newer")
    _check_traced(target)
    return target


def check_filter(process: Process) -> None:
    """Raise `TargetError` for a process under a seccomp filter."""
    if process.status().get("Seccomp") == "2":
        raise TargetError(
            f"process {process.pid} runs under a seccomp filter, which may kill it for what the tracer does",
            f"{_outside(process.pid)}; or add --allow-seccomp if the filter only forbids, as Docker's default does",
        )


def check_followable(process: Process, remedy: str) -> None:
    """Raise `TargetError`, with a `remedy`, if what a tracer writes there cannot be followed from here meanwhile."""
    if not process.shares("pid"):
        raise TargetError(f"process {process.pid} is in a container: its ids are others there", remedy)


def check_machine(process: Process) -> None:
    """Raise `TargetError` for a machine or a kind of program that exact attaching is not made for."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise TargetError(
            f"exact attaching is made for Linux on x86-64, not {sys.platform} {platform.machine()}",
            f"giltrace attach --observe {process.pid}, or start the program with `giltrace record`",
        )
    try:
        with (process.folder / "exe").open("rb") as file:
            head = file.read(5)
    except OSError:
        return
    if len(head) == 5 and head[4] != _ELF64:
        raise TargetError(f"process {process.pid} is a 32-bit program", "use a 64-bit Python")


def _check_state(process: Process) -> None:
    pid, status = process.pid, process.status()
    tracer = int(status["TracerPid"])
    if tracer:
        name = Process(tracer).comm(tracer) if Process(tracer).exists else "a process that is not visible here"
        raise TargetError(f"process {pid} is being traced by {name} (pid {tracer})", "end the debugger first")
    if status["State"][0] == "T":
        raise TargetError(f"process {pid} is stopped by a signal", f"let it go on first: kill -CONT {pid}")
    if status.get("Seccomp") == "1":
        raise TargetError(f"process {pid} is confined by strict seccomp: it may not open a file", _outside(pid))
    if "shstk" in status.get("x86_Thread_features", ""):
        raise TargetError(f"process {pid} runs with a shadow stack, which forbids what attaching does", _outside(pid))


def _outside(pid: int) -> str:
    return f"look at it from outside: giltrace attach --observe {pid}"


@dataclass(frozen=True)
class Trace:
    """A tracer at work in a process: the `folder` it writes to, as seen there, and its `lease_ns`, 0 for no limit.

    `head` is the address of its file's head; `counts` says that it adds up what happens and records nothing.
    """

    folder: str
    lease_ns: int
    head: int
    counts: bool


def active_trace(target: Target) -> Trace | None:
    """Find the tracer that is at work in a process, from the files that it has mapped."""
    # Inside, for numpy takes its time and most of this module does without.
    import numpy as np

    from giltrace.recording import layout
    from giltrace.recording.layout import Status

    for mapping in target.maps:
        folder, _, name = mapping.path.rpartition("/")
        if mapping.offset or not (name.startswith("gil-") and ".bin" in name):
            continue
        try:
            data = read_memory(target.process.pid, mapping.start, layout.HEADER.itemsize)
        except OSError:
            continue
        if len(data) < layout.HEADER.itemsize:
            continue
        head = np.frombuffer(data, layout.HEADER)[0]
        status = Status(int(head["status"]))
        if int(head["magic"]) == layout.MAGIC and Status.HOOKED in status and Status.STOPPED not in status:
            return Trace(folder, int(head["lease_ns"]), mapping.start, _counts(target, folder))
    return None


def _counts(target: Target, folder: str) -> bool:
    """Tell whether a tracer has counts mapped, and nothing of its records but their head."""
    ours = [mapping for mapping in target.maps if mapping.path.startswith(f"{folder}/")]
    records = any(mapping.offset and mapping.path.startswith(f"{folder}/gil-") for mapping in ours)
    return not records and any(mapping.path.startswith(f"{folder}/count-") for mapping in ours)


def _check_traced(target: Target) -> None:
    trace = active_trace(target)
    if trace is None or is_orphan(target.process, trace):
        return
    if trace.counts:
        raise TargetError(
            f"process {target.process.pid} counts already, into {trace.folder}, and only does the one or the other",
            f"{_outside(target.process.pid)}; or start it without GILTRACE_COUNT",
        )
    what = "giltrace attach" if trace.lease_ns else "giltrace record"
    raise TargetError(
        f"process {target.process.pid} is traced already, by `{what}` into {trace.folder}",
        "end that one first, or wait for it",
    )


def is_orphan(process: Process, trace: Trace) -> bool:
    """Tell whether the recorder of an attached tracer is gone, so that nobody will end it before its lease does."""
    if trace.lease_ns == 0:
        return False
    try:
        deputy = Deputy(User.of(process.pid))
    except OSError:
        return True
    try:
        owners = frozenset({deputy.user.uid, os.geteuid()})
        with Folder.root_of(process.pid, deputy, owners).below(trace.folder) as folder:
            return not is_recorded(folder)
    except OSError:
        return True
    finally:
        deputy.close()
