"""A thread of our own in another process, made to call functions one after the other.

It begins in `sched_yield`, which asks nothing of anybody and returns. There it stands after its system call when it is
sent into a function, which returns to the beginning of `sched_yield`: so it comes by again, and that is where we wait
for it. If nobody does, each of these returns into the one before, the first one to its end, and that ends the thread.
No thread of the program waits for what it does: it may wait for a lock as long as it takes.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from giltrace.launch.attach import frame, ptrace
from giltrace.launch.attach.call import enter, quiet_mask
from giltrace.launch.attach.moment import STACK_NEEDED
from giltrace.launch.attach.ptrace import Late, Registers, Thread
from giltrace.launch.attach.target import Target

_SCHED_YIELD, _FUTEX = 24, 202
_INTERRUPTED = (1 << 64) - 512  # ERESTARTSYS
#: How long it may take to begin and to end.
_BEGIN_SECONDS = _END_SECONDS = 2.0
_STOP_SECONDS = 1.0


class OwnThread:
    """The thread `thread`, just started with `sched_yield` to run; `data` are texts and words for calls to point to.

    `at` has the addresses of `data`, `inside` the thread's id as the process sees it. `leave` ends it. Raises Gone,
    Late or OSError, OSError too if its stack is small.
    """

    def __init__(self, target: Target, thread: Thread, data: list[bytes]) -> None:
        self.thread = thread
        self._target = target
        _, self.inside = target.process.ids(thread.tid)
        thread.await_birth(time.monotonic() + _BEGIN_SECONDS)
        self._come_by(0, time.monotonic() + _BEGIN_SECONDS, None)
        thread.set_signal_mask(quiet_mask(target.library))
        # Far below what functions use of the stack: nothing may lie between them and those that they return to.
        block = frame.Block(thread.registers().rsp - STACK_NEEDED)
        self.at = [block.push(each) for each in data]
        ptrace.write_memory(target.process.pid, block.bottom, block.bytes())

    def call(self, function: int, *arguments: int, deadline: float, stopped: Callable[[], bool] | None = None) -> None:
        """Call `function` with up to six integers, and return when it has.

        Raises Late if it has not by `deadline`, or once `stopped` says so; it goes on then, unless it only waits for
        the loader: then it is taken out of the queue, as if it had never been called.
        """
        before = self.thread.registers()
        # The bottom has to be where a return address is in any function that was called by the rules.
        onwards = [before.rip, self._target.library.sched_yield]
        while (before.rsp - 8 * len(onwards)) % 16 != 8:
            onwards.append(self._target.library.sched_yield)
        stack = before.rsp - 8 * len(onwards)
        ptrace.write_memory(self._target.process.pid, stack, struct.pack(f"<{len(onwards)}Q", *reversed(onwards)))
        self.thread.set_registers(enter(before, function, arguments, stack))
        try:
            self._come_by(stack, deadline, stopped)
        except Late:
            self._give_up(before)
            raise

    def _come_by(self, lowest: int, deadline: float, stopped: Callable[[], bool] | None) -> None:
        """Let it run until it is back in `sched_yield`, with its stack at `lowest` or above, after the system call."""
        while True:
            self.thread.run_to_syscall(deadline, stopped or (lambda: False))
            registers = self.thread.registers()
            # A function that it is in may yield, too.
            if registers.orig_rax == _SCHED_YIELD and registers.rsp >= lowest:
                self.thread.run_to_syscall(deadline)
                return

    def _give_up(self, before: Registers) -> None:
        self.thread.stop(_STOP_SECONDS)
        if self._only_waits_for_the_loader():
            self.thread.set_registers(before)

    def _only_waits_for_the_loader(self) -> bool:
        """Tell whether it sleeps before a lock of the loader and has none: whose they are is said in them."""
        area, pid = self._target.library.loader, self._target.process.pid
        registers = self.thread.registers()
        if area is None or registers.orig_rax != _FUTEX or not area[0] <= registers.rdi < area[1]:
            return False
        if registers.rax != _INTERRUPTED:
            return False  # it was woken, and nobody else is in its place
        words = memoryview(ptrace.read_memory(pid, area[0], area[1] - area[0])).cast("I")
        return self.inside not in words

    def leave(self) -> None:
        """Let it end, and wait for that as long as it should take."""
        try:
            self.thread.run_to_its_end(time.monotonic() + _END_SECONDS)
        except Late:
            self.thread.detach()
