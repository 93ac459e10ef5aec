"""The costliest lines of many, in bounded room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from giltrace.metrics.reading import LineKey, LineReading

#: Lines that are told apart in each of the tables of lines.
MOST_LINES = 64


@dataclass
class _Place:
    ns: int = 0
    error_ns: int = 0
    times: int = 0


class Sketch:
    """Sums up the time of lines, of at most `most` of them ("space-saving").

    A line that finds no room takes that of the least one, with its time, by which it may then be too large: so the time
    of a line never shrinks, not even where it has been gone for a while, and what costs most is always there.
    """

    def __init__(self, most: int = MOST_LINES) -> None:
        self._most = most
        self._places: dict[LineKey, _Place] = {}

    def add(self, line: LineReading, ns: int, times: int) -> None:
        """Put so much more on the account of a line."""
        if ns <= 0:
            return
        place = self._places.get(line.key)
        if place is None:
            place = _Place()
            if len(self._places) >= self._most:
                least = min(self._places, key=lambda one: self._places[one].ns)
                place.ns = place.error_ns = self._places.pop(least).ns
            self._places[line.key] = place
        place.ns += ns
        place.times += times

    def lines(self) -> tuple[LineReading, ...]:
        """The costliest first."""
        ordered = sorted(self._places.items(), key=lambda one: -one[1].ns)
        return tuple(
            LineReading(file, line, function, place.ns, place.error_ns, place.times, collecting)
            for (file, line, function, collecting), place in ordered
        )

    def to_json(self) -> list[list[Any]]:
        """All of it, for `from_json`."""
        return [[*key, place.ns, place.error_ns, place.times] for key, place in self._places.items()]

    @classmethod
    def from_json(cls, rows: list[list[Any]]) -> Sketch:
        """The sketch that `to_json` wrote; raises `ValueError` or `TypeError` for what is none."""
        sketch = cls()
        for file, line, function, collecting, ns, error_ns, times in rows:
            key = (str(file), int(line), str(function), bool(collecting))
            sketch._places[key] = _Place(int(ns), int(error_ns), int(times))
        return sketch
