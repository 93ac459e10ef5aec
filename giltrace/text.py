"""Text that somebody else chose, made fit to be shown.

Names of threads, files and functions, command lines and notes are whatever the recorded program made them. What is in
them must not reach a terminal, a page or a spreadsheet as a command: readers pass them through `visible`, and writers
through what their format needs besides.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

_FORMULA = re.compile(r"[=+\-@\t\r]")
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def visible(text: str, keep: str = "") -> str:
    r"""Return `text` with what does not show written as in a Python string: ``\x1b``, ``\n``, ``\u202e``.

    That is all that is not printable: controls, marks that turn the direction of writing, lone surrogates, spaces that
    look like none. The characters in `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else ascii(one)[1:-1] for one in text)


def role_name(name: str) -> str:
    """What names of threads have in common that do the same work: `name` with each of its numbers replaced by ``*``."""
    return _DIGITS.sub("*", name)


def cut(text: str, most: int) -> str:
    """Return `text` of at most so many characters, the last of which says whether there were more."""
    return text if len(text) <= most else f"{text[: max(most - 1, 0)]}\u2026"


def spreadsheet_cell(text: str) -> str:
    """Return `text` as a cell of CSV, led by an apostrophe where a spreadsheet would take it for a formula.

    Text that is a number stays one.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def json_text(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON that any program reads and any terminal shows: what is no number is null.

    What does not show is escaped, all else is itself, also beyond ASCII; bytes are hexadecimal.
    """
    text = json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False, default=bytes.hex)
    # What does not show stands in strings only, but for the line breaks between values; one in a string is escaped.
    return "".join(one if one.isprintable() or one == "\n" else _escape(one) for one in text)


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def plural(count: int, noun: str, several: str = "") -> str:
    """A number with its noun: ``1 wait``, ``2 waits``."""
    return f"{count} {noun if count == 1 else several or noun + 's'}"
