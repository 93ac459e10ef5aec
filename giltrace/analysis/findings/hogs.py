"""Hogs: holds that outlive a switch request, by code that keeps the GIL although another thread asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Hog, SampledFunction, Verdict
from giltrace.analysis.findings.figures import COLLECTING_SHARE, QUIET_SHARE, Figures
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.collect_calls import calls_collect, seen_collecting
from giltrace.analysis.measure.culprit_sites import CulpritSites
from giltrace.analysis.measure.expressions import Expressions
from giltrace.analysis.measure.native_code import Seen, functions_text, native_functions
from giltrace.analysis.measure.sites import Classes, Sites
from giltrace.analysis.measure.standing import where_sampled
from giltrace.analysis.measure.wait_causes import ASLEEP, UNHEEDED_NS, slept_ns
from giltrace.analysis.site import Site
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.collections import FILE as COLLECTOR
from giltrace.timeline.model import Flag, Process

#: Hogs decide the verdict if they overstay for this share of the time that the threads had in all: 50 ms of each second
#: are what people notice in a service, and more than what waking up takes.
HOG_SHARE = 0.05
#: They slept with the GIL if they did so for most of what they overstayed.
ASLEEP_SHARE = 0.5
#: So many sites are told, the largest ones.
MOST_HOGS = 100

#: What to do about sleeps with the GIL.
_RELEASE = (
    "What waits in native code should release the GIL around that: ctypes.CDLL does and PyDLL does not; in C, "
    "Py_BEGIN_ALLOW_THREADS. A lock in native code that is taken with the GIL held is waited for in the same way."
)
#: What to do about collections that the program calls for itself.
CALLED_FOR = (
    "Call gc.collect() less often there, or leave it to the interpreter; what is there once the program has started "
    "can be left alone: gc.freeze()."
)
#: And about those that the interpreter begins by itself.
_LESS_GARBAGE = (
    "Call gc.freeze() once the program has started, so that what is there by then is left alone; raise "
    "gc.set_threshold(), or make fewer objects."
)


def find_hogs(process: Process, recorded_ns: int = 0) -> tuple[Hog, ...]:
    """Hogs by thread role and line, the most time over the request first.

    `recorded_ns` is when the recording began, in ns since 1970: source that is older tells what was called.

    The eval loop heeds a request within microseconds, so that holds which go on for `UNHEEDED_NS` are in C code.
    """
    over = usage.overstays(process, UNHEEDED_NS)
    if len(over.hold) == 0:
        return ()
    sites = Sites(process)
    stack = sites.hold_stacks()[over.hold]
    holds = process.holds[over.hold]
    kinds = sites.classify(holds["thread"], stack)
    held = usage.lengths(holds)
    everywhere = sites.classify(process.holds["thread"], sites.hold_stacks())
    total = np.bincount(everywhere.of_row, weights=usage.lengths(process.holds), minlength=len(everywhere.sites))
    of_site = dict(zip(everywhere.sites, total.astype(np.int64).tolist(), strict=True))
    native = native_functions(process, holds["thread"], over.asked, holds["end"], kinds.of_row)
    expressions = Expressions(process, recorded_ns)
    collecting = _collecting(process, over, kinds)
    hogs = []
    for kind, site in enumerate(kinds.sites):
        mine = np.flatnonzero(kinds.of_row == kind)
        worst = mine[over.length[mine].argmax()]
        ns = int(over.length[mine].sum())
        much = ns >= HOG_SHARE * (process.end - process.start)
        called = collecting[kind] and _called_for(process, expressions, int(over.hold[worst]))
        hogs.append(
            Hog(
                site=site,
                count=len(mine),
                ns=ns,
                max_ns=int(over.length[worst]),
                held_ns=int(held[mine].sum()),
                site_held_ns=of_site[site],
                stack=sites.stack(int(stack[worst])),
                expression=expressions.at(int(stack[worst])),
                collecting=collecting[kind],
                advice=(CALLED_FOR if called else _LESS_GARBAGE) if collecting[kind] and much else "",
                **_native(native.get(kind, Seen())),
            )
        )
    return tuple(sorted(hogs, key=lambda hog: -hog.ns)[:MOST_HOGS])


def advice(functions: Sequence[SampledFunction] = (), samples: int = 0) -> str:
    """What to do about code that was found in these native functions."""
    named = f", {functions_text(functions, samples)}," if samples else ""
    return f"Let that native code{named} release the GIL around its work, or hand it smaller pieces."


def _collecting(process: Process, over: usage.Overstays, kinds: Classes) -> list[bool]:
    """Of each class of these hogs, whether most of what waiters saw in them was a collection of garbage."""
    of_holds = seen_collecting(process, over.hold)
    seen, found = (np.bincount(kinds.of_row, of_hold, len(kinds.sites)) for of_hold in of_holds)
    return [
        site.file == COLLECTOR or bool(found[at] > 0 and found[at] >= COLLECTING_SHARE * seen[at])
        for at, site in enumerate(kinds.sites)
    ]


def _called_for(process: Process, expressions: Expressions, hold: int) -> bool:
    """Whether the program called for the collection that this hold was: it gave the GIL up as that returned."""
    return process.stacks is not None and calls_collect(expressions, int(process.stacks.hold_end[hold]))


def _native(seen: Seen) -> dict[str, Any]:
    """The fields of a hog that tell of its native code."""
    if not seen.functions:
        return {}
    first = seen.functions[0]
    stack = [(first.name, first.file)] + [(first.caller, first.caller_file)] * bool(first.caller)
    return {
        "functions": seen.functions,
        "samples": seen.samples,
        "c_function": first.name or None,
        "c_file": first.file,
        "c_samples": first.samples,
        "c_stack": tuple(f"{name or '[no symbol]'} ({file})" for name, file in stack),
    }


def hog(f: Figures) -> Verdict | None:
    """Did hogs take much of the time that the threads had?"""
    evidence = _evidence(f)
    if not evidence or f.collecting_share >= COLLECTING_SHARE or f.asleep_share >= ASLEEP_SHARE:
        return None
    name, longest, times = _worst(f)
    site, mine = _longest_site(f)
    return Verdict(
        "hog",
        f"GIL hog: {times}, a thread kept the GIL after it was asked to drop it; thread {name!r} for up to "
        f"{duration(longest)}{_at(f, site)}, where Python code takes microseconds.",
        advice(*_seen(f, mine)),
        evidence,
    )


def asleep(f: Figures) -> Verdict | None:
    """Did hogs sleep with the GIL?"""
    evidence = _evidence(f)
    if not evidence or f.asleep_share < ASLEEP_SHARE:
        return None
    name, longest, times = _worst(f)
    goes_on = f.process.end_of != "process" and _longest(f)["flags"] & np.uint8(Flag.PARTIAL_END)
    deadlock = " It has not given it up: if it wants a lock that a waiting thread has, that is a deadlock."
    return Verdict(
        "hog",
        f"GIL hog, asleep: {times}, a thread kept the GIL after it was asked to drop it, and slept in the kernel with "
        f"it; thread {name!r} for up to {duration(longest)}{_at(f, _longest_site(f)[0])}.{deadlock if goes_on else ''}",
        _RELEASE,
        {**evidence, "asleep_share": f.asleep_share},
    )


def asleep_unasked(f: Figures) -> Verdict | None:
    """Did holders sleep with the GIL for much of the time that others waited, if hardly past a request?

    A sleep shorter than a switch interval is over before anybody asks; there may be many.
    """
    share = slept_ns(f.process) / f.had
    if share <= QUIET_SHARE:
        return None
    slept = f.causes[:, ASLEEP]
    part = slept / np.maximum(usage.lengths(f.process.waits), 1)
    site = CulpritSites(f.process, f.sites).main_of(part) if f.process.stacks is not None else None
    most = f"; most of it {site.thread} did, at {site.where}" if site is not None and site.function else ""
    return Verdict(
        "hog",
        f"GIL hog, asleep: for {percent(share)} of the time somebody waited for a thread that slept in the kernel with "
        f"the GIL, {duration(int(slept.sum()))} in all{most}.",
        _RELEASE,
        {"slept_share": share, "waited_ns": int(slept.sum())},
    )


def collection(f: Figures) -> Verdict | None:
    """Were the hogs collections of garbage?"""
    evidence = _evidence(f)
    if not evidence or f.collecting_share < COLLECTING_SHARE or f.asleep_share >= ASLEEP_SHARE:
        return None
    name, longest, times = _worst(f, f.collections)
    called = f.called_for[0].where if f.called_for else ""
    return Verdict(
        "hog",
        f"Garbage collection: {times}, a collection kept the GIL after it was asked to drop it; in thread {name!r} "
        f"for up to {duration(longest)}{called and f', called for at {called}'}.",
        CALLED_FOR if called else f"The line where one begins is innocent: it made the next object. {_LESS_GARBAGE}",
        {
            **evidence,
            "longest_overstay_ns": longest,
            "collections": int(f.collections.sum()),
            "collecting_share": f.collecting_share,
        },
    )


def _evidence(f: Figures) -> dict[str, float]:
    """The figures of hogs that took much of the time, or nothing."""
    over = f.overstays
    share = int(over.length.sum()) / f.had
    if share < HOG_SHARE:
        return {}
    return {"hogs": len(over.hold), "overstay_share": share, "longest_overstay_ns": int(over.length.max())}


def _worst(f: Figures, chosen: Bools | None = None) -> tuple[str, int, str]:
    """Whose hog was the longest, how long it was, and how many there were, in words: of the `chosen` or of all."""
    over = f.overstays if chosen is None else usage.Overstays(*(column[chosen] for column in f.overstays))
    times = "once" if len(over.hold) == 1 else f"{len(over.hold)} times"
    worst = int(over.length.argmax())
    return f.name(int(f.process.holds["thread"][over.hold[worst]])), int(over.length[worst]), times


def _longest(f: Figures) -> np.void:
    """The hold that is the longest hog."""
    hold: np.void = f.process.holds[f.overstays.hold[f.overstays.length.argmax()]]
    return hold


def _at(f: Figures, site: Site) -> str:
    """The line of the longest hog, which is at `site`, as far as it is known."""
    if site.function:
        return f" at {site.where}"
    hold = _longest(f)
    sampled = where_sampled(f.process, int(hold["thread"]), int((hold["start"] + hold["end"]) // 2))
    return f" at {sampled}" if sampled else ""


def _seen(f: Figures, mine: Ints) -> Seen:
    """The native functions that these of the hogs were in, as far as they are known."""
    hold, asked = f.overstays.hold[mine], f.overstays.asked[mine]
    thread, end = f.process.holds["thread"][hold], f.process.holds["end"][hold]
    return native_functions(f.process, thread, asked, end, np.zeros(len(hold), np.int64)).get(0, Seen())


def _longest_site(f: Figures) -> tuple[Site, Ints]:
    """The line of the longest hog, and which of the hogs are there."""
    over, sites = f.overstays, Sites(f.process)
    found = sites.classify(f.process.holds["thread"][over.hold], sites.hold_stacks()[over.hold])
    longest = int(found.of_row[over.length.argmax()])
    return found.sites[longest], np.flatnonzero(found.of_row == longest)
