"""Threads that are mostly off the GIL and hand it on."""

from __future__ import annotations

from giltrace.analysis.durations import percent
from giltrace.analysis.findings.figures import QUIET_SHARE, WANTED_CORE, Figures
from giltrace.analysis.results import Verdict


def io_bound(f: Figures) -> Verdict:
    """Tell of threads that are off the GIL, and why they waited where they did."""
    off = float(1 - (f.held.sum() + f.waited.sum()) / max(int(f.lives.sum()), 1))
    known = f.process.has_sched
    what_for = "to wait for I/O, for locks or for each other" if known else "to wait, or to run native code"
    advice = f"The GIL is not the limit here: threads give it up {what_for}."
    if f.contended_share > QUIET_SHARE:
        advice = _why_waited(f)
    return Verdict(
        "io-bound-handoff",
        f"{'I/O-bound' if known else 'Mostly off the GIL'}: {f.holders} threads spent {percent(off)} of their lives "
        f"off the GIL and passed it on {f.hand_offs} times; somebody waited {percent(f.contended_share)} of the time.",
        advice,
        {
            "off_gil_share": off,
            "held_share": f.held_share,
            "contended_share": f.contended_share,
            "hand_offs": f.hand_offs,
        },
    )


def _why_waited(f: Figures) -> str:
    """What the waits were for, where threads hardly competed for the GIL."""
    python, in_c, off_core, free = f.causes.sum(axis=0).tolist()
    waited = max(python + in_c + off_core + free, 1)
    if off_core >= max(python + in_c, free):
        share = percent(off_core / waited)
        return f"{share} of the waiting passed while the holder had no core, or slept with the GIL: {WANTED_CORE}."
    if free >= python + in_c:
        return (
            f"{percent(free / waited)} of the waiting passed while nobody held the GIL: threads were being woken up to "
            "take it. Let them do more at a time, so that they hand it on less often."
        )
    return (
        "The waits are for the rest of brief turns: threads hand the GIL on all the time. Let them do more at a time, "
        "so that they hand it on less often."
    )
