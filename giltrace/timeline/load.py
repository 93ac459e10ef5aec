"""A recording on disk to its timeline."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from giltrace.errors import RecordingError
from giltrace.recording.collected import CollectorReport
from giltrace.recording.cores import read_cores
from giltrace.recording.density import Density, TooMany
from giltrace.recording.door import MAX_TIME, Damaged, Times, leaving_out, matching
from giltrace.recording.events import ProcessEvents, SchedEvents, Spans
from giltrace.recording.fleet import Fleet, read_fleet
from giltrace.recording.folder import GIL_NAME
from giltrace.recording.gathering import MOST_BYTES, Edges, Gatherer
from giltrace.recording.gil import Sieve, read_processes
from giltrace.recording.merged import read_merged
from giltrace.recording.meta import Meta
from giltrace.recording.native_code import read_native_code
from giltrace.recording.outline import Outliner
from giltrace.recording.packed import size_of
from giltrace.recording.sched import complete_from, has_sched, most_switches, read_sched, switch_times
from giltrace.recording.spans import read_spans
from giltrace.timeline.axis import Ints
from giltrace.timeline.build import build_timeline
from giltrace.timeline.cores import with_cores
from giltrace.timeline.fleet import join
from giltrace.timeline.holders import with_holders
from giltrace.timeline.model import STOP, Array, Process, Timeline
from giltrace.timeline.sleepers import with_sleepers

#: A thread that has ended is off its core so long afterwards at most.
_LEAVING_NS = 100_000_000


class _How(NamedTuple):
    """How much of a recording is read: see `load`."""

    gathered: bool = False
    whole: Sequence[tuple[int, int]] = ()
    outline: bool = False
    window: tuple[int, int] | None = None
    density: Density | None = None


def load(
    folder: Path,
    *,
    gathered: bool | None = False,
    whole: Sequence[tuple[int, int]] = (),
    parts: Sequence[str] | None = None,
    outline: bool = False,
    window: tuple[int, int] | None = None,
    density: Density | None = None,
) -> Timeline:
    """Read the recording `folder` and build its timeline.

    With `gathered`, for figures, holds that cost nobody anything are added up (`recording.gathering`): sums, counts and
    whatever is told of waits are the same. None: if the recording is so long that it would take seconds else. In the
    times of `whole`, [start, end) in ns, every hold is there. Of a recording of several machines, `parts` are the names
    of those that are read, all by default. Of an `outline` the processes have a few of their holds and waits and no
    states, and say how the others are read in windows (`timeline.windows`).

    A recording that was cut short is read as far as it goes. Raises `RecordingError` if `folder` is none, was written
    by another version, or cannot be read.
    """
    with unreadable_told(folder):
        if outline:
            return _load(folder, _How(outline=True))
        sums = is_long(folder) if gathered is None else gathered
        fleet = read_fleet(folder)
        if fleet.parts:
            return _load_fleet(folder, fleet, _How(sums, whole), parts)
        return _noting(_load(folder, _How(sums, whole, window=window, density=density)), fleet)


@contextlib.contextmanager
def unreadable_told(folder: Path) -> Iterator[None]:
    """Raise `RecordingError` for what of a recording cannot be read within the block."""
    try:
        yield
    except OSError as error:
        raise RecordingError.unreadable(error.filename or folder, error) from None


def is_long(folder: Path) -> bool:
    """Whether it would take seconds to work on every hold of the recording `folder`."""
    total = 0
    for one in (folder, *(folder / part.folder for part in read_fleet(folder).parts)):
        total += _size(one, MOST_BYTES - total)
        if total > MOST_BYTES:
            return True
    return False


def _size(folder: Path, enough: int) -> int:
    total, refused = 0, list[Damaged]()
    if not folder.is_dir():
        return 0
    for path in matching(folder, GIL_NAME.fullmatch):
        if total > enough:
            break
        with leaving_out(path, refused):
            total += size_of(path, enough - total)
    return total


def _noting(timeline: Timeline, fleet: Fleet) -> Timeline:
    return replace(timeline, damage=(*timeline.damage, *fleet.told))


def _load_fleet(folder: Path, fleet: Fleet, how: _How, wanted: Sequence[str] | None) -> Timeline:
    """Read a recording with its parts."""
    timeline = _noting(_load(folder, how), fleet)
    times, found = Times.of(timeline.start, timeline.end), []
    for part in fleet.parts if wanted is None else (one for one in fleet.parts if one.folder in wanted):
        its = [(start - part.offset_ns, end - part.offset_ns) for start, end in how.whole]
        try:
            one, problem = _load(folder / part.folder, how._replace(whole=its)), ""
            if not times.have(np.array([one.start, one.end]) + part.offset_ns).all():
                problem = "its clock is not where it is said to be"
        except RecordingError as error:
            problem = error.message
        if problem:
            told = f"worker {part.worker} on {part.host}: {problem}: left out"
            timeline = replace(timeline, damage=(*timeline.damage, told))
        else:
            found.append((part, one))
    return join(timeline, found) if found else timeline


def _load(folder: Path, how: _How) -> Timeline:
    meta = Meta.read(folder)
    known_until = _known_until(meta)
    times, damage = Times.of(meta.start_ns, meta.end_ns), list[str]()
    sched, density = None, how.density
    if has_sched(folder) and (density is None or most_switches(folder) <= density.most):
        sched = _of_the_program(read_sched(folder, times, damage, how.window), meta)
    switches = switch_times(folder, times) if sched is None else sched.switches["time"]
    if density is not None:
        density.add(switches)
    processes, clock_error_ns = read_processes(folder, times, damage, _sieve(how, meta, switches))
    if density is not None and (density.too_many or (sched is None and has_sched(folder))):
        raise TooMany(density)
    complete = complete_from(folder, times)
    if known_until is not None:
        processes = [_until(process, known_until) for process in processes]
    processes = [_as_seen_here(_since(process, complete), meta) for process in processes]
    if sched is None:  # else the kernel knows, and more exactly
        processes = _as_long_as_known(processes, meta, times)
    processes = with_holders(processes, meta.holders, meta.thread_names)
    asleep = [one for one in meta.asleep if times.have(np.array([one.seen_ns, one.last_ns])).all()]
    processes = with_sleepers(processes, asleep, meta.thread_names)
    told = (process.with_edges["time"] for process in processes)
    last = max((int(one[-1]) for one in told if len(one)), default=meta.start_ns)
    spans = [_spans_as_seen_here(spans, meta) for spans in read_spans(folder, times=times, damage=damage)]
    # A sampling profiler is stopped after the tracer: what it saw then is no part of this.
    end = max(last, meta.end_ns or MAX_TIME)
    spans = [one.until(end) if one.sampled else one for one in spans]
    merged = tuple(read_merged(folder, times, damage))
    cores = read_cores(folder, times, damage)
    code = read_native_code(folder, times, damage)
    timeline = build_timeline(
        processes,
        sched,
        spans,
        # Of a flight recorder's ring, what came before is gone.
        start=min(process.start for process in processes) if any(p.overwritten for p in processes) else meta.start_ns,
        end=max(meta.end_ns or last, meta.start_ns),
        realtime_offset=meta.realtime_offset_ns,
        boottime_offset=meta.boottime_offset_ns,
        clock_error_ns=clock_error_ns,
        machine=meta.machine,
        collectors=[CollectorReport(**report) for report in meta.collectors],
        trigger=meta.trigger,
        unfinished=not meta.finished,
        damage=damage,
    )
    known = (replace(process, native_code=code) for process in timeline.processes)
    built = tuple(_with_footprint(_with_end(process, meta, last), meta) for process in known)
    whole_run = meta.exit_status is not None
    return replace(
        timeline, processes=with_cores(built, cores, meta.ids), whole_run=whole_run, merged=merged, ended=meta.ended
    )


def _sieve(how: _How, meta: Meta, switches: Ints) -> Callable[[], Sieve] | None:
    """What makes a sieve for each file, if there is to be one."""
    if how.outline:
        return Outliner
    if not how.gathered and how.window is None:
        return None
    whole = list(how.whole)
    if how.window is not None:
        # No hold that was made of others reaches across its edges, where it is cut.
        whole += [(edge, edge) for edge in how.window] if how.gathered else [how.window]
    edges = Edges.of(switches, meta.start_ns, meta.end_ns or time.monotonic_ns(), whole)
    if how.window is None:
        return lambda: Gatherer(edges, how.density)
    from giltrace.recording.excerpt import Excerptor

    start, end = how.window
    return lambda: Excerptor(start, end, Gatherer(edges))


def _known_until(meta: Meta) -> int | None:
    """Until when the events of all threads are there, None if to the end: they are read one after the other.

    What a recorder that was killed has left may be written to until its program ends.
    """
    if meta.trigger is not None:
        return meta.end_ns
    return time.monotonic_ns() if not meta.finished and meta.is_of_this_boot else None


def _with_end(process: Process, meta: Meta, last: int) -> Process:
    """Say whether the process outlived its recording: the kernel saw no end of it, or nobody waited for that."""
    outlived = process.end >= (meta.end_ns or last) if process.has_sched else meta.exit_status is None
    return replace(process, end_of="recording") if outlived else process


def _with_footprint(process: Process, meta: Meta) -> Process:
    """Say what giltrace itself did to a process that ran already."""
    index = {thread.tid: number for number, thread in enumerate(process.threads)}
    stops = [(begin, end, index[tid]) for tid, begin, end in meta.stops if tid in index]
    # Who has started a program waits for its end.
    left = meta.finished and meta.exit_status is None and meta.trigger is None and process.sampling is None
    return replace(process, stops=np.array(stops, STOP), left=left)


def _as_long_as_known(processes: Sequence[ProcessEvents], meta: Meta, times: Times) -> list[ProcessEvents]:
    """Say until when processes ran that were seen to: who computes writes no record for as long as it likes.

    Where records are lost, the last one that is there does not tell what went on: such a process ends with it.
    """
    newest = {process.pid: index for index, process in enumerate(processes)}
    told = list(processes)
    for pid, until in meta.lived:
        index = newest.get(pid)
        if index is not None and not told[index].lost and times.have(np.array([until])).all():
            told[index] = replace(told[index], known_until=until)
    return told


def _since(process: ProcessEvents, begin: int) -> ProcessEvents:
    """Leave out what happened before `begin`: of a ring, that of which the cores are not known any more."""
    if process.start >= begin:
        return process
    kept = process.events[np.searchsorted(process.events["time"], begin) :]
    gone = process.overwritten + len(process.events) - len(kept)
    return replace(process, events=kept, start=begin, overwritten=gone, edges=_clipped(process.edges, begin, MAX_TIME))


def _until(process: ProcessEvents, end: int) -> ProcessEvents:
    """Leave out what happened after `end`: one thread's chunks were copied after the next one's."""
    events = process.events[: np.searchsorted(process.events["time"], end, "right")]
    return replace(process, events=events, edges=_clipped(process.edges, 0, end))


def _clipped(edges: Array, begin: int, end: int) -> Array:
    """The edges of threads' lives: who lived before or after these times lived up to there."""
    rows: Array = edges.copy()
    rows["time"] = np.clip(rows["time"], begin, end)
    return rows


def _as_seen_here(process: ProcessEvents, meta: Meta) -> ProcessEvents:
    """Give a process the ids that it has here, and old threads and pieces of code the names that people know."""
    names = dict(meta.thread_names)
    # Seen from outside, they have these ids already.
    ids = meta.ids if process.sampling is None else {}
    threads = []
    for thread in process.threads:
        tid = ids.get(str(thread.tid), thread.tid)
        # Once only: a later thread that has the same id has its own name.
        threads.append(thread._replace(tid=tid, name=names.pop(str(tid), thread.name)))
    pid = ids.get(str(process.pid), process.pid)
    stacks = process.stacks
    if stacks is not None and meta.files:
        stacks = replace(stacks, strings=tuple(meta.files.get(text, text) for text in stacks.strings))
    return replace(process, pid=pid, threads=tuple(threads), stacks=stacks)


def _spans_as_seen_here(spans: Spans, meta: Meta) -> Spans:
    """The same for the threads of spans. A collector may have found out the ids here itself."""
    here = set(meta.ids.values())
    inside = {int(tid): there for tid, there in meta.ids.items() if int(tid) not in here}
    used, of_row = np.unique(spans.spans["tid"], return_inverse=True)
    if not inside.keys() & set(used.tolist()):
        return spans
    rows = spans.spans.copy()
    rows["tid"] = np.array([inside.get(tid, tid) for tid in used.tolist()], rows["tid"].dtype)[of_row]
    return spans._replace(spans=rows[np.lexsort((rows["depth"], rows["start"], rows["tid"]))])


def _of_the_program(sched: SchedEvents, meta: Meta) -> SchedEvents:
    """Give threads that are older than the recording their names, and leave out those that were giltrace's own."""
    names = {**sched.names, **{int(tid): name for tid, name in meta.thread_names.items()}}
    switches, tasks = sched.switches, sched.tasks
    for tid, begin, end in meta.own_threads:
        switches, tasks = (
            rows[(rows["tid"] != tid) | (rows["time"] < begin) | (rows["time"] > end + _LEAVING_NS)]
            for rows in (switches, tasks)
        )
    return replace(sched, switches=switches, tasks=tasks, names=names)
