"""What a recording that was sampled says of itself, in words."""

from __future__ import annotations

from giltrace.analysis.durations import duration
from giltrace.recording.events import Sampling


def describe_sampling(sampling: Sampling | None) -> str:
    """One line on how dense the samples are and what they missed; "" for a recording that is exact (None)."""
    if sampling is None:
        return ""
    if sampling.samples < 2:
        return "sampled from outside, but too shortly to say anything"
    rate = 1e6 / sampling.interval_ns
    seen = sampling.switches - sampling.switches_missed
    return (
        f"sampled at {rate:.1f} kHz: {seen:,} of {sampling.switches:,} switches were seen; times are uncertain by "
        f"{duration(sampling.typical_gap_ns // 2)}, in the longest gap by {duration(sampling.longest_gap_ns)}; "
        "counts of holds and waits are lower bounds"
    )
