"""Durations and shares as people write them."""

from __future__ import annotations

import re

_UNITS_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000}
_TYPED = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ns|us|µs|ms|s|m|)")


def nanoseconds(text: str, unit: str = "") -> int | None:
    """Nanoseconds of ``10ms``, ``5us`` or ``1.5s``; of a bare number only if it is clear which `unit` it has."""
    found = _TYPED.fullmatch(text.strip())
    size = _UNITS_NS.get(found[2] or unit) if found else None
    return None if found is None or size is None else round(float(found[1]) * size)


def duration(ns: int | float | None) -> str:
    """Three significant digits and a unit, as in ``12.3 ms``; ``-`` for None."""
    if ns is None:
        return "-"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        # Half a unit in the last digit belongs to the next unit already: 999.6 us is written as 1.00 ms.
        if abs(ns) >= size * 0.9995:
            value = ns / size
            decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
            return f"{value:,.{decimals}f} {unit}"
    return f"{ns:.0f} ns"


def percent(share: float | None) -> str:
    """A share of 1 as a percentage, as in ``12.3%``; ``-`` for None."""
    return "-" if share is None else f"{share * 100:.1f}%"
