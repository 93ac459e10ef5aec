"""The formats that a timeline can be written in. A new one is one module, or a folder, and one line in `EXPORTERS`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from giltrace.timeline.model import Timeline


@dataclass(frozen=True)
class Exporter:
    """A format: its `name`, the `suffix` of its files, a line of `summary`, and the values of each of its `options`.

    `target` is its function as ``module:function``, the module below this one, imported when used:
    ``stream(timeline, file, **options)`` writes one file, and may return what it left out, in words. A format with the
    option `table` is a folder of tables unless one of them is asked for, which `tables` writes by
    ``write(timeline, folder)``: a file for each, or some for each part of it if they are `parted`.
    """

    name: str
    suffix: str
    summary: str
    target: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tables: str = ""
    parted: bool = False

    def stream(self) -> Callable[..., str | None]:
        """Import the format's module and return its function."""
        return self._load(self.target)

    @staticmethod
    def _load(target: str) -> Callable[..., str | None]:
        module, _, function = target.partition(":")
        loaded: Callable[..., str | None] = getattr(importlib.import_module(f"{__name__}.{module}"), function)
        return loaded

    def makes_folder(self, **options: str) -> bool:
        """Whether what these options ask for is a folder of files."""
        return "table" in self.options and "table" not in options

    def path(self, stem: Path, **options: str) -> Path:
        """Where the export of a recording called `stem` goes by default."""
        if self.makes_folder(**options):
            return stem.with_name(f"{stem.name}{self.suffix}" if self.parted else f"{stem.name}-{self.name}")
        table = f"-{options['table']}" if "table" in options else ""
        return stem.with_name(f"{stem.name}{table}{self.suffix}")

    def write(self, timeline: Timeline, path: Path, **options: str) -> str:
        """Write `timeline` to `path`, which then holds either the whole export or what it held before; ``-`` is stdout.

        Returns what was left out so that the file does not get too large, in words; it is empty if nothing was.
        Raises `OutputError` if it cannot be written, `UsageError` if the timeline has nothing for this format, or if
        an optional package is missing.
        """
        from giltrace.exporters._output import output_file, output_folder

        stream = self.stream()
        if not self.makes_folder(**options):
            with output_file(path) as file:
                return stream(timeline, file, **options) or ""
        with output_folder(path, self._is_ours) as folder:
            self._load(self.tables)(timeline, folder)
        return ""

    def _is_ours(self, file: Path) -> bool:
        """Whether a file, by its path in a folder, is one that an export has."""
        tables, suffix = "|".join(self.options["table"]), re.escape(self.suffix)
        # Earlier versions had a file for each table in every format.
        parts = rf"|({tables})/({_PART_KEY}=\d+/)?part-\d+{suffix}" if self.parted else ""
        return re.fullmatch(rf"({tables}){suffix}{parts}", file.as_posix(), re.ASCII) is not None


#: Those of `tables.columns.TABLES`.
_TABLES = {
    "table": (
        "hosts",
        "processes",
        "threads",
        "holds",
        "waits",
        "blocks",
        "held_locks",
        "blame",
        "tasks",
        "task_blame",
        "waiting",
        "stacks",
        "switch_requests",
        "states",
        "runs",
    )
}
#: `tables.schema.PART_KEY`.
_PART_KEY = "image"
_WHOLE = {"whole": ("yes",)}
_FOLDED = {"what": ("waiting", "holding", "without"), "by": ("victim", "culprit")}

#: A command line names these before it needs any: importing this imports no format, and no numpy.
EXPORTERS: tuple[Exporter, ...] = (
    Exporter("perfetto", ".pftrace", "all of it, for the Perfetto UI and its SQL", "perfetto.trace:stream", _WHOLE),
    Exporter("chrome", ".chrome.json", "GIL tracks and arrows, for chrome://tracing", "chrome:stream"),
    Exporter(
        "firefox",
        ".firefox.json",
        "stacks and GIL markers, for profiler.firefox.com",
        "firefox.profile:stream",
    ),
    Exporter("speedscope", ".speedscope.json", "flame graphs of each thread", "speedscope:stream"),
    Exporter("collapsed", ".folded", "folded stacks, ns each, for flame graphs", "collapsed:stream", _FOLDED),
    Exporter("csv", ".csv", "a folder of tables", "tables.csv:stream", _TABLES, "tables.csv:write_tables"),
    Exporter(
        "parquet",
        ".parquet",
        "a data set of tables, for DuckDB, Polars and Dask",
        "tables.parquet:stream",
        _TABLES,
        "tables.parquet:write_dataset",
        parted=True,
    ),
)


def find(name: str) -> Exporter | None:
    """The format called `name`."""
    return next((exporter for exporter in EXPORTERS if exporter.name == name), None)
