"""One thread at a time by itself: there is only one, or they take turns."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.collected import collected
from giltrace.analysis.findings.contention import CONTENDED_SHARE
from giltrace.analysis.findings.figures import QUIET_SHARE, TURN_NS, Figures
from giltrace.analysis.findings.io_bound import blocked_at
from giltrace.analysis.findings.unused import IDLE_SHARE

#: One thread that has this share of the held time is on its own, as long as nobody contends with it: what the others
#: do is housekeeping, a heartbeat, a log.
ALONE_SHARE = 0.9
#: Several threads take turns if one has the GIL for this share of the time that they had (`usage.used_share`), and
#: runs for `TURN_NS` in its turn, on average: with less, most of the time goes to something else.
TURNS_SHARE = 0.5


def single(f: Figures) -> Verdict | None:
    """Does one thread run at a time, without anybody waiting for it?"""
    busy = f.busy_share * f.wall >= IDLE_SHARE * f.had
    alone = f.top_share >= ALONE_SHARE and f.held_much and f.competed_share < CONTENDED_SHARE
    quiet = f.competed_share <= QUIET_SHARE
    in_turns = quiet and f.used_share >= TURNS_SHARE and f.turn_ns >= TURN_NS
    if f.holders > 1 and not (busy and (alone or in_turns)):
        return None
    evidence = {
        "top_held_share": f.top_share,
        "running_share": f.busy_share,
        "coreless_share": f.coreless_share,
        "contended_share": f.contended_share,
    }
    if f.holders > 1 and f.top_share < ALONE_SHARE:
        return Verdict(
            "single-threaded",
            f"One thread at a time: {f.holders} threads took turns with the GIL, which one of them had for "
            f"{percent(f.used_share)} of the time, and hardly waited for it.",
            "The GIL is not what lets only one run: look at what the others are blocked on where they gave it up, a "
            f"lock, a queue or each other's end.{blocked_at(f)}{collected(f)}",
            {"used_share": f.used_share, **evidence},
        )
    lacked = f.coreless_share > QUIET_SHARE
    coreless = f", and lacked a core while it held the GIL for {percent(f.coreless_share)}" if lacked else ""
    more = "" if f.one_core else " or from more processes"
    advice = f"The GIL costs nothing here; speed comes from faster code{more}."
    if lacked:
        advice = f"The GIL costs nothing here, but a core does{f.wanted_core}"
    advice += collected(f)
    if not quiet and f.holders > 1:
        most = int(np.where(np.arange(len(f.waited)) == f.top, 0, f.waited).argmax())
        advice += (
            f" Thread {f.name(most)!r} waited for it, {duration(int(f.waited[most]))} in all: if that one must answer "
            "at once, let another process do one of the two."
        )
        advice = advice.replace("costs nothing here", "costs this thread nothing", 1)
    return Verdict(
        "single-threaded",
        f"Single-threaded: thread {f.name(f.top)!r} had {percent(f.top_share)} of the held time; the process ran for "
        f"{percent(f.busy_share)} of {duration(f.wall)}{coreless}.",
        advice,
        evidence,
    )
