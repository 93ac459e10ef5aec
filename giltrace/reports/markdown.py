"""Markdown as GitHub and GitLab show it, with names in it that somebody else chose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from giltrace.text import plural, visible

#: A step's summary on GitHub has 1 MiB; a comment has less, but is no place for so much.
MOST_BYTES = 1_000_000
#: What means something in Markdown, in a table or in HTML, or makes a link or a mention of what follows.
_SPECIAL = str.maketrans({one: f"&#{ord(one)};" for one in "&<>\"'`|*_[]\\~#@$!"})


def escaped(text: str) -> str:
    """Text that shows as it is, in one line: what is special is written as a number of HTML."""
    return visible(" ".join(text.split())).translate(_SPECIAL).replace("://", "&#58;//")


def code(text: str) -> str:
    """The same in the letters of code, which is no place for backticks; nothing if there is nothing."""
    return f"<code>{escaped(text)}</code>" if text.strip() else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], room: int = MOST_BYTES) -> Iterator[str]:
    """Yield the lines of a table of cells that are Markdown already, as many rows as `room` (bytes) is for.

    What is left out is counted in a line of its own. A head that begins with a space stands for figures: to the right.
    """
    yield f"| {' | '.join(head.strip() for head in heads)} |"
    yield f"|{'|'.join('--:' if head.startswith(' ') else '---' for head in heads)}|"
    left_out = 0
    for row in rows:
        line = f"| {' | '.join(row)} |"
        room -= len(line.encode()) + 1
        if room >= 0:
            yield line
        else:
            left_out += 1
    if left_out:
        yield f"\n{plural(left_out, 'more row')}"
