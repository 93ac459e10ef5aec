"""The formats that a timeline can be written in. A new one is one module, or a folder, and one line in `EXPORTERS`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from giltrace.timeline.model import Timeline


@dataclass(frozen=True)
class Exporter:
    """A format: its `name`, the `suffix` of its files, a line of `summary`, and the `options` that it understands.

    `target` is its function as ``module:function``, the module below this one, imported when used:
    ``stream(timeline, file, **options)`` writes one file. A format with the option `table` is a folder of tables unless
    one of them is asked for.
    """

    name: str
    suffix: str
    summary: str
    target: str
    options: tuple[str, ...] = ()

    def stream(self) -> Callable[..., None]:
        """Import the format's module and return its function."""
        module, _, function = self.target.partition(":")
        loaded: Callable[..., None] = getattr(importlib.import_module(f"{__name__}.{module}"), function)
        return loaded

    def makes_folder(self, **options: str) -> bool:
        """Whether what these options ask for is a folder of files."""
        return "table" in self.options and "table" not in options

    def path(self, stem: Path, **options: str) -> Path:
        """Where the export of a recording called `stem` goes by default."""
        if self.makes_folder(**options):
            return stem.with_name(f"{stem.name}-{self.name}")
        table = f"-{options['table']}" if "table" in options else ""
        return stem.with_name(f"{stem.name}{table}{self.suffix}")

    def write(self, timeline: Timeline, path: Path, **options: str) -> None:
        """Write `timeline` to `path`, which then holds either the whole export or what it held before; ``-`` is stdout.

        Raises `OutputError` if it cannot be written, `UsageError` if the timeline has nothing for this format, or if
        an optional package is missing.
        """
        from giltrace.exporters._output import output_file, output_folder
        from giltrace.exporters.tables.columns import TABLES

        stream = self.stream()
        if not self.makes_folder(**options):
            with output_file(path) as file:
                stream(timeline, file, **options)
            return
        names = {table: f"{table}{self.suffix}" for table in TABLES}
        with output_folder(path, names.values()) as folder:
            for table, name in names.items():
                with output_file(folder / name) as file:
                    stream(timeline, file, table=table)


EXPORTERS: tuple[Exporter, ...] = (
    Exporter("perfetto", ".pftrace", "all of it, for the Perfetto UI and its SQL", "perfetto.trace:stream"),
    Exporter("chrome", ".chrome.json", "GIL tracks and arrows, for chrome://tracing", "chrome:stream"),
    Exporter(
        "firefox",
        ".firefox.json",
        "stacks and GIL markers, for profiler.firefox.com",
        "firefox.profile:stream",
    ),
    Exporter("speedscope", ".speedscope.json", "flame graphs of each thread", "speedscope:stream"),
    Exporter("collapsed", ".folded", "folded stacks, ns each, for flame graphs", "collapsed:stream", ("what", "by")),
    Exporter("csv", ".csv", "a folder of tables", "tables.csv:stream", ("table",)),
    Exporter("parquet", ".parquet", "a folder of tables, for DuckDB and pandas", "tables.parquet:stream", ("table",)),
)


def find(name: str) -> Exporter | None:
    """The format called `name`."""
    return next((exporter for exporter in EXPORTERS if exporter.name == name), None)
