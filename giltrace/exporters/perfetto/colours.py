"""Slice colours: the UI colours a slice by a hash of its correlation id, so ids are searched that hash to a colour."""

from __future__ import annotations

from functools import cache
from itertools import count

_HUES = 360
_LIGHTNESS_LOWEST, _LIGHTNESS_SPAN = 40, 40
_HUE_TOLERANCE, _LIGHTNESS_TOLERANCE = 3, 2

GREEN = (135, 56)
RED = (14, 60)

#: (hue, lightness) in HSLuv for the slices of a GIL's holders: apart from each other, from `GREEN` and from `RED`.
HOLDERS = (
    (165, 45),
    (30, 58),
    (255, 62),
    (310, 52),
    (75, 62),
    (200, 66),
    (350, 58),
    (275, 48),
    (100, 58),
    (225, 52),
    (50, 70),
    (330, 68),
)


def _mixed(text: str, value: int = 18652613) -> int:
    """Go on with the UI's hash from `value`: it multiplies in doubles and keeps 32 bits."""
    for letter in text:
        value = int(float(16777619 * (value ^ ord(letter)))) & 0xFFFFFFFF
        if value >= 1 << 31:
            value -= 1 << 32
    return value


def _colour(value: int) -> tuple[int, int]:
    """The hue and lightness of a text with that hash."""
    return abs(value) % _HUES, _LIGHTNESS_LOWEST + abs(_mixed("x", value)) % _LIGHTNESS_SPAN


def hue_and_lightness(text: str) -> tuple[int, int]:
    """Return the HSLuv hue (degrees) and lightness (percent) in which the UI paints this correlation id."""
    return _colour(_mixed(text))


@cache
def correlation_id(prefix: str, hue: int, lightness: int) -> str:
    """Return `prefix` with the first number that gives about this colour."""
    begun = _mixed(prefix)
    for number in count():
        got = _colour(_mixed(str(number), begun))
        if abs(got[0] - hue) <= _HUE_TOLERANCE and abs(got[1] - lightness) <= _LIGHTNESS_TOLERANCE:
            return f"{prefix}{number}"
    raise AssertionError("unreachable: count() does not end")
