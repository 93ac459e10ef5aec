"""Is this thread at a moment at which it can be made to start another?

pthread_create takes locks of libc: malloc's above all. It must not be called in a thread that stands inside one, for it
would wait for itself. Two kinds of moments are safe:

* the thread sleeps in a system call that neither of them makes while it holds a lock; or
* it runs the interpreter's own code, which neither of them calls, and not in the handler of a signal.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from giltrace.launch.attach.process import Blocked
from giltrace.launch.attach.ptrace import Gone, Registers, read_memory
from giltrace.launch.attach.target import Target

#: What calls need at most: dlopen, in our own thread, reads whole pages onto the stack, and binds a library's symbols.
STACK_NEEDED = 64 << 10
#: Of that, what is written at once and therefore has to be there; a main thread's stack grows for the rest.
_WRITTEN = 20 << 10
_PAGE = 4096

_SYSCALL_CODE = b"\x0f\x05"
_USER_CODE_SEGMENT = 0x33

_INFINITE = (1 << 32) - 1
_EINTR, _ERESTARTSYS, _ERESTARTNOINTR, _ERESTARTNOHAND, _ERESTART_RESTARTBLOCK = -errno.EINTR, -512, -513, -514, -516


class Kind(IntEnum):
    """How good a moment is, best first."""

    RESTARTS = 0  #: in a system call that goes on as if nothing had been
    RUNS = 1  #: in the interpreter's code
    INTERRUPTED = 2  #: in a system call that will return EINTR, after which Python asks again


@dataclass(frozen=True)
class Moment:
    """A safe moment of a stopped thread. `registers` are those to go on with; `restarts` an interrupted system call."""

    kind: Kind
    registers: Registers
    restarts: bool


@dataclass(frozen=True)
class _Call:
    """A system call that a thread may be used in: `safe` of its arguments, and whether it `restarts` unharmed."""

    safe: Callable[[Target, tuple[int, ...]], bool] = lambda target, arguments: True
    restarts: Callable[[tuple[int, ...]], bool] = lambda arguments: True


def _waits_with_bitset(target: Target, arguments: tuple[int, ...]) -> bool:
    """Conditions and semaphores wait like this; the locks of malloc and of the loader by plain FUTEX_WAIT."""
    return arguments[1] & 0x7F == 9


def _is_stream(target: Target, arguments: tuple[int, ...]) -> bool:
    """A socket, pipe, eventfd or terminal: from a file it might be the loader that reads a library."""
    try:
        link = (target.process.folder / "fd" / str(arguments[0] & 0xFFFFFFFF)).readlink()
    except OSError:
        return False
    name = str(link)
    return name.startswith(("socket:", "pipe:", "anon_inode:[eventfd", "/dev/pts/", "/dev/tty", "/dev/ptmx"))


def _always(arguments: tuple[int, ...]) -> bool:
    return True


def _never(arguments: tuple[int, ...]) -> bool:
    return False


#: By number, on x86-64.
_CALLS: dict[int, _Call] = {
    0: _Call(safe=_is_stream),  # read
    1: _Call(safe=_is_stream),  # write
    7: _Call(restarts=lambda a: a[2] & _INFINITE == _INFINITE),  # poll
    19: _Call(safe=_is_stream),  # readv
    20: _Call(safe=_is_stream),  # writev
    23: _Call(),  # select
    34: _Call(),  # pause
    35: _Call(restarts=_never),  # nanosleep
    42: _Call(),  # connect
    43: _Call(),  # accept
    44: _Call(),  # sendto
    45: _Call(),  # recvfrom
    46: _Call(),  # sendmsg
    47: _Call(),  # recvmsg
    61: _Call(),  # wait4
    128: _Call(restarts=_never),  # rt_sigtimedwait
    202: _Call(safe=_waits_with_bitset),  # futex
    230: _Call(restarts=lambda a: a[1] & 1 == 1),  # clock_nanosleep, until a point in time
    232: _Call(restarts=lambda a: a[3] & _INFINITE == _INFINITE),  # epoll_wait
    247: _Call(),  # waitid
    270: _Call(),  # pselect6
    271: _Call(),  # ppoll
    281: _Call(restarts=lambda a: a[3] & _INFINITE == _INFINITE),  # epoll_pwait
    288: _Call(),  # accept4
    441: _Call(restarts=lambda a: a[3] == 0),  # epoll_pwait2
}

#: Calls that a handler makes, too: Python's own tells the descriptor of `signal.set_wakeup_fd`.
_FROM_HANDLERS = (1, 20, 44, 46)

#: These return EINTR to everybody, also where nobody has a handler. Without a time limit nothing is lost by another go.
_EPOLL = (232, 281, 441)


def expected(target: Target, tid: int) -> Kind | None:
    """Return what moment a thread is at as seen from outside, None if at none that is safe. Raises OSError."""
    process = target.process
    blocked = process.blocked(tid)
    if blocked == "running":
        return Kind.RUNS if _may_run(target) else None
    if not isinstance(blocked, Blocked) or process.status(tid)["State"][0] == "D":
        return None
    call = _CALLS.get(blocked.number)
    if call is None or not call.safe(target, blocked.arguments):
        return None
    return Kind.RESTARTS if call.restarts(blocked.arguments) else Kind.INTERRUPTED


def _may_run(target: Target) -> bool:
    """Tell whether running threads can be used: malloc is not among the interpreter's code, and errno can be kept."""
    return target.interpreter.calls_malloc and target.library.errno_offset is not None


def moment(target: Target, tid: int, registers: Registers) -> Moment | None:
    """Return the moment at which the thread with these registers stopped, None if that is not safe."""
    if registers.cs != _USER_CODE_SEGMENT or not _has_stack(target, tid, registers):
        return None
    number = struct.unpack("<q", struct.pack("<Q", registers.orig_rax))[0]
    if number >= 0:
        return _in_call(target, tid, number, registers)
    interpreter = target.interpreter
    if not interpreter.loaded.is_code(registers.rip) or not _may_run(target) or _handles_a_signal(target, tid):
        return None
    return Moment(Kind.RUNS, registers.copy(), False)


def _handles_a_signal(target: Target, tid: int) -> bool:
    """Tell whether a thread may be in a signal's handler, which may have interrupted malloc: that signal is blocked."""
    status = target.process.status(tid)
    return bool(int(status["SigBlk"], 16) & int(status["SigCgt"], 16))


def _in_call(target: Target, tid: int, number: int, registers: Registers) -> Moment | None:
    """Do for an interrupted system call what the kernel does when it resumes it."""
    arguments = (registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9)
    call = _CALLS.get(number)
    if call is None or not call.safe(target, arguments):
        return None
    if number in _FROM_HANDLERS and _handles_a_signal(target, tid):
        return None
    if read_memory(target.process.pid, registers.rip - 2, 2) != _SYSCALL_CODE:
        return None
    after = registers.copy()
    after.orig_rax = (1 << 64) - 1
    result = struct.unpack("<q", struct.pack("<Q", registers.rax))[0]
    restarts = call.restarts(arguments)
    if result in (_ERESTARTSYS, _ERESTARTNOINTR, _ERESTARTNOHAND) or (
        restarts and (result == _ERESTART_RESTARTBLOCK or (result == _EINTR and number in _EPOLL))
    ):
        after.rip -= 2
        after.rax = registers.orig_rax
        return Moment(Kind.RESTARTS, after, True)
    if result == _ERESTART_RESTARTBLOCK:
        after.rax = _EINTR & ((1 << 64) - 1)
    # Else the call has just ended by itself.
    return Moment(Kind.INTERRUPTED, after, False)


def _has_stack(target: Target, tid: int, registers: Registers) -> bool:
    """See whether the thread is on its own stack, with enough of it below the part in use."""
    process, rsp = target.process, registers.rsp
    # Its stack, for it is on it, is where it was: to ask again takes a while, and the thread stands still for that.
    mapping = target.mapping_at(rsp) or next((m for m in process.maps() if m.start <= rsp < m.end), None)
    if mapping is None or mapping.inode or not mapping.mode.startswith("rw"):
        return False
    if tid == process.pid:
        if mapping.path != "[stack]" or rsp - mapping.start < _WRITTEN:
            return False
        return bool(mapping.end - rsp + STACK_NEEDED + _PAGE < process.stack_limit())
    # libc keeps what is the thread's own at the top of its stack. A guard page below need not show as a mapping.
    if not mapping.start <= rsp < registers.fs_base < mapping.end or rsp - mapping.start < STACK_NEEDED:
        return False
    bottom = (rsp - STACK_NEEDED) // _PAGE * _PAGE
    try:
        return all(len(read_memory(process.pid, at, 8)) == 8 for at in range(bottom, rsp - 8, _PAGE))
    except OSError:
        return False


def signal_is_due(target: Target, tid: int, mask: int) -> bool:
    """Tell whether a signal waits for the thread that it has a handler for and will not block with `mask`."""
    try:
        status = target.process.status(tid)
    except OSError as error:
        raise Gone from error
    waiting = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)
    return bool(waiting & int(status["SigCgt"], 16) & ~mask)
