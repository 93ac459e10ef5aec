"""One snapshot for a pipe: as text, or as JSON."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from rich.console import Console

from giltrace.text import json_text
from giltrace.views.top.graph import Ink
from giltrace.views.top.model import BUCKET_NS, Line, Snapshot
from giltrace.views.top.page import View, main_page

SCHEMA = "giltrace-top-1"


def print_snapshot(snapshot: Snapshot, view: View, console: Console) -> None:
    """Print it all: every thread, the ten costliest lines."""
    view = replace(view, single=True)
    for line in main_page(snapshot, view, Ink(), console.width, 0):
        line.rstrip()
        line.stylize("not reverse")
        console.print(line, highlight=False, soft_wrap=True)


def to_json(snapshot: Snapshot) -> str:
    """The snapshot as JSON; docs/commands.md explains its fields."""
    told = asdict(snapshot)
    told["graph"]["bucket_ns"] = BUCKET_NS
    for row, one in zip(told["threads"], snapshot.threads, strict=True):
        del row["ident"]
        row["line"], row["own_line"] = _line(one.line), _line(one.own_line)
    for row, culprit in zip(told["culprits"], snapshot.culprits, strict=True):
        row["line"], row["own_line"] = _line(culprit.line), _line(culprit.own_line)
    return json_text({"schema": SCHEMA, **told}, indent=1)


def _line(line: Line) -> dict[str, Any] | None:
    return asdict(line) if line.function else None
