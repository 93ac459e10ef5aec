"""The flight recorder's options, for `giltrace record` and `giltrace attach`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from giltrace.cli.progress import say
from giltrace.cli.values import parse_command, parse_duration, parse_rule, parse_size
from giltrace.errors import UsageError

if TYPE_CHECKING:
    from giltrace.collectors.base import Collector


def ring_size(text: str) -> int:
    """How many bytes of its newest events each process keeps; 0 for all. Raises `UsageError`."""
    size = parse_size(text) if text else 0
    if text and size < 1 << 20:
        raise UsageError(f"a ring of {text} is too small", "give --ring 1MiB or more; 64MiB hold some 8 million events")
    return size


def switches_kept(ring: int) -> dict[str, int]:
    """What goes with such a ring for the collector `sched`."""
    # A hand-over of the GIL takes three times as much room there, shared by the cores.
    return {"ring": 4 * ring // (os.cpu_count() or 1)}


def flight_recorder(ring: int, rules: list[str], most: int, apart: str, command: str) -> list[Collector]:
    """What dumps the ring by these `rules`, as typed; nothing without one. Raises `UsageError`."""
    if not ring:
        if rules:
            raise UsageError("--dump-on needs a ring to dump", "add --ring 64MiB")
        if command:
            raise UsageError("--on-dump needs dumps", "add --ring 64MiB, and --dump-on")
        return []
    from giltrace.collectors.flight import FlightRecorder
    from giltrace.launch.attach.sleepers import asleep_now

    wanted = [parse_rule(text) for text in rules]
    apart_ns, words = parse_duration(apart, "--dump-apart"), parse_command(command)
    return [FlightRecorder(wanted, most, announce, asleep_now, apart_ns=apart_ns, command=words)]


def announce(what: str) -> None:
    """Say what happens while a program is recorded."""
    say(f"giltrace: {what}")
