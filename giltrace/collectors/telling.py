"""One sentence for each dump: who was kept from going on, for how long, and by which thread's which line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.findings.deadlock import deadlock
from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.findings.stall import Stretch
from giltrace.collectors.rules.base import Caught
from giltrace.recording import snapshot
from giltrace.recording.trigger import Trigger
from giltrace.timeline import part
from giltrace.timeline.axis import Ints
from giltrace.timeline.load import load
from giltrace.timeline.model import Process, Timeline

#: So much (ns) before and after what happened is looked at too: whose lock it was shows then.
_AROUND_NS = 200_000_000


def told(folder: Path, caught: Caught) -> Trigger:
    """The trigger with its sentence, by what the recording `folder` has of it.

    Where the thread or that time is not on record, the sentence says only what was met. Raises `RecordingError`.
    """
    trigger = caught.trigger
    tell = _TELLERS.get(trigger.kind)
    if tell is None:
        return replace(trigger, sentence=f"Written on request: {trigger.rule}.")
    start = trigger.time_ns - trigger.length_ns
    around = start - _AROUND_NS, trigger.time_ns + _AROUND_NS
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as brief:
        snapshot.copy_since(folder, Path(brief), around[0])
        timeline = part.window(load(Path(brief)), *around)
    process = next((one for one in timeline.processes if _is_of(one, trigger)), None)
    if process is None:
        return replace(trigger, sentence=_met(caught, "", "the process is not on record"))
    return tell(caught, timeline, process)


def _is_of(process: Process, trigger: Trigger) -> bool:
    return process.pid == trigger.pid and process.start <= trigger.time_ns


def _of_thread(caught: Caught, timeline: Timeline, process: Process) -> Trigger:
    """Of a thread that took too long."""
    trigger = caught.trigger
    thread = max((at for at, one in enumerate(process.threads) if one.tid == trigger.tid), default=-1)
    if thread < 0:
        return replace(trigger, sentence=_met(caught, f"tid {trigger.tid}", "that thread is not on record"))
    name = process.threads[thread].name or f"tid {trigger.tid}"
    before = timeline.began_ns
    start = trigger.time_ns - trigger.length_ns
    stretch = Stretch(process, thread, start, trigger.time_ns, caught.looks, before)
    why = stretch.why()
    # What a thread that nobody waits for runs is seen from outside only.
    blind = ": it was over before giltrace looked" if caught.late and not why.seen else ""
    task = trigger.task or why.task
    lines = [*why.lines, stretch.stood()]
    where = ""
    if trigger.kind == "stall":
        coroutine = stretch.coroutine()
        lines.append(coroutine)
        where = f" in {coroutine}" if coroutine else ""
        where = f" in task {task!r}{where}" if task else where
    return replace(
        trigger,
        sentence=_met(caught, name, why.told + blind, where),
        thread=name,
        task=task,
        cause=why.cause,
        lines=tuple(dict.fromkeys(filter(None, lines))),
    )


def _met(caught: Caught, name: str, why: str, where: str = "") -> str:
    trigger = caught.trigger
    length = duration(trigger.length_ns)
    long = f"{length} so far" if caught.goes_on else length
    who = f"Thread {name!r}"
    met = {
        "wait": f"{who} waited {long} for the GIL",
        "hold": f"{who} held the GIL for {long}",
        "lock": f"{who} was kept from going on for {long}",
        "stall": f"{_capital(caught.what)} of thread {name!r} stalled for {long}{where}",
        "http-request": f"{_capital(caught.what)} took {long} in thread {name!r}",
    }.get(trigger.kind, trigger.rule)
    return f"{met}: {why}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _of_deadlock(caught: Caught, timeline: Timeline, process: Process) -> Trigger:
    found = deadlock(Figures(process))
    names = "" if found is None else found.summary
    sentence = names or f"Threads have waited for each other for {duration(caught.trigger.length_ns)}."
    thread = next((one.name for one in process.threads if one.tid == caught.trigger.tid), "")
    return replace(caught.trigger, sentence=sentence, thread=thread, cause="deadlock")


def _of_held(caught: Caught, timeline: Timeline, process: Process) -> Trigger:
    """Of a GIL that was held for most of a window: by whom, and at which line."""
    trigger = caught.trigger
    start = trigger.time_ns - trigger.length_ns
    holds = process.holds
    length: Ints = np.maximum(np.minimum(holds["end"], trigger.time_ns) - np.maximum(holds["start"], start), 0)
    head = f"The GIL was held for {percent(float(caught.what))} of {duration(trigger.length_ns)}"
    if not length.any():
        return replace(trigger, sentence=f"{head}.", cause="held")
    by_thread = np.bincount(holds["thread"], weights=length)
    most = int(by_thread.argmax())
    name = process.threads[most].name or f"tid {process.threads[most].tid}"
    line = Stretch(process, most, start, trigger.time_ns, caught.looks).stood()
    at = f", mostly at {line}" if line else ""
    share = percent(float(by_thread[most] / length.sum()))
    return replace(
        trigger,
        sentence=f"{head}: {share} of that by thread {name!r}{at}.",
        thread=name,
        cause="held",
        lines=(line,) if line else (),
    )


_TELLERS: dict[str, Callable[[Caught, Timeline, Process], Trigger]] = {
    **dict.fromkeys(("wait", "hold", "lock", "stall", "http-request"), _of_thread),
    "deadlock": _of_deadlock,
    "held": _of_held,
}
