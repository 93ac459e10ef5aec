"""Runs viztracer inside the target for as long as the process lives; see `sitecustomize.py`.

Each process writes two files into the recording folder: `viztracer-<pid>-<ns>.state`, a JSON object that says what
is going on (written at the start, again at the end), and, at its end, `viztracer-<pid>-<ns>.json` with the calls.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
from typing import Any

ENTRIES = 1_000_000
_PROBE_CALLS = 400
_PROBE_STEPS = 2_000


def start(folder: str) -> None:
    """Trace this process and the children that it forks, or leave a file that says why not."""
    _Recorder(folder).begin()


class _Recorder:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._tracer: Any = None
        self._state: dict[str, Any] = {}
        self._stem = ""
        self._saved = False

    def begin(self) -> None:
        self._new_state()
        # Registered before viztracer's imports register anything, so that it runs after them.
        atexit.register(self.save)
        try:
            from viztracer import VizTracer, __version__

            if int(__version__.split(".")[0]) < 1:
                raise RuntimeError("viztracer 1.0 or newer is needed, not " + __version__ + ",")
            self._tracer = VizTracer(ENTRIES, verbose=0, register_global=False, process_name="python")
        except ImportError:
            self._refuse("not installed for", "install viztracer")
            return
        except Exception as error:
            self._refuse(str(error) + " for", "install --upgrade viztracer")
            return
        self._measure()
        self._write_state()
        os.register_at_fork(before=self._before_fork, after_in_child=self._after_fork)
        self._yield_to_other_profilers()
        self._state["traced_from"] = time.monotonic_ns()
        self._tracer.start()

    def _refuse(self, what: str, remedy: str) -> None:
        python = sys.executable or "python"
        self._state["reason"] = f"{what} {python}: {python} -m pip {remedy}"
        self._saved = True
        self._write_state()

    def _new_state(self) -> None:
        start = time.monotonic_ns()
        self._stem = os.path.join(self._folder, f"viztracer-{os.getpid()}-{start}")
        self._state.update(pid=os.getpid(), start=start, executable=sys.executable)
        self._saved = False

    def _write_state(self) -> None:
        with open(self._stem + ".part", "w") as file:
            json.dump(self._state, file)
        os.rename(self._stem + ".part", self._stem + ".state")

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
        self._tracer.stop()
        # Last, because CPython 3.11 runs code at its usual speed only once it has met a profiler.
        bare = [min(loop() for _ in range(6)) for loop in (calls, no_calls)]
        self._tracer.clear()
        self._state["call_ns"] = max(0, traced[0] - bare[0]) / _PROBE_CALLS
        self._state["slowdown"] = max(1.0, traced[1] / bare[1])

    def _yield_to_other_profilers(self) -> None:
        """Let the target's own profiler have its place: CPython 3.12 and newer allow only one, and refuse a second."""
        monitoring = getattr(sys, "monitoring", None)
        if monitoring is None:
            return
        use_tool_id = monitoring.use_tool_id

        def use_tool_id_or_take_over(tool_id: int, name: str, /) -> None:
            if tool_id == monitoring.PROFILER_ID and monitoring.get_tool(tool_id) == "viztracer":
                monitoring.use_tool_id = use_tool_id
                self._tracer.stop()
            use_tool_id(tool_id, name)

        monitoring.use_tool_id = use_tool_id_or_take_over

    def _before_fork(self) -> None:
        # viztracer remembers thread ids, so in the child the thread that forked would go by its old one.
        self._state["forked_by"] = threading.get_native_id()

    def _after_fork(self) -> None:
        try:
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
        except Exception:  # tracing is optional, the target is not
            pass

    def _finalize(self) -> None:
        from multiprocessing.util import Finalize

        Finalize(None, self.save, exitpriority=-1)

    def save(self) -> None:
        """Write the calls; once per process, and never into the way of its exit."""
        if self._saved or self._tracer is None or self._state["pid"] != os.getpid():
            return
        self._saved = True
        try:
            self._state["end"] = time.monotonic_ns()
            self._tracer.stop("flush_as_finish")
            # Only now: viztracer fits its clock at its first conversion, and needs the whole run for that.
            self._state["clock_error_ns"] = min(self._clock_error() for _ in range(20))
            self._tracer.dump(self._stem + ".part")
            os.rename(self._stem + ".part", self._stem + ".json")
            self._state["dump_ns"] = time.monotonic_ns() - self._state["end"]
            self._write_state()
        except Exception:  # tracing is optional, the target is not
            pass

    def _clock_error(self) -> int:
        """Return a bound on viztracer's time against CLOCK_MONOTONIC, in nanoseconds."""
        before = time.monotonic_ns()
        theirs = int(self._tracer.getts() * 1000)
        after = time.monotonic_ns()
        return max(abs(theirs - before), abs(theirs - after))
