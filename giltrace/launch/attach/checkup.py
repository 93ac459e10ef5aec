"""What each way of looking at a running process needs, and whether it is there: told before anything is touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from giltrace import installation
from giltrace.collectors import _perf
from giltrace.collectors.gil import GilCollector
from giltrace.collectors.pyspy import find_program
from giltrace.errors import TargetError
from giltrace.launch.attach import refusals
from giltrace.launch.attach.moment import expected
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.target import Target


@dataclass(frozen=True)
class Finding:
    """One way of looking: its `name`, what it `needs`, and the `problem` that stands in its way, with the remedy."""

    name: str
    needs: str
    problem: str | None


def check_up(pid: int) -> tuple[str, Sequence[Finding]]:
    """Say what process `pid` is, and what can be captured of it. Raises `TargetError` if there is no such process."""
    process = refusals.find(pid)
    target: Target | None = None
    findings = []

    def exact() -> None:
        nonlocal target
        reason = GilCollector().available(None)
        if reason is not None:
            raise TargetError(reason)
        # A filter is told beside this: what else is missing should not take a second look.
        target = refusals.check_exact(process, allow_seccomp=True)

    readable = _problem(lambda: refusals.check_readable(process))
    unread = readable or _problem(lambda: Target(process).interpreter)
    in_the_way = [_problem(exact)]
    if readable or not unread:
        in_the_way.append(_problem(lambda: refusals.check_filter(process)))
    told = "; ".join(problem for problem in in_the_way if problem) or _moments(target)
    findings.append(Finding("exact", "ptrace, and a thread at a safe moment", told))
    findings.append(Finding("observe", "to read its memory", readable or _problem(lambda: _is_python(process))))
    findings.append(Finding("sched", "perf events", _sched(pid)))
    missing = f"py-spy is not installed: {installation.with_package('py-spy')}" if find_program() is None else unread
    findings.append(Finding("py-spy", "to read its memory", missing))
    return _describe(process, target), findings


def refuse_other_than_python(pid: int) -> None:
    """Raise `TargetError` if process `pid` is seen to be no Python; one that may not be looked into passes."""
    process = refusals.find(pid)
    if _problem(lambda: refusals.check_readable(process)) is None:
        _ = Target(process).interpreter


def _problem(check: Callable[[], object]) -> str | None:
    try:
        check()
    except TargetError as error:
        return error.message + (f": {error.remedy}" if error.remedy else "")
    except OSError:
        return "it has just ended"
    return None


def _is_python(process: Process) -> None:
    """Raise `TargetError` unless it is a Python whose GIL can be read from outside."""
    refusals.check_machine(process)
    _ = Target(process).interpreter


def _moments(target: Target | None) -> str | None:
    """Look once: that no thread is at a safe moment now does not mean that none will be."""
    if target is None:
        return None
    for tid in target.process.tids():
        try:
            if expected(target, tid) is not None:
                return None
        except (OSError, KeyError):
            continue
    return "no thread is at a safe moment right now; attaching looks for one for some seconds"


def _sched(pid: int) -> str | None:
    try:
        os.close(_perf.open_switches(pid, -1, inherit=False))
    except OSError as error:
        return _perf.explain(error)
    return None


def _describe(process: Process, target: Target | None) -> str:
    words = " ".join(process.command())
    threads = len(process.tids())
    version = target.interpreter.version if target is not None else None
    python = f"Python {version[0]}.{version[1]}, " if version is not None else ""
    return f"{python}{threads} thread{'s' if threads != 1 else ''}: {words}"
