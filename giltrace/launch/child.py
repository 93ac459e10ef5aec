"""Start the target so that it waits, not yet executed, until the collectors are ready."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Callable, Sequence

from giltrace.errors import TargetError

#: Signals that somebody may send to the recorder and means for the target.
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

#: si_code of a signal that the terminal sent: its whole foreground group has it, the target included.
SI_KERNEL = 0x80


class Child:
    """A forked process that executes `argv` when `release` is called.

    While one exists, the forwarded signals are blocked in this process and handled by `wait`. A signal that
    this process has a handler of its own for is not forwarded.
    """

    def __init__(self, argv: Sequence[str], env: dict[str, str]) -> None:
        self.argv = list(argv)
        usual = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
        self._forwarded = {number for number in FORWARDED if signal.getsignal(number) in usual}
        self._gate, self._status = os.pipe(), os.pipe()
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._forwarded)
        self.pid = os.fork()
        if self.pid == 0:
            self._run(env)
        os.close(self._gate[0])
        os.close(self._status[1])
        self._end = select.poll()
        self._descriptor = -1
        # Where the system has or allows none, the end is seen when the time of a wait is over.
        with contextlib.suppress(OSError):
            self._descriptor = os.pidfd_open(self.pid)
            self._end.register(self._descriptor, select.POLLIN)

    def _run(self, env: dict[str, str]) -> None:
        """In the child: wait at the gate, then become the target, or report why not."""
        code = errno.ENOEXEC
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            # Python ignores these two; a program started by a shell does not find them ignored.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            os.close(self._gate[1])
            if os.read(self._gate[0], 1):
                os.execvpe(self.argv[0], self.argv, env)
        except OSError as error:
            code = error.errno or errno.ENOEXEC
        finally:
            with contextlib.suppress(OSError):
                os.write(self._status[1], code.to_bytes(4, "little"))
            os._exit(127)

    def release(self) -> None:
        """Let the target execute; raises `TargetError` if the system refuses."""
        os.write(self._gate[1], b"x")
        os.close(self._gate[1])
        # The write end closes when the program executes: nothing to read means that it did.
        failure = os.read(self._status[0], 4)
        os.close(self._status[0])
        if failure:
            self._reap()
            reason = os.strerror(int.from_bytes(failure, "little"))
            raise TargetError(f"cannot execute {self.argv[0]}: {reason}", "check its path, its mode and its #! line")

    def cancel(self) -> None:
        """End the child before it executed anything."""
        os.close(self._gate[1])
        os.close(self._status[0])
        self._reap()

    def _reap(self) -> None:
        os.waitpid(self.pid, 0)
        self._let_go()

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def wait(self, seconds: float, ended: Callable[[], object] = lambda: None) -> int | None:
        """Wait at most `seconds` for the target's end, passing on signals; its status, negative for a signal's.

        `ended` is called when it has ended, and can still be asked of by its id.
        """
        self._end.poll(seconds * 1000)
        # Signals are not waited for: of a wait that was stopped beyond its time, as by Ctrl-Z, CPython tells one that
        # never came. It looks at what the system has not filled in.
        while (info := signal.sigtimedwait(self._forwarded, 0)) is not None:
            if info.si_code != SI_KERNEL:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, info.si_signo)
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        ended()
        _, status = os.waitpid(self.pid, 0)
        self._let_go()
        return os.waitstatus_to_exitcode(status)
