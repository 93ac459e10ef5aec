"""Make a thread of another process start another, so that it finds back by itself whatever becomes of us.

The thread's stack gets, from the top: what the call points to; a signal frame with all that the thread was; one that
writes errno back. A single ptrace request then sends the thread into `pthread_create`. From then on nobody need be
there: the function returns into the lower frame, that one's function into the upper, and that one puts the thread back.
"""

from __future__ import annotations

import errno
import struct
import time

from giltrace.launch.attach import frame, ptrace
from giltrace.launch.attach.moment import Moment, signal_is_due
from giltrace.launch.attach.ptrace import Late, Registers, Thread
from giltrace.launch.attach.target import RESTORER, Library, Target

_RT_SIGRETURN = 15
_NO_CALL = (1 << 64) - 1
_RETURN_ADDRESS = 8  # bytes, taken off the stack by the time that rt_sigreturn looks

#: Signals that the function itself may cause: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV.
_OWN_SIGNALS = (4, 5, 6, 7, 8, 11)
#: What libc has all threads do at once, as setuid(): whoever asks for it waits for each, with a lock that
#: `pthread_create` takes.
_FOR_ALL_THREADS = {"glibc": 33, "musl": 34}

#: Of the flags, what a function may be entered with: not the direction, trap, nested task, resume and alignment flags.
_FLAGS_TO_CLEAR = 0x400 | 0x100 | 0x4000 | 0x10000 | 0x40000

#: A thread of our own is detached, and has glibc's usual stack or, in musl, so much: 128 KB are few for a loader.
_MUSL_STACK, _GUARD = 256 << 10, 4096


def quiet_mask(library: Library) -> int:
    """The signals to be blocked in a thread while it works for us: all that it can do without."""
    kept = (*_OWN_SIGNALS, _FOR_ALL_THREADS[library.libc])
    return _NO_CALL & ~sum(1 << (number - 1) for number in kept)


def enter(registers: Registers, function: int, arguments: tuple[int, ...], stack: int) -> Registers:
    """Return registers that begin `function`, with a return address at `stack`."""
    entry = registers.copy()
    for name, value in zip(("rdi", "rsi", "rdx", "rcx", "r8", "r9"), arguments, strict=False):
        setattr(entry, name, value)
    entry.rip, entry.rsp, entry.rax, entry.orig_rax = function, stack, 0, _NO_CALL
    entry.eflags &= ~_FLAGS_TO_CLEAR
    return entry


def _attributes(library: Library) -> bytes:
    """A pthread_attr_t: neither libc has changed its layout since there are 64-bit programs."""
    if library.libc == "musl":
        return struct.pack("<QQQi28x", _MUSL_STACK, _GUARD, 0, 1)
    detached = 1
    return struct.pack("<iiiiQ32x", 0, 0, detached, 0, _GUARD)


class Visit:
    """The stopped `thread`, at the safe `moment`, made to start another; `leave` lets it go on.

    Raises Gone, Late or OSError.
    """

    def __init__(self, target: Target, thread: Thread, moment: Moment) -> None:
        self._target, self._thread, self._moment = target, thread, moment
        self._mask = thread.signal_mask()
        self._state = thread.extended_state()
        self._entered = False
        library = target.library
        block = frame.Block(moment.registers.rsp - frame.RED_ZONE)
        self._attributes, self._handle = block.push(_attributes(library)), block.push(bytes(8))
        self._area = block.push_vector_area(frame.vector_area(self._state))
        own = frame.signal_frame(library.restorer, moment.registers, self._mask, self._area)
        self._own = self._lowest = block.push_frame(own)
        if library.errno_offset is not None:
            self._lowest = self._push_errno(block, library, moment.registers, library.errno_offset)
        self._block = block

    def _push_errno(self, block: frame.Block, library: Library, registers: Registers, offset: int) -> int:
        """A frame whose function, swab, copies errno back: it exchanges pairs of bytes, so they are stored that way."""
        address = registers.fs_base + offset & _NO_CALL
        value = ptrace.read_memory(self._target.process.pid, address, 4)
        saved = block.push(bytes((value[1], value[0], value[3], value[2])))
        again = enter(registers, library.swab, (saved, address, 4), self._own)
        return block.push_frame(frame.signal_frame(library.restorer, again, quiet_mask(library), 0))

    def start_thread(self, function: int, deadline: float) -> Thread | None:
        """Start a thread of our own that will run `function`; it stands before its first instruction.

        Returns None if there can be none. Raises Late if it is not there by `deadline`: the thread goes on by itself.
        """
        thread, library = self._thread, self._target.library
        arguments = (self._handle, self._attributes, function, 0)
        ptrace.write_memory(self._target.process.pid, self._block.bottom, self._block.bytes())
        thread.set_registers(enter(self._moment.registers, library.pthread_create, arguments, self._lowest))
        self._entered = True
        thread.set_extended_state(frame.initial_vector_state(self._state))
        thread.set_signal_mask(quiet_mask(library))
        while not self._is_returning():
            born = thread.run_to_syscall(deadline)
            if born:
                return Thread(born, seized=True)
            if time.monotonic() > deadline:
                raise Late
        return None

    def _is_returning(self) -> bool:
        registers = self._thread.registers()
        # A signal's handler within the function ends with the same code, on another place of the stack.
        returning = registers.orig_rax == _RT_SIGRETURN and registers.rsp == self._lowest + _RETURN_ADDRESS
        return bool(returning and registers.rip == self._target.library.restorer + len(RESTORER))

    def leave(self) -> None:
        """Let the thread go back to where it was."""
        if self._entered and self._moment.restarts and signal_is_due(self._target, self._thread.tid, self._mask):
            # The kernel would not restart the call but run the handler and say so.
            registers = self._moment.registers.copy()
            registers.rip += 2
            registers.rax = -errno.EINTR & _NO_CALL
            own = frame.signal_frame(self._target.library.restorer, registers, self._mask, self._area)
            ptrace.write_memory(self._target.process.pid, self._own, own)
        self._thread.detach()
