"""Draw shares over time with characters: how much of the time the GIL was held, and how much of that contended."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from giltrace.views.top.model import BUCKET_NS, MINUTE_NS, Graph

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_BUCKETS = MINUTE_NS // BUCKET_NS


@dataclass(frozen=True)
class Ink:
    """What the terminal can show: `colour`, and characters beyond ASCII (`unicode`)."""

    colour: bool = True
    unicode: bool = True


def columns(values: tuple[float, ...], width: int) -> list[float]:
    """A minute's buckets as at most `width` columns: one for each, or the mean of some, as whole buckets allow."""
    each = max(-(-_BUCKETS // max(width, 1)), 1)
    # Groups are counted from the oldest of a full minute, so that a bucket stays in its column's neighbourhood.
    short = -len(values) % each
    padded = (*(values[:1] * short), *values)
    return [sum(padded[at : at + each]) / each for at in range(0, len(padded), each)]


def draw(graph: Graph, width: int, height: int, ink: Ink) -> list[Text]:
    """`height` rows of `width` characters, the newest at the right; contended time below, held time to the top."""
    held, contended = columns(graph.held, width), columns(graph.contended, width)
    shown = min(width, len(held))
    pairs = list(zip(held[len(held) - shown :], contended[len(contended) - shown :], strict=True))
    lines = []
    for row in range(height - 1, -1, -1):
        line = Text(" " * (min(width, _columns(width)) - shown), no_wrap=True)
        for one_held, one_contended in pairs:
            line.append_text(_cell(_level(one_held, height, row), _level(one_contended, height, row), ink))
        lines.append(line)
    return lines


def spark(values: tuple[float, ...], width: int, ink: Ink) -> str:
    """One row of characters; in ASCII a digit per column, tenths."""
    if not ink.unicode:
        return "".join(str(min(round(value * 10), 9)) if value > 0.005 else "." for value in columns(values, width))
    return "".join(_EIGHTHS[max(round(value * 8), value > 0.005)] for value in columns(values, width))


def _columns(width: int) -> int:
    return -(-_BUCKETS // max(-(-_BUCKETS // max(width, 1)), 1))


def _level(share: float, height: int, row: int) -> int:
    """How many eighths of the cell in this row (0 is the lowest) lie below the share."""
    return min(max(round(share * height * 8) - 8 * row, 0), 8)


def _cell(held: int, contended: int, ink: Ink) -> Text:
    if not ink.colour or not ink.unicode:
        marks = ("█", "░") if ink.unicode else ("#", ":")
        return Text(marks[0] if contended >= 4 else marks[1] if held >= 4 else " ")
    if contended == 8 or contended >= held:
        return Text(_EIGHTHS[contended], "red")
    if contended == 0:
        return Text(_EIGHTHS[held], "green")
    return Text(_EIGHTHS[contended], "red on green" if held >= 4 else "red")


def fit(line: Text, width: int) -> Text:
    """Return `line`, cut to so many columns."""
    line.no_wrap = True
    line.truncate(width)
    return line
