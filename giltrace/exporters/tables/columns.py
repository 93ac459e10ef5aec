"""A timeline as tables: the columns that CSV and Parquet files have, in pieces that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.measure.own_code import own_stacks
from giltrace.analysis.measure.own_line import of_libraries
from giltrace.analysis.measure.roles import roles
from giltrace.analysis.measure.tasks import Spent, Tasks, find_tasks, spent, tasks_of
from giltrace.analysis.site import Site, frame_text
from giltrace.exporters._names import command_words
from giltrace.exporters._places import KNOWN_BY
from giltrace.exporters.tables.image import Image, images
from giltrace.exporters.tables.sums import blame, waiting
from giltrace.exporters.tables.texts import Columns, Texts
from giltrace.recording.events import FRAME, StackTable
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Array, BlockEnd, Flag, Host, LockKind, State, Timeline

_PARTIAL = Flag.PARTIAL_START | Flag.PARTIAL_END
_KNOWN_BY = list(KNOWN_BY.values())
#: Stacks of one piece: there can be a hundred frames of each.
_STACKS = 1 << 10
_NO_STACKS = StackTable(np.empty(0, FRAME), np.zeros(1, np.int64), np.empty(0, np.bool_), ())


def _hosts(image: Image) -> Iterator[Columns]:
    """The machines, told with the first process: one, unless the recording is of several."""
    timeline = image.timeline
    alone = Host("", timeline.machine, 0, timeline.clock_error_ns)
    hosts = (timeline.hosts or (alone,)) if image.number == 0 else ()
    texts = {name: name for name in ("hostname", "boot_id", "sysname", "release")}
    texts |= {"kernel": "version", "machine": "machine"}
    times = {
        "start": timeline.start,
        "end": timeline.end,
        "duration": timeline.end - timeline.start,
        "realtime_offset": timeline.realtime_offset,
        "boottime_offset": timeline.boottime_offset,
    }
    yield {
        "host": _numbers(list(range(len(hosts)))),
        **{column: _distinct([str(host.machine.get(name, "")) for host in hosts]) for column, name in texts.items()},
        "cores": _numbers([int(host.machine.get("cpus", 0)) for host in hosts]),
        **{name: np.full(len(hosts), value) for name, value in times.items()},
        "clock_error": _numbers([host.error_ns for host in hosts]),
    }


def _processes(image: Image) -> Iterator[Columns]:
    process = image.process
    yield {
        "image": _numbers([image.number]),
        "host": _numbers([0 if process.member is None else process.member.host]),
        "pid": _numbers([process.pid]),
        "ppid": _numbers([process.ppid]),
        "process": _distinct([command_words(process)[0]]),
        "python": _distinct([process.python]),
        "cmdline": _distinct([process.cmdline]),
        "start": _numbers([process.start]),
        "end": _numbers([process.end]),
        "duration": _numbers([process.end - process.start]),
        "gils": _numbers([process.gils]),
        "has_sched": np.array([process.has_sched], np.bool_),
        "lost": _numbers([process.lost]),
        "lost_stacks": _numbers([process.lost_stacks]),
        "first_hold": _numbers([image.first_hold]),
    }


def _threads(image: Image) -> Iterator[Columns]:
    each = image.process.chosen_threads
    threads = [image.process.threads[at] for at in each]
    role = roles(image.process)
    yield {
        "image": np.full(len(each), image.number),
        "pid": np.full(len(each), image.process.pid),
        "thread_id": _numbers(each) + image.first_thread,
        "tid": _numbers([thread.tid for thread in threads]),
        "thread": _distinct([image.labels[at] for at in each]),
        "role": _distinct([role[at] for at in each]),
        "start": _numbers([thread.start for thread in threads]),
        "end": _numbers([thread.end for thread in threads]),
        "duration": _numbers([thread.end - thread.start for thread in threads]),
        "lost": _numbers([thread.lost for thread in threads]),
    }


def _holds(image: Image) -> Iterator[Columns]:
    process, places = image.process, image.places
    for at, rows in image.pieces(process.holds, image.own(process.holds)):
        stack = places.hold_stack[at]
        yield {
            "hold": image.first_hold + at,
            **_interval(image, rows),
            "gil": rows["gil"],
            "core": rows["core"],
            "forced": _flagged(rows, Flag.FORCED),
            **_partial(rows),
            "site": Texts(places.site(stack), places.texts),
            "own_line": Texts(places.own_line(stack), places.texts),
            "known_by": Texts(places.hold_source[at], _KNOWN_BY),
            "stack": image.stack_ids(stack),
            **_handed_to(image, at, rows),
        }


def _handed_to(image: Image, at: Ints, rows: Array) -> Columns:
    """Who took the GIL next, how long after the release, and whether it waited by then; nobody else: -1."""
    holds, on = image.process.holds, image.handed_on[at]
    after = image.relations.following[at[on]]
    # Nobody is -1, the last of the names.
    taker, latency = np.full((2, len(at)), -1, np.int64)
    taker[on], latency[on] = holds["thread"][after], holds["start"][after] - rows["end"][on]
    return {
        "to_thread_id": np.where(on, taker + image.first_thread, -1),
        "to_tid": np.append(image.tids, -1)[taker],
        "to_thread": Texts(taker % (len(image.labels) + 1), [*image.labels, ""]),
        "handoff_ns": latency,
        "to_waited": on & image.relations.arrow_out[at],
    }


def _waits(image: Image) -> Iterator[Columns]:
    process, places = image.process, image.places
    for at, rows in image.pieces(process.waits, image.own(process.waits)):
        stack, culprit_stack = places.wait_stack[at], places.culprit_stack[at]
        yield {
            **_interval(image, rows),
            "gil": rows["gil"],
            "timeouts": rows["timeouts"],
            "hold": np.where(rows["hold"] >= 0, rows["hold"] + image.first_hold, -1),
            **_partial(rows),
            "site": Texts(places.site(stack), places.texts),
            **_culprits(image, at),
            "own_line": Texts(places.own_line(stack), places.texts),
            "culprit_own_line": Texts(places.own_line(culprit_stack), places.texts),
            "culprit_known_by": Texts(places.culprit_source[at], _KNOWN_BY),
            "stack": image.stack_ids(stack),
            "culprit_stack": image.stack_ids(culprit_stack),
        }


def _culprits(image: Image, at: Ints) -> Columns:
    """Who held the GIL during each wait: the culprit, where it stood and its share, and the next two."""
    names = [*image.labels, ""]
    places, found = image.places, image.places.culprits
    # Nobody is -1, the last of the names.
    first, second, third = (Texts(found.thread[at, place] % len(names), names) for place in range(3))
    return {
        "culprit": first,
        "culprit_site": Texts(places.site(places.culprit_stack[at]), places.texts),
        "culprit_ns": found.ns[at, 0],
        "culprit_share": np.round(places.share(at), 4),
        "second_culprit": second,
        "second_culprit_ns": found.ns[at, 1],
        "third_culprit": third,
        "third_culprit_ns": found.ns[at, 2],
    }


def _blocks(image: Image) -> Iterator[Columns]:
    process, places = image.process, image.places
    for at, rows in image.pieces(process.blocks):
        stack, waker_stack = places.block_stack[at], places.wake_stack[at]
        # Nobody is -1, the last of the names.
        waker = rows["waker"].astype(np.int64)
        yield {
            "block": image.first_block + at,
            **_interval(image, rows),
            "cause": Texts(places.block_cause[at], [cause.label for cause in BlockCause]),
            "lock": places.block_lock[at],
            "lock_kind": Texts(process.locks["kind"][rows["lock"]], [kind.label for kind in LockKind]),
            "ended": Texts(rows["ended"], [end.label for end in BlockEnd]),
            "timed": rows["timed"] != 0,
            "owned": rows["owned"] != 0,
            "site": Texts(places.site(stack), places.texts),
            "own_line": Texts(places.own_line(stack), places.texts),
            "stack": image.stack_ids(stack),
            "waker_thread_id": np.where(waker >= 0, waker + image.first_thread, -1),
            "waker_tid": np.append(image.tids, -1)[waker],
            "waker": Texts(waker % (len(image.labels) + 1), [*image.labels, ""]),
            "woken": np.where(waker >= 0, rows["woken"], -1),
            "waker_site": Texts(places.site(waker_stack), places.texts),
            "waker_own_line": Texts(places.own_line(waker_stack), places.texts),
            "waker_stack": image.stack_ids(waker_stack),
        }


def _held_locks(image: Image) -> Iterator[Columns]:
    """What blocked threads had taken meanwhile."""
    process = image.process
    held = process.held[process.of_chosen(process.blocks)[process.held["block"]]]
    yield {
        "image": np.full(len(held), image.number),
        "pid": np.full(len(held), process.pid),
        "block": image.first_block + held["block"],
        "lock": held["lock"].astype(np.int64) + 1,
    }


def _tasks(image: Image) -> Iterator[Columns]:
    """The tasks of a scheduler, with what each lost: those of the chosen threads."""
    process, tasks = image.process, tasks_of(image.process, image.timeline.merged)
    none = np.empty(0, np.int64)
    if tasks is None:
        tasks, found = Tasks(none, none, none, none, none, (), ()), Spent(none, none, none, none, none)
    else:
        found = spent(process, tasks)
    rows = np.zeros(len(tasks.start), [("start", "<i8"), ("end", "<i8"), ("thread", "<u4")])
    rows["start"], rows["end"], rows["thread"] = tasks.start, tasks.end, tasks.thread
    for at, piece in image.pieces(rows):
        yield {
            **_interval(image, piece),
            "key": Texts(tasks.key[at], tasks.keys),
            "prefix": Texts(tasks.prefix[at], tasks.prefixes),
            "waits": found.waits[at],
            "waited": found.waited[at],
            "held": found.held[at],
            "blocked": found.blocked[at],
        }


def _task_blame(image: Image) -> Iterator[Columns]:
    """Which kind of task waited for which, at which lines; the largest."""
    found = find_tasks(image.process, image.timeline.merged, image.places.block_cause, image.places.sites)
    rows = found.blame
    yield {
        "image": np.full(len(rows), image.number),
        "pid": np.full(len(rows), image.process.pid),
        "prefix": _distinct([row.prefix for row in rows]),
        "own_line": _distinct([_line(row.victim) for row in rows]),
        "cause": _distinct([row.cause for row in rows]),
        "culprit_prefix": _distinct([row.culprit_prefix for row in rows]),
        "culprit_own_line": _distinct([_line(row.culprit) for row in rows]),
        "times": _numbers([row.count for row in rows]),
        "duration": _numbers([row.ns for row in rows]),
        "max_duration": _numbers([row.max_ns for row in rows]),
    }


def _line(site: Site | None) -> str:
    """The own line of a site, or the leaf; empty for none."""
    return "" if site is None else frame_text(site.own_frame)


def _stacks(image: Image) -> Iterator[Columns]:
    """The frames of all stacks, one row each, the innermost of a stack first."""
    known = image.process.stacks
    table = known.table if known is not None else _NO_STACKS
    own_file, foreign = ~of_libraries(table), own_stacks(table)
    for first in range(0, max(len(table), 1), _STACKS):
        offsets = table.offsets[first : first + _STACKS + 1]
        depth = np.diff(offsets)
        of = np.repeat(np.arange(len(depth)), depth)
        frames = table.frames[offsets[0] : offsets[-1]]
        lines = [(table.strings[f["function"]], table.strings[f["file"]], int(f["line"])) for f in frames]
        yield {
            "image": np.full(len(of), image.number),
            "stack": image.first_stack + first + of,
            "depth": depth[of],
            "position": np.arange(len(of)) - (offsets[:-1] - offsets[0])[of],
            "function": _distinct([function for function, _, _ in lines]),
            "file": _distinct([file for _, file, _ in lines]),
            "line": _numbers([max(line, 0) for _, _, line in lines]),
            "text": _distinct([frame_text(line) for line in lines]),
            "own": own_file[frames["file"]] & ~foreign[first + of],
            "truncated": table.truncated[first + of],
        }


def _switch_requests(image: Image) -> Iterator[Columns]:
    requests = image.process.switch_requests
    for _, rows in image.pieces(requests, image.own(requests)):
        yield {**_whose(image, rows), "time": rows["time"], "gil": rows["gil"]}


def _states(image: Image) -> Iterator[Columns]:
    names = [state.label for state in State]
    for _, rows in image.pieces(image.process.states):
        yield {**_interval(image, rows), "state": Texts(rows["state"], names)}


def _runs(image: Image) -> Iterator[Columns]:
    for _, rows in image.pieces(image.process.runs):
        yield {**_interval(image, rows), "core": rows["core"], "preempted": rows["preempted"] != 0}


#: The tables by name. Each yields at least one piece for each image, so that columns and types are always known.
TABLES: dict[str, Callable[[Image], Iterator[Columns]]] = {
    "hosts": _hosts,
    "processes": _processes,
    "threads": _threads,
    "holds": _holds,
    "waits": _waits,
    "blocks": _blocks,
    "held_locks": _held_locks,
    "blame": blame,
    "tasks": _tasks,
    "task_blame": _task_blame,
    "waiting": waiting,
    "stacks": _stacks,
    "switch_requests": _switch_requests,
    "states": _states,
    "runs": _runs,
}


def table_of(timeline: Timeline, name: str) -> Iterator[Columns]:
    """One table (a name in `TABLES`) of all processes."""
    for image in images(timeline):
        yield from TABLES[name](image)


def _whose(image: Image, rows: Array) -> Columns:
    return {
        "image": np.full(len(rows), image.number),
        "pid": np.full(len(rows), image.process.pid),
        "thread_id": image.first_thread + rows["thread"].astype(np.int64),
        "tid": image.tids[rows["thread"]],
        "thread": Texts(rows["thread"], image.labels),
    }


def _interval(image: Image, rows: Array) -> Columns:
    own = {"start": rows["start"], "end": rows["end"], "duration": rows["end"] - rows["start"]}
    return {**_whose(image, rows), **own}


def _partial(rows: Array) -> Columns:
    return {
        "partial": _flagged(rows, _PARTIAL),
        "partial_start": _flagged(rows, Flag.PARTIAL_START),
        "partial_end": _flagged(rows, Flag.PARTIAL_END),
    }


def _flagged(rows: Array, flag: Flag) -> npt.NDArray[np.bool_]:
    marked: npt.NDArray[np.bool_] = (rows["flags"] & np.uint8(flag)) != 0
    return marked


def _numbers(values: list[int]) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def _distinct(texts: list[str]) -> Texts:
    place: dict[str, int] = {}
    index = [place.setdefault(text, len(place)) for text in texts]
    return Texts(np.array(index, np.int64), list(place))
