"""The system calls that stop one thread of another process, and read and write it: ptrace and process_vm_readv.

Everything here is x86-64. A tracer that ends lets go of its tracees: the kernel resumes them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable

_CONT, _GETREGS, _SETREGS, _DETACH, _SYSCALL = 7, 12, 13, 17, 24
_SETOPTIONS, _GETEVENTMSG, _GETREGSET, _SETREGSET, _SEIZE, _INTERRUPT, _LISTEN, _GETSIGMASK, _SETSIGMASK = (
    0x4200, 0x4201, 0x4204, 0x4205, 0x4206, 0x4207, 0x4208, 0x420A, 0x420B
)  # fmt: skip
_NT_X86_XSTATE = 0x202
_EVENT_CLONE, _EVENT_STOP = 3, 128
_WALL = 0x40000000

#: Tells a stop at a system call from a breakpoint's; has a thread that this one starts stop before its first
#: instruction. They go with the tracer and change nothing for the thread.
_OPTION_SYSGOOD, _OPTION_TRACECLONE = 1, 8
_SYSCALL_STOP = signal.SIGTRAP | 0x80

#: More than any processor's: AVX-512 has 2.7 KB, AMX 11 KB.
_XSTATE_MAX = 1 << 16

#: A stop usually takes microseconds: look again at once this often before sleeping in between.
_SPINS = 20
_PAUSE, _LONGEST_PAUSE, _LONGER = 0.00005, 0.002, 1.1
_DETACH_SECONDS = 1.0


_REGISTERS = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
    "fs_base gs_base ds es fs gs"
)


class Registers(ctypes.Structure):
    """`struct user_regs_struct` of x86-64."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in _REGISTERS.split())

    def copy(self) -> Registers:
        """Return a copy."""
        return Registers.from_buffer_copy(self)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Gone(Exception):
    """The thread, or its whole process, has ended."""


class Late(Exception):
    """What was waited for did not happen in time."""


class Denied(Exception):
    """The kernel does not let this process trace the thread."""


def _never() -> bool:
    return False


# PyDLL: none of these block, and to give the GIL up around each would make a stop longer.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
for _function in (_libc.process_vm_readv, _libc.process_vm_writev):
    _function.restype = ctypes.c_ssize_t
    _function.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong
    ]  # fmt: skip


def _ptrace(request: int, tid: int, address: int = 0, data: object = None) -> None:
    if _libc.ptrace(request, tid, address, data) == -1:
        code = ctypes.get_errno()
        if code == errno.ESRCH:
            raise Gone
        if code == errno.EPERM:
            raise Denied
        raise OSError(code, os.strerror(code))


def _transfer(function: Callable[..., int], pid: int, address: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    here = _Iovec(ctypes.addressof(buffer), len(buffer))
    there = _Iovec(address, len(buffer))
    done = function(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    if done >= 0:
        return done
    code = ctypes.get_errno()
    if code == errno.ESRCH:
        raise Gone
    if code == errno.EPERM:
        raise Denied
    raise OSError(code, os.strerror(code))


def read_memory(pid: int, address: int, size: int) -> bytes:
    """Read `size` bytes of the process at `address`, fewer where its memory ends. Raises OSError, Gone or Denied."""
    buffer = ctypes.create_string_buffer(size)
    length = _transfer(_libc.process_vm_readv, pid, address, buffer)
    return buffer.raw[:length]


def write_memory(pid: int, address: int, data: bytes) -> None:
    """Write all of `data` into the process. Raises OSError, Gone or Denied."""
    buffer = (ctypes.c_char * len(data)).from_buffer_copy(data)
    if _transfer(_libc.process_vm_writev, pid, address, buffer) != len(data):
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))


class Thread:
    """One thread of another process under ptrace; it goes on where it was when `detach` is called, or we end.

    All methods but `stop` and `detach` need it to be stopped. They raise Gone if it has ended; `Thread` raises Denied.
    `seized`: it is under ptrace already, for a thread that was has started it.
    """

    def __init__(self, tid: int, *, seized: bool = False) -> None:
        self.tid = tid
        if not seized:
            _ptrace(_SEIZE, tid, 0, _OPTION_SYSGOOD | _OPTION_TRACECLONE)
        self._attached = True

    def await_birth(self, deadline: float) -> None:
        """Wait until it, which was just started, stands before its first instruction; those it starts run freely."""
        while self._wait(deadline) >> 16 != _EVENT_STOP:
            pass
        _ptrace(_SETOPTIONS, self.tid, 0, _OPTION_SYSGOOD)

    def stop(self, seconds: float) -> None:
        """Stop it. Raises Late if it has not stopped by then, which only the end of this process can then undo."""
        deadline = time.monotonic() + seconds
        while True:
            _ptrace(_INTERRUPT, self.tid)
            status = self._wait(deadline)
            if status >> 16 == _EVENT_STOP:
                return
            # Another stop came first, and the kernel forgets the interrupt for it. Let it have its signal.
            _ptrace(_CONT, self.tid, 0, _signal_of(status))

    def _wait(self, deadline: float, stopped: Callable[[], bool] = _never) -> int:
        spins, pause = 0, _PAUSE
        while True:
            try:
                tid, status = os.waitpid(self.tid, _WALL | os.WNOHANG)
            except ChildProcessError:
                raise Gone from None
            if tid:
                if not os.WIFSTOPPED(status):
                    self._attached = False
                    raise Gone
                return status
            spins += 1
            if spins > _SPINS:
                if time.monotonic() > deadline or stopped():
                    raise Late
                time.sleep(pause)
                pause = min(pause * _LONGER, _LONGEST_PAUSE)

    def run_to_syscall(self, deadline: float, stopped: Callable[[], bool] = _never) -> int:
        """Resume it until it enters or leaves a system call, or has started a thread; it receives its signals.

        Returns the new thread's id, 0 for a system call. Raises Late after `deadline`, or once `stopped` says so.
        """
        deliver = 0
        while True:
            _ptrace(_SYSCALL, self.tid, 0, deliver)
            status = self._wait(deadline, stopped)
            while status >> 16 == _EVENT_STOP and os.WSTOPSIG(status) != signal.SIGTRAP:
                # The whole process was stopped by a signal, as by Ctrl-Z: it stays so until SIGCONT.
                _ptrace(_LISTEN, self.tid)
                status = self._wait(deadline, stopped)
            if status >> 16 == _EVENT_CLONE:
                tid = ctypes.c_ulong()
                _ptrace(_GETEVENTMSG, self.tid, 0, ctypes.byref(tid))
                return tid.value
            deliver = _signal_of(status)
            if os.WSTOPSIG(status) == _SYSCALL_STOP:
                return 0

    def run_to_its_end(self, deadline: float) -> None:
        """Resume it and return when it has ended. Raises Late after `deadline`."""
        deliver = 0
        try:
            while True:
                _ptrace(_CONT, self.tid, 0, deliver)
                deliver = _signal_of(self._wait(deadline))
        except Gone:
            return

    def detach(self) -> None:
        """Let it go on, without us, stopped or not. Nothing happens if it has ended.

        Raises Late if it sleeps where the kernel does not stop it, which only the end of this process can then undo.
        """
        if not self._attached:
            return
        try:
            try:
                _ptrace(_DETACH, self.tid)
            except Gone:  # or it runs: then it has to stop for a moment
                self.stop(_DETACH_SECONDS)
                _ptrace(_DETACH, self.tid)
        except Gone:
            pass
        self._attached = False

    def registers(self) -> Registers:
        """Read its general registers."""
        registers = Registers()
        _ptrace(_GETREGS, self.tid, 0, ctypes.byref(registers))
        return registers

    def set_registers(self, registers: Registers) -> None:
        """Write its general registers."""
        _ptrace(_SETREGS, self.tid, 0, ctypes.byref(registers))

    def extended_state(self) -> bytes:
        """Read its floating point and vector registers, as XSAVE lays them out."""
        buffer = ctypes.create_string_buffer(_XSTATE_MAX)
        vector = _Iovec(ctypes.addressof(buffer), _XSTATE_MAX)
        _ptrace(_GETREGSET, self.tid, _NT_X86_XSTATE, ctypes.byref(vector))
        return buffer.raw[: vector.length]

    def set_extended_state(self, state: bytes) -> None:
        """Write what `extended_state` reads."""
        buffer = ctypes.create_string_buffer(state, len(state))
        vector = _Iovec(ctypes.addressof(buffer), len(state))
        _ptrace(_SETREGSET, self.tid, _NT_X86_XSTATE, ctypes.byref(vector))

    def signal_mask(self) -> int:
        """Read the set of signals that it blocks: bit n - 1 for signal n."""
        mask = ctypes.c_uint64()
        _ptrace(_GETSIGMASK, self.tid, 8, ctypes.byref(mask))
        return mask.value

    def set_signal_mask(self, mask: int) -> None:
        """Write the set of signals that it blocks."""
        _ptrace(_SETSIGMASK, self.tid, 8, ctypes.byref(ctypes.c_uint64(mask)))


def _signal_of(status: int) -> int:
    """The signal that a stop holds back and that the thread is to get, 0 if it is none."""
    caught = os.WSTOPSIG(status)
    return 0 if status >> 16 or caught == _SYSCALL_STOP else caught
