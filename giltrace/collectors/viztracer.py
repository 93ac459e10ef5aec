"""The viztracer collector: exact function spans, traced inside every Python below the target."""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from giltrace.collectors.base import Session
    from giltrace.recording.collected import CollectorReport
    from giltrace.recording.events import Spans

    Rows = npt.NDArray[np.void]

_TARGET = Path(__file__).parent / "target"
_PROBE_TIMEOUT_S = 10
_LISTED = 8

#: CPython 3.11 and older run all code more slowly under a profiler; smaller factors are noise.
_WORTH_SAYING = 1.1
_PROBE = "import sys, importlib.util as u; sys.exit(sys.version_info < (3, 8) or u.find_spec('viztracer') is None)"


class VizTracerCollector:
    """Puts a start-up module on the target's PYTHONPATH that runs viztracer, and converts what that wrote."""

    name = "viztracer"

    def __init__(self) -> None:
        self._folder = Path()

    def available(self, python: str | None) -> str | None:
        """Ask the interpreter `python`, if known, whether it could import viztracer."""
        return _why_not(python) if python else None

    def prepare(self, folder: Path, env: dict[str, str]) -> None:
        """Put the start-up module first on PYTHONPATH; inside, sys.path looks as if it were not there."""
        inherited = env.get("PYTHONPATH")
        env["PYTHONPATH"] = f"{_TARGET}{os.pathsep}{inherited}" if inherited else str(_TARGET)
        env["GILTRACE_VIZTRACER"] = str(folder.resolve())

    def start(self, session: Session) -> None:
        """Nothing to do: the target starts its own tracer."""
        self._folder = session.folder

    def poll(self) -> None:
        """Nothing to do: the target keeps its calls in memory until it ends."""

    def stop(self) -> CollectorReport:
        """Convert what each process wrote at its end into spans and remove the raw files."""
        from giltrace.recording.collected import CollectorReport
        from giltrace.recording.spans import write_spans

        found = _Findings()
        for path in sorted(self._folder.glob("viztracer-*.state")):
            found.add(path)
        for spans in found.spans():
            write_spans(self._folder, spans)
        for path in self._folder.glob("viztracer-*-*"):
            if path.suffix in (".state", ".json", ".part"):
                path.unlink()
        return CollectorReport(
            self.name, found.status(), cost=found.cost(), clock_error_ns=found.clock_error_ns, lost=found.lost
        )


@functools.cache
def _why_not(python: str) -> str | None:
    try:
        probe = subprocess.run(
            [python, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{python} could not be asked for viztracer ({error}): check that it runs"
    return f"not installed for {python}: {python} -m pip install viztracer" if probe.returncode else None


class _Findings:
    """What the processes of one recording left: their calls, or why there are none."""

    def __init__(self) -> None:
        self._by_pid: dict[int, list[Rows]] = {}
        self._names: dict[int, dict[bytes, int]] = {}
        self._errors: dict[int, int] = {}
        self._lost: dict[int, int] = {}
        self._reasons: list[str] = []
        self._unfinished: list[int] = []
        self._stopped: list[int] = []
        self._torn: list[int] = []
        self._greenlets: list[int] = []
        self._full: list[int] = []
        self._over: dict[int, float] = {}
        self._calls = 0
        self._added_ns = 0.0
        self._bare_ns = 0.0
        self._call_ns: list[float] = []
        self._slowdown = 1.0

    @property
    def clock_error_ns(self) -> int:
        return max(self._errors.values(), default=0)

    @property
    def lost(self) -> int:
        return sum(self._lost.values())

    def add(self, path: Path) -> None:
        """Take in the process that wrote the state file `path`."""
        from giltrace.collectors._viztracer_calls import calls_since, cut, parse, stopped_early
        from giltrace.collectors.target.giltrace_viztracer import WRITING_NS

        state: dict[str, Any] = ast.literal_eval(path.read_text())
        pid = int(state["pid"])
        raw = path.with_suffix(".json")
        if "reason" in state:
            self._reasons.append(state["reason"])
            return
        if state.get("full"):
            self._full.append(pid)
            return
        if "end" not in state or not raw.exists():
            self._unfinished.append(pid)
            return
        if state["greenlets"]:
            self._greenlets.append(pid)
            return
        data = raw.read_bytes()
        if not data.endswith(b"}}"):
            self._torn.append(pid)
            return
        overflow = b'"overflow":true' in data[-200:]
        rows = parse(data, self._names.setdefault(pid, {}), state["traced_from"], state["end"])
        ends: dict[int, int] = state["stopped"]
        if ends:
            self._over[pid] = (min(ends.values()) - state["start"]) / 1e9
            cut(rows, ends)
        elif stopped_early(data):
            self._stopped.append(pid)
            rows = rows[rows["end"] < state["end"]]  # how long the others went on is not known
        if state.get("forked"):
            rows["tid"][rows["tid"] == state["forked_by"]] = pid
        self._by_pid.setdefault(pid, []).append(rows)
        self._errors[pid] = max(self._errors.get(pid, 0), int(state["clock_error_ns"]))
        lost = max(1, state["calls"] + calls_since(data) - len(rows)) if overflow else 0
        self._lost[pid] = self._lost.get(pid, 0) + lost
        self._calls += len(rows) + lost
        self._call_ns.append(state["call_ns"])
        self._slowdown = max(self._slowdown, state["slowdown"])
        tracing = (len(rows) + lost) * state["call_ns"]
        self._added_ns += tracing + len(rows) * WRITING_NS
        self._bare_ns += max(0, state["cpu_ns"] - tracing)

    def spans(self) -> list[Spans]:
        """Return the spans of each process."""
        import numpy as np

        from giltrace.recording.events import Spans

        return [
            Spans(
                collector="viztracer",
                pid=pid,
                sampled=False,
                names=tuple(json.loads(b'"' + name + b'"', strict=False) for name in self._names[pid]),
                spans=np.concatenate(parts),
                clock_error_ns=self._errors[pid],
                lost=self._lost[pid],
            )
            for pid, parts in self._by_pid.items()
        ]

    def status(self) -> str:
        """Return "ok" where all that ended by itself has spans, else what is missing and why."""
        partial = "; ".join(self._unreliable())
        if self._by_pid:
            return f"partial: {partial}" if partial else "ok"
        if partial:
            return f"no function spans: {partial}"
        if self._unfinished:
            return f"no function spans: {self._unfinished_text()}; let the program end by itself to get them"
        if self._reasons:
            return self._reasons[0]
        return "no function spans: no Python below the target ran its start-up code (python -I, -E or -S skip it)"

    def _unreliable(self) -> Iterator[str]:
        if self._torn:
            yield f"process {_listed(self._torn)} had no room for its calls: free space, or let it write larger files"
        if self._over:
            pid, after = next(iter(self._over.items()))
            more = f" and {len(self._over) - 1} more" if len(self._over) > 1 else ""
            yield (
                f"tracing ended {after:.2f} s after its start in process {pid}{more}, whose calls are so many that it "
                "would have cost more than 10 % of the CPU time"
            )
        if self._full:
            yield f"process {_listed(self._full)} ended when the others had written 64 MB of calls"
        if self._greenlets:
            yield f"process {_listed(self._greenlets)} used greenlets, whose switches viztracer takes for calls"
        if self._stopped:
            yield (
                f"viztracer lost track and stopped in process {_listed(self._stopped)}: an exception was thrown into a "
                "coroutine, stacks were switched, or the program set a profiler of its own"
            )

    def cost(self) -> str:
        """Return in words what tracing added to the run, and which processes are missing."""
        if not self._by_pid:
            return ""
        each = sum(self._call_ns) / len(self._call_ns)
        share = 100 * self._added_ns / max(1, self._bare_ns)
        text = f"{self._calls:,} calls x {each:.0f} ns, and to write them: {share:.1f} % more CPU time"
        if self._slowdown > _WORTH_SAYING:
            text += f", and code between calls ran up to {self._slowdown:.1f} times as long"
        if self.lost:
            text += f"; the buffer kept the last ones only, about {self.lost:,} earlier ones are lost"
        if self._unfinished:
            text += f"; {self._unfinished_text()}"
        return text + "".join(f"; {reason}" for reason in dict.fromkeys(self._reasons))

    def _unfinished_text(self) -> str:
        which = _listed(self._unfinished)
        return f"process {which} was killed, ended by os._exit or exec, put a seccomp filter on, or still runs"


def _listed(pids: list[int]) -> str:
    return ", ".join(map(str, sorted(set(pids))[:_LISTED])) + (", ..." if len(set(pids)) > _LISTED else "")
