"""What the kernel writes of processes in /proc, in lines."""

from __future__ import annotations

import os


def text_of(path: str | os.PathLike[str]) -> str:
    """The text of such a file as it stands; bytes that are no UTF-8 are surrogates. Raises OSError.

    Python would take a carriage return in a name for the end of a line.
    """
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return file.read()


def lines_of(path: str | os.PathLike[str]) -> list[str]:
    """Its lines, which end with a line feed only: `str.splitlines` would end them with ten other characters too.

    The names of threads and files, which may hold any, are in them; the kernel writes a line feed there as an escape.
    Raises OSError.
    """
    text = text_of(path)
    return text.removesuffix("\n").split("\n") if text else []
