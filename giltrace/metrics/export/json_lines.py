"""Totals as JSON, a line for each interval: what was added since the line before, and the sums."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

from giltrace.metrics.reading import Counts, LineReading
from giltrace.metrics.totals import Totals
from giltrace.text import json_text

SCHEMA = "giltrace-metrics-1"


class JsonLines:
    """Writes to `stream`, stdout by default, a whole line at a time. Docs/metrics.md explains the fields."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._before: Totals | None = None

    def begin(self, totals: Callable[[], Totals], first: Totals) -> None:
        """Nothing is written before the first interval is over."""
        self._before = first

    def tell(self, totals: Totals) -> None:
        """Write one line."""
        print(json_text(told(totals, self._before)), file=self._stream, flush=True)
        self._before = totals

    def close(self) -> None:
        """Each line is out already."""


def told(totals: Totals, before: Totals | None) -> dict[str, Any]:
    """The object of one interval. Times are seconds; ``total`` is since the counting began."""
    new = totals.since(before)
    seconds = max((totals.at_ns - new.started_ns) / 1e9, 0.0)
    whole = {role.key: role for role in totals.roles}
    return {
        "schema": SCHEMA,
        "time": time.time() - (time.monotonic_ns() - totals.at_ns) / 1e9,
        "seconds": seconds,
        "busiest": totals.busiest,
        "processes": [
            {"pid": one.pid, "command": one.command, "python": one.python, "free_threaded": one.free_threaded}
            | {"threads": len(one.threads), "note": one.note}
            for one in totals.processes
        ],
        "ended_processes": totals.ended,
        "uncounted_threads": totals.lost,
        "unread": list(totals.refused),
        "roles": [
            {"role": role.role, "gil": role.gil, "threads": role.threads, **_counts(role.counts)}
            | {"total": _counts(whole[role.key].counts, lengths=True)}
            for role in new.roles
        ],
        "causes": [
            {"cause": cause.cause, "blocks": cause.blocks, "blocked": cause.blocked_ns / 1e9} for cause in new.causes
        ],
        "culprits": _lines(new.culprits, totals.culprits),
        "victims": _lines(new.victims, totals.victims),
        "unnamed": [ns / 1e9 for ns in new.unnamed_ns],
        "sleepers": _lines(new.blocked, totals.blocked),
    }


def _counts(counts: Counts, *, lengths: bool = False) -> dict[str, Any]:
    told = asdict(counts)
    figures = {name.removesuffix("_ns"): value / 1e9 if name.endswith("_ns") else value for name, value in told.items()}
    return {name: value for name, value in figures.items() if lengths or not name.endswith("_lengths")}


def _lines(new: tuple[LineReading, ...], whole: tuple[LineReading, ...]) -> list[dict[str, Any]]:
    by_key = {line.key: line for line in whole}
    return [
        {"file": line.file, "line": line.line, "function": line.function, "collecting": line.collecting}
        | {"seconds": line.ns / 1e9, "times": line.times}
        | {"total": {"seconds": by_key[line.key].ns / 1e9, "error": by_key[line.key].error_ns / 1e9}}
        for line in new
    ]
