"""The group of one GIL: who holds it, how many wait for it, who asked for it, how good its recording is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from giltrace.analysis.measure.sampling import describe_sampling
from giltrace.exporters._names import command_words
from giltrace.exporters._relations import Relations, waiting_counts
from giltrace.exporters.perfetto import colours
from giltrace.exporters.perfetto.packets import Bytes, Field, Ints, Shape
from giltrace.exporters.perfetto.protos import packet, pb
from giltrace.exporters.perfetto.sink import Sink
from giltrace.exporters.perfetto.slices import PIECE, Slices, end_shape, write_slices
from giltrace.exporters.perfetto.stacks import StackTexts
from giltrace.exporters.perfetto.thinned import CATEGORY, Steps, write_counter
from giltrace.timeline.model import Process, Timeline

#: Characters of a command that the name of a track has.
_COMMAND = 24


def group_track(sink: Sink, process: Process, gil: int) -> int:
    """Return the uuid of a GIL's group; at the root, because below its process it would end under all threads."""
    name = f"GIL (pid {process.pid})" if process.gils <= 1 else f"GIL {gil} (pid {process.pid})"
    if process.sampling is not None:
        name += ", sampled"
    return sink.track(("group", process.pid, gil), name=name)


def write_group(
    sink: Sink,
    process: Process,
    gil: int,
    names: list[str],
    labels: Ints,
    relations: Relations,
    texts: StackTexts,
    steps: Steps | None,
    *,
    alone: bool,
) -> None:
    """Write the tracks of one GIL. `names` has each thread's name, `labels` its interned annotation value.

    If the process is not `alone` in the trace, the holder's track names it: that is looked at without its group. In a
    thinned trace `steps` are where the events are not, and how much the GIL was held is told everywhere.
    """
    group = group_track(sink, process, gil)
    _write_holder(sink, process, gil, group, _holder_title(process, gil, alone), names, steps)
    _write_waiting(sink, process, gil, group, steps)
    _write_requests(sink, process, gil, group, labels, relations)
    _write_culprits(sink, process, gil, group, texts)
    if steps is not None:
        unit = pb.CounterDescriptor(unit_name="%")
        held = sink.track(("held", group), group, name="GIL held, in percent", rank=6, counter=unit)
        write_counter(sink, held, *steps.held(gil))


def write_quality(sink: Sink, timeline: Timeline, process: Process, thinned: str) -> None:
    """Say in the process's first group how far the recording can be trusted, as one instant at its start.

    `thinned` says what of it is not in the trace; it is empty if all is.
    """
    violations = process.violations
    held = f"{len(violations)} VIOLATIONS" if violations else "invariants hold"
    sampled = describe_sampling(process.sampling)
    held = f"SAMPLED, {held}" if sampled else held
    title = f"{held}, {process.lost} events lost, clock error {timeline.clock_error_ns} ns"
    notes = [sink.annotation(f"violation {at}", string_value=text) for at, text in enumerate(violations, 1)]
    facts: dict[str, str | int] = {
        "thinned": thinned,
        "note": process.note,
        "sampled": sampled,
        "lost events": process.lost,
        "lost stacks": process.lost_stacks,
        "lost context switches": timeline.sched_lost,
        "clock error (ns)": timeline.clock_error_ns,
        "python": process.python,
        "command": process.cmdline,
    }
    for number, remark in enumerate(timeline.remarks, 1):
        facts[f"remark {number}"] = remark
    for report in timeline.collectors:
        quality = f"clock error {report.clock_error_ns} ns; lost {report.lost}"
        facts[f"collector {report.name}"] = f"{report.status}; {quality}"
    for name, fact in facts.items():
        if fact != "":
            value = {"int_value": fact} if isinstance(fact, int) else {"string_value": fact}
            notes.append(sink.annotation(name, **value))
    group = group_track(sink, process, 0)
    event = pb.TrackEvent(
        type=pb.TrackEvent.TYPE_INSTANT,
        track_uuid=sink.track(("quality", group), group, name="recording", rank=4),
        category_iids=[int(sink.categories(["gil"])[0])],
        name_iid=int(sink.names([title])[0]),
        debug_annotations=notes,
    )
    sink.write(packet(timestamp=process.start, track_event=event))
    trigger = timeline.trigger
    if trigger is not None and trigger.pid in (0, process.pid):
        told = pb.TrackEvent(
            type=pb.TrackEvent.TYPE_INSTANT,
            track_uuid=sink.track(("trigger", group), group, name="trigger", rank=5),
            category_iids=[int(sink.categories(["gil"])[0])],
            name_iid=int(sink.names([str(trigger)])[0]),
        )
        sink.write(packet(timestamp=trigger.time_ns, track_event=told))


def _holder_title(process: Process, gil: int, alone: bool) -> str:
    title = "holder" if process.gils <= 1 else f"holder, GIL {gil}"
    return title if alone else f"{title}, pid {process.pid} {' '.join(command_words(process))[:_COMMAND]}".rstrip()


def _write_holder(
    sink: Sink, process: Process, gil: int, group: int, title: str, names: list[str], steps: Steps | None
) -> None:
    """One slice per hold, named and coloured by its thread; paler names are those of steps."""
    holds = process.holds[process.holds["gil"] == gil]
    ids = sink.names(names)
    track = sink.track(("holder", group), group, name=title, rank=0)
    palette = [colours.correlation_id("thread ", *colour) for colour in colours.HOLDERS[: len(process.threads)]]
    colour = sink.colours(palette)

    def coloured(thread: Ints) -> Ints:
        found: Ints = colour[thread % max(len(palette), 1)]
        return found

    slices = [
        _named(sink, track, holds["start"], holds["end"], ids[holds["thread"]], colour=coloured(holds["thread"])),
    ]
    if steps is not None:
        start, end, thread = steps.holders(process, gil)
        mostly = sink.names([f"mostly {name}" for name in names])[thread]
        notes = [sink.text("thinned", steps.told)]
        slices.append(_named(sink, track, start, end, mostly, colour=coloured(thread), notes=notes, category=CATEGORY))
    write_slices(sink, slices)


def _named(
    sink: Sink,
    track: int,
    start: Ints,
    end: Ints,
    name: Ints,
    colour: Ints | None = None,
    notes: Sequence[Any] = (),
    told: Mapping[str, Ints] | None = None,
    category: str = "gil",
) -> Slices:
    """Slices of one track, sorted by start, with their interned names and colours (default: by name).

    `notes` are the annotations that all of them have, `told` the interned values of further ones: of each row all or,
    where the first is 0, none.
    """
    category_id = int(sink.categories([category])[0])
    told = told or {}

    def build(value: Mapping[str, int]) -> Any:
        more = [sink.annotation(key, string_value_iid=value[key]) for key in told if key in value]
        event = pb.TrackEvent(
            type=pb.TrackEvent.TYPE_SLICE_BEGIN,
            track_uuid=value["uuid"],
            category_iids=[category_id],
            name_iid=value["name"],
            debug_annotations=[*notes, *more],
        )
        if colour is not None:
            event.correlation_id_str_iid = value["colour"]
        return packet(timestamp=value["time"], track_event=event)

    columns = {"time": Field.TIME, "uuid": Field.UUID, "name": Field.IID}
    columns |= {"colour": Field.SMALL} if colour is not None else {}
    shapes = [Shape(build, columns), Shape(build, columns | dict.fromkeys(told, Field.IID))]

    def begin(kind: int, rows: Ints) -> Bytes:
        more = {key: values[rows] for key, values in told.items()}
        more |= {} if colour is None else {"colour": colour[rows]}
        return shapes[kind].fill(time=start[rows], uuid=np.full(len(rows), track), name=name[rows], **more)

    def finish(kind: int, rows: Ints) -> Bytes:
        return end_shape(False).fill(time=end[rows], uuid=np.full(len(rows), track))

    no_kind = np.zeros(len(start), np.int64)
    kind = (next(iter(told.values())) > 0).astype(np.int64) if told else no_kind
    return Slices(start, end, kind, no_kind, begin, finish)


def _write_waiting(sink: Sink, process: Process, gil: int, group: int, steps: Steps | None) -> None:
    track = sink.track(
        ("waiting", group),
        group,
        name="threads waiting for the GIL",
        rank=1,
        counter=pb.CounterDescriptor(unit_name="threads"),
    )
    if steps is not None:
        write_counter(sink, track, *steps.waiting(process, gil))
        return
    times, counts = waiting_counts(process, gil)

    def build(value: Mapping[str, int]) -> Any:
        event = pb.TrackEvent(type=pb.TrackEvent.TYPE_COUNTER, track_uuid=track, counter_value=value["count"])
        return packet(timestamp=value["time"], track_event=event)

    shape = Shape(build, {"time": Field.TIME, "count": Field.SMALL})
    for at in range(0, len(times), PIECE):
        piece = slice(at, at + PIECE)
        sink.write_raw(shape.fill(time=times[piece], count=counts[piece]))


def _write_culprits(sink: Sink, process: Process, gil: int, group: int, texts: StackTexts) -> None:
    """What ran while others waited: from the first waiter on, each hold as slices named by the lines it stood at."""
    held = texts.places.held
    rows = np.flatnonzero((held.holds["gil"] == gil) & (held.stack >= 0))
    holds = held.holds[rows]
    times, counts = waiting_counts(process, gil)
    at = np.maximum(np.searchsorted(times, holds["start"], "right") - 1, 0)
    # Between two changes of the count it is zero on one side at least, or somebody waits already.
    at = np.where(counts[at] > 0, at, np.minimum(at + 1, len(times) - 1))
    start = np.maximum(times[at], holds["start"])
    kept = np.flatnonzero((counts[at] > 0) & (start < holds["end"]))
    if not len(kept):
        return
    track = sink.track(("culprits", group), group, name="culprits (while others wait)", rank=3)
    whose = (sink.annotation("pid", int_value=process.pid), sink.annotation("gil", int_value=gil))
    stack = held.stack[rows[kept]]
    told = {"own line": texts.own_line[stack], "leaf": texts.leaf[stack]}
    write_slices(
        sink, [_named(sink, track, start[kept], holds["end"][kept], texts.line[stack], notes=whose, told=told)]
    )


def _write_requests(sink: Sink, process: Process, gil: int, group: int, labels: Ints, relations: Relations) -> None:
    """An instant per switch request, with who asked and who was asked."""
    track = sink.track(("requests", group), group, name="switch requests", rank=2)
    requests = process.switch_requests
    rows = np.flatnonzero(requests["gil"] == gil)
    shape = _request_shapes(sink, track)
    for known in (False, True):
        chosen = rows[(relations.asked[rows] >= 0) == known]
        for at in range(0, len(chosen), PIECE):
            piece = chosen[at : at + PIECE]
            columns = {"time": requests["time"][piece], "by": labels[requests["thread"][piece]]}
            sink.write_raw(shape(known).fill(**columns, holder=labels[relations.asked[piece]]))


def _request_shapes(sink: Sink, track: int) -> Callable[[bool], Shape]:
    @cache
    def shape(holder_known: bool) -> Shape:
        def build(value: Mapping[str, int]) -> Any:
            notes = [sink.annotation("by", string_value_iid=value["by"])]
            if holder_known:
                notes.append(sink.annotation("holder", string_value_iid=value["holder"]))
            event = pb.TrackEvent(
                type=pb.TrackEvent.TYPE_INSTANT,
                track_uuid=track,
                category_iids=[int(sink.categories(["gil"])[0])],
                name_iid=int(sink.names(["switch request"])[0]),
                correlation_id_str_iid=int(sink.colours([colours.correlation_id("switch ", *colours.RED)])[0]),
                debug_annotations=notes,
            )
            return packet(timestamp=value["time"], track_event=event)

        return Shape(build, {"time": Field.TIME, "by": Field.IID} | ({"holder": Field.IID} if holder_known else {}))

    return shape
