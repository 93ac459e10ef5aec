"""Durations and shares as they are typed."""

from __future__ import annotations

import re

import typer

_UNITS_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000}
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_DURATION = re.compile(_NUMBER + r"\s*(ns|us|µs|ms|s|m)")
_SHARE = re.compile(_NUMBER + r"\s*(%?)")


def parse_duration(text: str) -> int:
    """Nanoseconds of ``10ms``, ``5us`` or ``1.5s``; a unit is needed."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration: write a number and ns, us, ms, s or m, like 10ms")
    return round(float(found[1]) * _UNITS_NS[found[2]])


def parse_share(text: str) -> float:
    """A share of 1, from ``20%`` or ``0.2``."""
    found = _SHARE.fullmatch(text.strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"{text!r} is no share: write 20% or 0.2, at most 100%")
    return share
