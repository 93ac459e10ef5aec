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


def _hash(text: str, modulus: int) -> int:
    """Compute the UI's hash, which multiplies in doubles and keeps 32 bits."""
    value = 18652613
    for letter in text:
        value = int(float(16777619 * (value ^ ord(letter)))) & 0xFFFFFFFF
        if value >= 1 << 31:
            value -= 1 << 32
    return abs(value) % modulus


def hue_and_lightness(text: str) -> tuple[int, int]:
    """Return the HSLuv hue (degrees) and lightness (percent) in which the UI paints this correlation id."""
    return _hash(text, _HUES), _LIGHTNESS_LOWEST + _hash(text + "x", _LIGHTNESS_SPAN)


@cache
def correlation_id(prefix: str, hue: int, lightness: int) -> str:
    """Return `prefix` with the first number that gives about this colour."""
    for number in count():
        text = f"{prefix}{number}"
        if abs(_hash(text, _HUES) - hue) <= _HUE_TOLERANCE:
            _, got = hue_and_lightness(text)
            if abs(got - lightness) <= _LIGHTNESS_TOLERANCE:
                return text
    raise AssertionError("unreachable: count() does not end")
