"""The tables that giltrace adds to Perfetto's own: of the GIL, of locks, and of merged files, defined in `sql/`."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from giltrace.views.trace_processor import Rows, TraceProcessor

#: What several tables are made of, in `sql/` too.
ROLES = "_gil_roles"
#: The tables, each with those that its definition reads.
TABLES: dict[str, tuple[str, ...]] = {
    "gil_holds": (),
    "gil_waits": (),
    "gil_handoffs": ("gil_holds", "gil_waits"),
    "gil_blame": ("gil_holds", "gil_waits", ROLES),
    "lock_waits": (),
    "lock_blame": ("lock_waits", ROLES),
    "gil_spans": ("gil_holds", "gil_waits"),
    "gil_gaps": ("gil_spans",),
}
_WORD = re.compile(r"[A-Za-z_]\w*")


class GilTraceProcessor(TraceProcessor):
    """A trace processor that knows giltrace's tables: each is made when a query first names it.

    Raises what `TraceProcessor` does.
    """

    def __init__(self, trace: Path | bytes) -> None:
        super().__init__(trace)
        self._made: set[str] = set()

    def run(self, sql: str) -> Rows:
        """Run `sql`, as `TraceProcessor.run` does."""
        named = {word.lower() for word in _WORD.findall(sql)}
        for table in TABLES:
            if table in named:
                self._make(table)
        return super().run(sql)

    def _make(self, table: str) -> None:
        if table in self._made:
            return
        for needed in TABLES.get(table, ()):
            self._make(needed)
        super().run(definition(table))
        self._made.add(table)


def definition(table: str) -> str:
    """The SQL that makes `table`, with a comment on each column."""
    return (resources.files("giltrace.views") / "sql" / f"{table}.sql").read_text()
