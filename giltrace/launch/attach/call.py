"""Make a thread of another process call functions, so that it finds back by itself whatever becomes of us.

The thread's stack gets, from the top: what the calls point to; a signal frame with all that the thread was; one that
writes errno back. A single ptrace request then sends the thread into the function. From then on nobody need be there:
the function returns into the lower frame, that one's function into the upper, and that one puts the thread back.
"""

from __future__ import annotations

import errno
import time

from giltrace.launch.attach import frame, ptrace
from giltrace.launch.attach.moment import Moment, signal_is_due
from giltrace.launch.attach.ptrace import Late, Registers, Thread
from giltrace.launch.attach.target import RESTORER, Library, Target

_RT_SIGRETURN = 15
_NO_CALL = (1 << 64) - 1
_RETURN_ADDRESS = 8  # bytes, taken off the stack by the time that rt_sigreturn looks

#: Signals that the function itself may cause: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV.
_OWN_SIGNALS = sum(1 << (number - 1) for number in (4, 5, 6, 7, 8, 11))
_ALL_OTHERS = (1 << 64) - 1 & ~_OWN_SIGNALS

#: Of the flags, what a function may be entered with: not the direction, trap, nested task, resume and alignment flags.
_FLAGS_TO_CLEAR = 0x400 | 0x100 | 0x4000 | 0x10000 | 0x40000


class Visit:
    """Calls in the stopped `thread`, at the safe `moment`; `data` are texts and words for them to point to.

    `at` has the addresses of `data`. Begin with `call`; then call again, or `leave`. Raises Gone, Late or OSError.
    """

    def __init__(self, target: Target, thread: Thread, moment: Moment, data: list[bytes]) -> None:
        self._target, self._thread, self._moment = target, thread, moment
        self._mask = thread.signal_mask()
        self._state = thread.extended_state()
        self._entered = False
        block = frame.Block(moment.registers.rsp - frame.RED_ZONE)
        self.at = [block.push(each) for each in data]
        self._area = block.push_vector_area(frame.vector_area(self._state))
        library = target.library
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
        again = self._entry(library.swab, (saved, address, 4), self._own)
        return block.push_frame(frame.signal_frame(library.restorer, again, _ALL_OTHERS, 0))

    def _entry(self, function: int, arguments: tuple[int, ...], stack: int) -> Registers:
        registers = self._moment.registers.copy()
        for name, value in zip(("rdi", "rsi", "rdx", "rcx", "r8", "r9"), arguments, strict=False):
            setattr(registers, name, value)
        registers.rip, registers.rsp, registers.rax, registers.orig_rax = function, stack, 0, _NO_CALL
        registers.eflags &= ~_FLAGS_TO_CLEAR
        return registers

    def call(self, function: int, *arguments: int, deadline: float) -> None:
        """Call `function` with up to six integers, and return when it has; the thread is then still ours.

        Raises Late if it has not by `deadline`: the thread goes on by itself then.
        """
        thread, pid = self._thread, self._target.process.pid
        entry = self._entry(function, arguments, self._lowest)
        if self._entered:
            # It stands before rt_sigreturn. That is to happen, but from a frame that leads into the function first.
            again = frame.Block(self._lowest)
            stack = again.push_frame(frame.signal_frame(self._target.library.restorer, entry, _ALL_OTHERS, 0))
            ptrace.write_memory(pid, again.bottom, again.bytes())
            registers = thread.registers()
            registers.rsp = stack + _RETURN_ADDRESS
            thread.set_registers(registers)
        else:
            ptrace.write_memory(pid, self._block.bottom, self._block.bytes())
            thread.set_registers(entry)
            self._entered = True
            thread.set_extended_state(frame.initial_vector_state(self._state))
            thread.set_signal_mask(_ALL_OTHERS)
        while True:
            thread.run_to_syscall(deadline)
            registers = thread.registers()
            # A signal's handler within the function ends with the same code, on another place of the stack.
            returning = registers.orig_rax == _RT_SIGRETURN and registers.rsp == self._lowest + _RETURN_ADDRESS
            if returning and registers.rip == self._target.library.restorer + len(RESTORER):
                return
            if time.monotonic() > deadline:
                raise Late

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
