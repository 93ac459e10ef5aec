"""The formats that a timeline can be written in. A new one is one module and one line in `EXPORTERS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from giltrace.timeline.model import Timeline


@dataclass(frozen=True)
class Exporter:
    """A format: its `name`, the `suffix` of its files, and `write(timeline, path)`, which raises `OutputError`."""

    name: str
    suffix: str
    write: Callable[[Timeline, Path], None]


def _perfetto(timeline: Timeline, path: Path) -> None:
    # Imported when used: the protobuf classes take a while to load.
    from giltrace.exporters import perfetto

    perfetto.write(timeline, path)


EXPORTERS: tuple[Exporter, ...] = (Exporter("perfetto", ".pftrace", _perfetto),)
