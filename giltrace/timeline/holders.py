"""What no record tells: whose a GIL was when the tracer came to a process, and is still."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from giltrace.recording.events import GIL_EVENT, ProcessEvents, ThreadInfo
from giltrace.recording.layout import NO_CORE, Kind
from giltrace.recording.order import joined


def with_holders(
    processes: Iterable[ProcessEvents], holders: Sequence[Sequence[int]], names: Mapping[str, str]
) -> list[ProcessEvents]:
    """Begin the holds that never ended: `holders` and `names` as in `Meta`.

    From the tracer's coming on each release is on record. A GIL that was held then, and of which there is none, was
    held all the time; one that was free, and that nobody took or asked for, was free all the time.
    """
    told = []
    left = {one[0] for one in holders}
    for process in processes:
        if process.pid in left and not process.not_python:
            left.remove(process.pid)  # the program that it goes on with, if it does, begins anew
            mine = [(tid, address) for pid, tid, address in holders if pid == process.pid]
            process = _with(process, mine, names)
        told.append(process)
    return told


def _with(process: ProcessEvents, holders: Sequence[tuple[int, int]], names: Mapping[str, str]) -> ProcessEvents:
    if process.lost or process.sampling is not None:
        return process
    turns = process.events[np.isin(process.events["kind"], (Kind.ACQUIRE, Kind.RELEASE))]
    gils, threads = list(process.gils), list(process.threads)
    begun = []
    for tid, address in holders:
        if address not in gils and 0 in gils:
            gils[gils.index(0)] = address  # that of the main interpreter, which nobody let go of
        elif address not in gils:
            gils.append(address)
        gil = gils.index(address)
        if tid and gil not in turns["gil"]:
            thread = next((index for index, one in enumerate(threads) if one.tid == tid), len(threads))
            if thread == len(threads):
                threads.append(ThreadInfo(tid, names.get(str(tid), "")))
            begun.append((process.start, NO_CORE, thread, gil, Kind.ACQUIRE, 0, -1))
    if not begun:
        free = bool(holders) and not len(process.events)
        return replace(process, unused=True, note="its GIL was free all the time") if free else process
    rows = np.array(begun, GIL_EVENT)
    outlined = process.outlined
    if outlined is not None:
        outlined = replace(outlined, begun=rows, holds=outlined.holds + len(rows))
    events = joined([rows, process.events], GIL_EVENT)
    return replace(process, events=events, gils=tuple(gils), threads=tuple(threads), note="", outlined=outlined)
