"""The prompt of `giltrace query`: statements over several lines, a history, and a few words of its own."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from giltrace.errors import GiltraceError
from giltrace.views.trace_processor import cache_folder

_HISTORY_LINES = 1000
_HELP = """\
A statement ends with a semicolon and may take several lines; Ctrl-C drops what was typed of it.
  .tables        giltrace's tables; {others}
  .schema TABLE  the definition of one of giltrace's tables, with a word on each column
  .help          this
  .quit          end, as \\q or Ctrl-D do\
"""


class Book(NamedTuple):
    """What there is to ask: the `definitions` of giltrace's tables, the first line of each saying what a row is, and
    the `others` in words.
    """

    definitions: Mapping[str, str]
    others: str


def prompt(run: Callable[[str], None], say: Callable[[str], None], book: Book) -> None:
    """Read statements and `run` each, until the input ends; an error is told, and the prompt goes on."""
    with _history():
        for statement in statements(say, book):
            try:
                run(statement)
            except GiltraceError as error:
                say(str(error))
            except KeyboardInterrupt:
                say("interrupted")


def statements(say: Callable[[str], None], book: Book) -> Iterator[str]:
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
            say(_answer(book, *word.split()))
            continue
        typed = f"{typed}\n{line}" if typed else line if word else ""
        if sqlite3.complete_statement(typed):
            yield typed
            typed = ""


def _answer(book: Book, command: str, table: str = "", *rest: str) -> str:
    tables = book.definitions
    if command == ".tables":
        told = ((name, whole.partition("\n")[0].removeprefix("-- ")) for name, whole in tables.items())
        return "\n".join(f"{name:<14}{description}" for name, description in told)
    if command == ".schema" and table in tables:
        # What it is made from stands before it.
        begin = re.search(rf"^create (?:perfetto table|view) {table} ", tables[table], re.M)
        assert begin is not None
        return tables[table][begin.start() :].rstrip()
    if command == ".schema":
        return f".schema knows {', '.join(tables)}"
    return _HELP.format(others=book.others)


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
