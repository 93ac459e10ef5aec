"""Durations and shares as people write them."""

from __future__ import annotations


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
