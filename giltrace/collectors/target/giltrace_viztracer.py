"""Runs viztracer inside the target for as long as the process lives; see `sitecustomize.py`.

Each process writes two files into the recording folder: `viztracer-<pid>-<ns>.state`, a dictionary's `ascii` that says
what is going on (written at the start, again at the end), and, at its end, `viztracer-<pid>-<ns>.json` with the calls.

What is imported here would show in the target's `sys.modules`: hence only what the interpreter itself has loaded.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import atexit
import os
import sys
import time

TYPE_CHECKING = False  # typing is not imported into the target
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: So many calls are kept, the last ones.
ENTRIES = 100_000
#: What tracing may cost a process: this share of the CPU time that it takes without, or so many ns if that is more.
SHARE = 0.1
LEAST_NS = 100_000_000
#: Writing a call takes so many ns, at the end of the process, when others may wait for that end.
WRITING_NS = 600
#: The calls that all processes of a recording write may take so many bytes, and those of one process so many of them.
ROOM_BYTES = 64 << 20
EACH_BYTES = 16 << 20
#: So many lookouts lie side by side: up to 3.11 each thread has to meet one of its own to be told to end, at the next
#: of its calls.
LOOKOUTS = 64
#: Slower code between the calls is a cost from this factor on; smaller ones are noise.
SLOWER = 1.1
#: `os.getrandom` with these flags is answered by the preloaded library without a system call: see `calls_answer` there.
_ASK = 0x67690000
_MONITORING: Any = getattr(sys, "monitoring", None)
_PROBE_CALLS = 400
_PROBE_STEPS = 2_000


def start(folder: str, load: Callable[[], Any]) -> None:
    """Trace this process and the children that it forks, or leave a file that says why not.

    `load` returns the module of the tracer. It raises ImportError where viztracer is not installed.
    """
    _Recorder(folder).begin(load)


class _Lookout(dict):  # type: ignore[type-arg]  # not in 3.8
    """What lies among the kept calls, and tells the recorder when a later call takes its place.

    That is the only moment at which viztracer does anything that can be noticed: so looking costs nothing in between.
    """

    def __init__(self, recorder: _Recorder, turn: int) -> None:
        super().__init__(giltrace=turn)
        self._recorder = recorder
        self._turn = turn

    def __del__(self) -> None:
        try:
            self._recorder.wrapped(self._turn)
        except KeyboardInterrupt:  # nothing can be raised from here
            _thread.interrupt_main()
        except BaseException:  # tracing is optional, the target is not
            pass


class _Recorder:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._tracer: Any = None
        self._module: Any = None  # after the tracer, so that it goes after it too
        self._state: dict[str, Any] = {}
        self._stem = ""
        self._saved = False
        self._turn = 0
        self._ahead = 0
        self._hook: Any = None
        self._stopped: dict[int, int] = {}
        self._answered = _answer() is not None

    def begin(self, load: Callable[[], Any]) -> None:
        self._new_state()
        try:
            self._module = load()
            self._tracer = self._module.Tracer(ENTRIES)
            self._tracer.process_name = "python"
            self._leave_out_what_breaks()
            self._measure()
        except ImportError:
            self._refuse("not installed for", "install viztracer")
            return
        except Exception as error:
            self._refuse(str(error) + " for", "install --upgrade viztracer")
            return
        self._write_state()
        # Before the target registers anything, so that it runs after that.
        atexit.register(self.save)
        os.register_at_fork(before=self._before_fork, after_in_child=self._after_fork)
        self._yield_to_other_profilers()
        self._state["traced_from"] = time.monotonic_ns()
        self._tracer.start()
        self._hook = getattr(sys.modules.get("threading"), "_profile_hook", None)
        self._look_out()

    def _refuse(self, what: str, remedy: str) -> None:
        python = sys.executable or "python"
        self._state["reason"] = f"{what} {python}: {python} -m pip {remedy}"
        self._write_state()

    def _new_state(self) -> None:
        start = time.monotonic_ns()
        self._stem = os.path.join(self._folder, f"viztracer-{os.getpid()}-{start}")
        self._state.update(pid=os.getpid(), start=start, calls=0)
        self._saved = False

    def _write_state(self) -> None:
        with open(self._stem + ".part", "wb") as file:
            file.write(ascii(self._state).encode())
        os.rename(self._stem + ".part", self._stem + ".state")

    def _leave_out_what_breaks(self) -> None:
        """Leave out native functions where the tracer turns one that is called wrongly into a SystemError."""
        wrong: Any = 0
        self._tracer.start()
        try:
            str.upper(wrong)
        except TypeError:
            pass
        except SystemError:
            self._tracer.ignore_c_function = True
        finally:
            self._tracer.stop(None)
            self._tracer.clear()

    def _measure(self) -> None:
        """Note what tracing adds to one call, in ns, and how much slower code without calls gets; takes 2 ms."""

        def probe() -> None:
            pass

        def calls() -> int:
            begin = time.perf_counter_ns()
            for _ in range(_PROBE_CALLS):
                probe()
            return time.perf_counter_ns() - begin

        def no_calls() -> int:
            left = _PROBE_STEPS
            begin = time.perf_counter_ns()
            while left:
                left -= 1
            return time.perf_counter_ns() - begin

        self._tracer.start()
        traced = [min(loop() for _ in range(6)) for loop in (calls, no_calls)]
        self._tracer.stop(None)
        # Last, because CPython 3.11 runs code at its usual speed only once it has met a profiler.
        bare = [min(loop() for _ in range(6)) for loop in (calls, no_calls)]
        self._tracer.clear()
        self._state["call_ns"] = max(0, traced[0] - bare[0]) / _PROBE_CALLS
        self._state["slowdown"] = max(1.0, traced[1] / bare[1])

    def _look_out(self) -> None:
        self._turn += 1
        self._ahead = LOOKOUTS
        for _ in range(LOOKOUTS):
            self._tracer.add_raw(_Lookout(self, self._turn))

    def wrapped(self, turn: int) -> None:
        """Hear that the buffer is full again, within a call of the target's: go on, or end if that costs too much."""
        if self._saved or turn != self._turn:
            return
        self._ahead -= 1
        if self._stopped:
            self._stop()
            # Those that are left lie ahead, for the next threads' next calls. One that is added lies behind, and would
            # take the place of one of them: new ones are for threads beyond these, once the buffer is full again.
            if self._ahead == 0:
                self._look_out()
            return
        self._state["calls"] += ENTRIES - LOOKOUTS
        if self._confined():
            self._end()
        elif self._is_too_much():
            self._stop()
        else:
            self._look_out()

    def _is_too_much(self) -> bool:
        cpu = time.process_time()
        tracing: float = self._state["calls"] * self._state["call_ns"] / 1e9
        if self._state["slowdown"] > SLOWER:
            tracing += (cpu - tracing) * (1 - 1 / self._state["slowdown"])
        cost = tracing + ENTRIES * WRITING_NS / 1e9
        return cost > max(LEAST_NS / 1e9, SHARE * (cpu - tracing))

    def _stop(self) -> None:
        self._end()
        self._stopped[0 if _MONITORING else _thread.get_native_id()] = time.monotonic_ns()

    def _end(self) -> None:
        """End tracing from within a call that is being traced: in all threads, or up to 3.11 in this one.

        The tracer's own `stop` would take away what it needs to finish with that call.
        """
        if _MONITORING:
            _MONITORING.set_events(_MONITORING.PROFILER_ID, 0)
            return
        self._tracer.pause()
        threading: Any = sys.modules["threading"]
        if self._hook is not None and threading._profile_hook is self._hook:
            threading.setprofile(None)

    def _yield_to_other_profilers(self) -> None:
        """Let the target's own profiler have its place: CPython 3.12 and newer allow only one, and refuse a second."""
        if _MONITORING is None:
            return
        use_tool_id = _MONITORING.use_tool_id

        def use_tool_id_or_take_over(tool_id: int, name: str, /) -> None:
            if tool_id == _MONITORING.PROFILER_ID and _MONITORING.get_tool(tool_id) == "viztracer":
                _MONITORING.use_tool_id = use_tool_id
                self._tracer.stop(None)
            use_tool_id(tool_id, name)

        _MONITORING.use_tool_id = use_tool_id_or_take_over

    def _before_fork(self) -> None:
        # viztracer remembers thread ids, so in the child the thread that forked would go by its old one.
        self._state["forked_by"] = _thread.get_native_id()

    def _after_fork(self) -> None:
        try:
            if self._confined():
                return
            self._turn += 1  # those that are cleared now have nothing to say
            self._tracer.clear()
            self._tracer.reset_stack()
            self._new_state()
            self._state["forked"] = True
            self._write_state()
            # A child of multiprocessing ends without atexit; its own exit handlers start out empty after the fork.
            util = sys.modules.get("multiprocessing.util")
            if util is not None:
                util.register_after_fork(self, _Recorder._finalize)
            self._state["traced_from"] = time.monotonic_ns()
            if self._stopped:
                self._stopped.clear()
                self._stop()
            else:
                self._look_out()
        except Exception:  # tracing is optional, the target is not
            pass

    def _finalize(self) -> None:
        from multiprocessing.util import Finalize

        Finalize(None, self.save, exitpriority=-1)

    def save(self) -> None:
        """Write the calls; once per process, and never into the way of its exit."""
        if self._saved:
            return
        self._saved = True
        try:
            if self._confined():
                self._tracer.stop(None)
                return
            if self._state["pid"] != os.getpid():
                return
            self._state["end"] = time.monotonic_ns()
            self._still_traced()
            self._tracer.stop("flush_as_finish")
            self._state["stopped"] = self._stopped  # when, by thread; 0 is any
            self._state["cpu_ns"] = int(time.process_time() * 1e9)
            self._state["greenlets"] = _had_greenlets()
            # Only now: viztracer fits its clock at its first conversion, and needs the whole run for that.
            self._state["clock_error_ns"] = min(self._clock_error() for _ in range(20))
            self._state["full"] = _written(self._folder) > ROOM_BYTES - EACH_BYTES
            if not self._state["full"]:
                self._dump()
            self._write_state()
        except Exception:  # tracing is optional, the target is not
            pass

    def _confined(self) -> bool:
        """Whether the program has put a seccomp filter on itself, which may kill for what is done here."""
        return self._answered and _answer() == b"\1"

    def _still_traced(self) -> None:
        """Leave a call in the records that is found there only if tracing has not stopped by itself meanwhile."""

    def _dump(self) -> None:
        # A program that limits the size of its files is not to hear of ours.
        action = _signal.getsignal(_signal.SIGXFSZ)
        if action is not None:
            _signal.signal(_signal.SIGXFSZ, _signal.SIG_IGN)
        try:
            self._tracer.dump(self._stem + ".part")
        finally:
            if action is not None:
                _signal.signal(_signal.SIGXFSZ, action)
        os.rename(self._stem + ".part", self._stem + ".json")

    def _clock_error(self) -> int:
        """Return a bound on viztracer's time against CLOCK_MONOTONIC, in nanoseconds."""
        before = time.monotonic_ns()
        theirs = int(self._tracer.getts() * 1000)
        after = time.monotonic_ns()
        return max(abs(theirs - before), abs(theirs - after))


def _answer() -> bytes | None:
    """Ask the preloaded library whether there is a filter: 0 or 1, None where nobody answers."""
    try:
        return os.getrandom(1, _ASK)
    except (AttributeError, OSError):
        return None


def _written(folder: str) -> int:
    """Return how many bytes of calls there are from processes that ended before."""
    names = [name for name in os.listdir(folder) if name.startswith("viztracer-") and name.endswith(".json")]
    return sum(os.stat(os.path.join(folder, name)).st_size for name in names)


def _had_greenlets() -> bool:
    """Whether this process had stacks that are switched below the interpreter, and so behind the tracer's back."""
    greenlet = sys.modules.get("greenlet._greenlet") or sys.modules.get("greenlet")
    if greenlet is None:
        return False
    count = getattr(greenlet, "get_total_main_greenlets", None)
    return count is None or count() > 0
