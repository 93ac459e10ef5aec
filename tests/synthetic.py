"""Timelines made up by rule: valid, of any size, and with the same content for the same arguments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from giltrace.recording.collected import CollectorReport
from giltrace.recording.events import SPAN, Spans
from giltrace.timeline.model import (
    HOLD,
    RUN,
    STATE,
    SWITCH_REQUEST,
    WAIT,
    Array,
    Flag,
    OtherTask,
    Process,
    Thread,
    Timeline,
)

START = 1_000_000_000_000
REALTIME_OFFSET = 1_700_000_000_000_000_000
BOOTTIME_OFFSET = 5_000_000_123
INTERVAL = 5_000_000

Ints = npt.NDArray[np.int64]


def make_process(
    pid: int = 4242,
    threads: int = 4,
    holds: int = 200,
    gils: int = 1,
    first_core: int = 0,
    spans: int = 0,
    sched: bool = True,
    names: Sequence[str] = (),
    empty_holds: bool = False,
    seed: int = 1,
) -> Process:
    """Make a process in which the last thread of each GIL does short I/O steps and the others count (a convoy).

    `holds` per GIL; `spans` of each collector per thread; GIL g runs on core `first_core` + g; thread names come from
    `names`, then by rule. With `empty_holds`, some holds take no time.
    """
    random = np.random.default_rng(seed)
    parts = [
        _one_gil(random, gil, threads, holds, gils, first_core, empty_holds) for gil in range(gils if holds else 0)
    ]
    held = np.concatenate([part[0] for part in parts] or [np.empty(0, HOLD)])
    order = np.argsort(held["start"], kind="stable")
    held = held[order]
    place = np.empty(len(held), np.int64)
    place[order] = np.arange(len(held))
    waits, shift = [], 0
    for part_holds, part_waits in parts:
        part_waits["hold"] = place[part_waits["hold"] + shift]
        shift += len(part_holds)
        waits.append(part_waits)
    waited = np.concatenate(waits or [np.empty(0, WAIT)])
    waited = waited[np.argsort(waited["start"], kind="stable")]
    end = int(held["end"].max(initial=START)) + 1_000_000
    runs = _runs(held) if sched else np.empty(0, RUN)
    people = tuple(
        Thread(pid + at, names[at] if at < len(names) else _name(at, threads), START, end) for at in range(threads)
    )
    return Process(
        pid=pid,
        ppid=1,
        python="3.13.1",
        cmdline="/usr/bin/python3 /srv/convoy.py --threads 4",
        start=START,
        end=end,
        threads=people,
        gils=gils,
        holds=held,
        waits=waited,
        switch_requests=_requests(waited),
        runs=runs,
        states=np.empty(0, STATE),
        has_sched=sched,
        spans=_spans(pid, people, spans, end) if spans else (),
    )


def make_timeline(
    *processes: Process,
    others: int = 0,
    machine_cores: int = 4,
    collectors: tuple[CollectorReport, ...] = (),
) -> Timeline:
    """Put processes in one timeline; `others` tasks take turns on the last core."""
    end = max((process.end for process in processes), default=START + 1_000_000_000)
    tasks = tuple(OtherTask(900_000 + at // 2 * 2, 900_000 + at, f"postgres-{at}") for at in range(others))
    edges = np.linspace(START, end, 5 * others + 1).astype(np.int64)
    runs = np.zeros(5 * others, RUN)
    runs["start"], runs["end"] = edges[:-1], edges[1:]
    runs["thread"] = np.arange(5 * others) % max(others, 1)
    runs["core"], runs["preempted"] = machine_cores - 1, np.arange(5 * others) % 3 == 0
    runs = runs[np.lexsort((runs["start"], runs["thread"]))]
    return Timeline(
        processes=processes,
        start=START,
        end=end,
        other_tasks=tasks,
        other_runs=runs,
        realtime_offset=REALTIME_OFFSET,
        boottime_offset=BOOTTIME_OFFSET,
        clock_error_ns=35,
        machine={
            "sysname": "Linux",
            "release": "6.8.0",
            "version": "#1 SMP",
            "machine": "x86_64",
            "cpus": machine_cores,
        },
        collectors=collectors,
    )


def _name(at: int, threads: int) -> str:
    if at == 0:
        return "MainThread"
    return "io-worker" if at == threads - 1 else f"cpu-worker-{at}"


def _one_gil(
    random: np.random.Generator, gil: int, threads: int, count: int, gils: int, first_core: int, empty: bool
) -> tuple[Array, Array]:
    """Return the holds and waits of one GIL; a wait's `hold` counts within this GIL's holds."""
    own = np.arange(threads)[np.arange(threads) % gils == gil] if threads > gils else np.arange(threads)
    turn = (np.cumsum(random.integers(1, max(len(own), 2), count)) % len(own)).astype(np.int64)
    short = turn == len(own) - 1
    length = np.where(short, random.integers(20_000, 200_000, count), random.integers(1_000_000, INTERVAL, count))
    if empty:
        length[random.integers(0, count, count // 5)] = 0
    # No gap now and then: a release and the next acquire within the same nanosecond.
    gap = np.where(random.random(count) < 0.2, 0, random.integers(1_000, 60_000, count))
    start = START + 1000 * (gil + 1) + np.cumsum(gap) + np.append(0, np.cumsum(length)[:-1])
    holds = np.zeros(count, HOLD)
    holds["start"], holds["end"], holds["gil"] = start, start + length, gil
    holds["thread"], holds["core"] = own[turn], first_core + gil
    holds["flags"] = np.where(length > INTERVAL * 0.7, int(Flag.FORCED), 0)
    holds["flags"][0] |= Flag.PARTIAL_START
    holds["flags"][-1] = Flag.PARTIAL_END
    holds["core"][count // 2] = -1
    return holds, _waits(random, holds, short)


def _waits(random: np.random.Generator, holds: Array, short: npt.NDArray[np.bool_]) -> Array:
    """A thread that counts asks again at once; one that does I/O asks at some time after its last hold."""
    by_thread = np.lexsort((np.arange(len(holds)), holds["thread"]))
    before = np.append(-1, by_thread[:-1])
    fresh = np.append(True, holds["thread"][by_thread][1:] != holds["thread"][by_thread][:-1])
    since = np.where(fresh, START, holds["end"][before])
    until = holds["start"][by_thread]
    delay = (until - since) * np.where(short[by_thread], random.random(len(holds)), 0.0)
    start = since + delay.astype(np.int64)
    kept = until > start
    waits = np.zeros(int(kept.sum()), WAIT)
    waits["start"], waits["end"] = start[kept], until[kept]
    waits["thread"], waits["gil"] = holds["thread"][by_thread][kept], holds["gil"][by_thread][kept]
    waits["hold"] = by_thread[kept]
    waits["timeouts"] = (waits["end"] - waits["start"]) // INTERVAL
    return waits


def _requests(waits: Array) -> Array:
    """One switch request per timed-out wait, a switch interval after it began."""
    asking = waits[waits["timeouts"] > 0]
    requests = np.zeros(len(asking), SWITCH_REQUEST)
    requests["time"] = asking["start"] + INTERVAL
    requests["thread"], requests["gil"] = asking["thread"], asking["gil"]
    return requests[np.argsort(requests["time"], kind="stable")]


def _runs(holds: Array) -> Array:
    """Every hold runs on its core, and only then; half of the forced ones are preempted."""
    held = holds[(holds["end"] > holds["start"]) & (holds["core"] >= 0)]
    runs = np.zeros(len(held), RUN)
    for name in ("start", "end", "thread", "core"):
        runs[name] = held[name]
    runs["preempted"] = ((held["flags"] & Flag.FORCED) > 0) & (held["start"] % 2 == 0)
    return runs[np.lexsort((runs["start"], runs["thread"]))]


def _spans(pid: int, threads: tuple[Thread, ...], count: int, end: int) -> tuple[Spans, ...]:
    """Functions three deep, and flat samples, for every thread; neighbours touch."""
    depth = np.append(0, 1 + np.arange(count - 1) % 3)
    groups = np.cumsum(depth == 1)
    edges = np.linspace(START, end, groups[-1] + 1).astype(np.int64)
    start = np.where(depth == 0, START, edges[np.maximum(groups - 1, 0)])
    stop = np.where(depth == 0, end, edges[groups])
    inner = np.maximum(depth - 1, 0)
    parts, samples = [], []
    for thread in threads:
        part = np.zeros(count, SPAN)
        part["start"], part["end"] = start + 10 * inner, np.maximum(stop - 20 * inner, start + 10 * inner)
        part["tid"], part["depth"], part["name"] = thread.tid, depth, np.arange(count) % 7
        parts.append(part)
        sample = np.zeros(count, SPAN)
        sample_edges = np.linspace(START, end, count + 1).astype(np.int64)
        sample["start"], sample["end"], sample["tid"] = sample_edges[:-1], sample_edges[1:], thread.tid
        sample["name"] = np.arange(count) % 2
        samples.append(sample)
    functions = tuple(f"step_{at} (convoy.py:{at})" for at in range(7))
    return (
        Spans("viztracer", pid, False, functions, np.concatenate(parts)),
        Spans("py-spy", pid, True, ("spin (convoy.py:3)", "rest (convoy.py:9)"), np.concatenate(samples), 900_000),
    )
