"""The prompt of `giltrace query`: statements over several lines, a history, and a few words of its own."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from giltrace.errors import GiltraceError
from giltrace.views.gil_tables import TABLES, definition, description
from giltrace.views.trace_processor import cache_folder

_HISTORY_LINES = 1000
_HELP = """\
A statement ends with a semicolon and may take several lines; Ctrl-C drops what was typed of it.
  .tables        giltrace's tables; Perfetto's own: slice, thread, process, sched, thread_state, counter, ...
  .schema TABLE  the definition of one of giltrace's tables, with a word on each column
  .help          this
  .quit          end, as \\q or Ctrl-D do\
"""


def prompt(run: Callable[[str], None], say: Callable[[str], None]) -> None:
    """Read statements and `run` each, until the input ends; an error is told, and the prompt goes on."""
    with _history():
        for statement in statements(say):
            try:
                run(statement)
            except GiltraceError as error:
                say(str(error))
            except KeyboardInterrupt:
                say("interrupted")


def statements(say: Callable[[str], None]) -> Iterator[str]:
    """Yield the statements that are typed; the prompt's own words are answered here."""
    typed = ""
    while True:
        try:
            line = input("   ...> " if typed else "giltrace> ")
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            typed = ""
            say("")
            continue
        word = line.strip()
        if not typed and word in (r"\q", ".quit", ".exit", "quit", "exit"):
            return
        if not typed and word.startswith("."):
            say(_answer(*word.split()))
            continue
        typed = f"{typed}\n{line}" if typed else line if word else ""
        if sqlite3.complete_statement(typed):
            yield typed
            typed = ""


def _answer(command: str, table: str = "", *rest: str) -> str:
    if command == ".tables":
        return "\n".join(f"{name:<14}{description(name)}" for name in TABLES)
    if command == ".schema" and table in TABLES:
        whole = definition(table).rstrip()
        return whole[whole.index(f"create perfetto table {table} ") :]
    if command == ".schema":
        return f".schema knows {', '.join(TABLES)}"
    return _HELP


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Line editing with what was typed before, where this Python can and a person is typing."""
    try:
        import readline
    except ImportError:
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    file: Path = cache_folder() / "query_history"
    # A history that cannot be read or written is no reason to stop.
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)
