"""Durations, shares, sizes and dump rules as they are typed."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import typer

from giltrace.analysis.durations import nanoseconds

if TYPE_CHECKING:
    from giltrace.collectors.rules.base import Rule


class Mistyped(typer.BadParameter):
    """A value that makes no sense, with a `remedy`; Typer adds the option that it was given to, unless `option` is."""

    def __init__(self, message: str, remedy: str, option: str | None = None) -> None:
        super().__init__(message, param_hint=option)
        self.remedy = remedy


#: 146 years: more than any clock counts in ns.
_LONGEST_NS = 1 << 62

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_SHARE = re.compile(_NUMBER + r"\s*(%?)")
_SIZES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(_NUMBER + r"\s*(KiB|MiB|GiB|kB|MB|GB)")


def parse_duration(text: str, option: str | None = None, *, unit: str = "") -> int:
    """Nanoseconds of ``10ms``, ``5us`` or ``1.5s``; of a mere number, if it may be one, in this `unit`.

    `option` is what it was given to.
    """
    try:
        found = nanoseconds(text, unit)
    except OverflowError:
        found = None
    if found is None or found > _LONGEST_NS:
        raise Mistyped(f"{text!r} is no duration", "write a number and ns, us, ms, s or m, like 10ms", option)
    return found


def parse_length(text: str, option: str | None = None) -> int:
    """The same for how long to look, in seconds like those of other tools: not nothing."""
    found = parse_duration(text, option, unit="s")
    if not found:
        raise Mistyped(f"{text!r} is no time to look at anything", "give a longer one, like 5s", option)
    return found


def parse_share(text: str) -> float:
    """A share of 1, from ``20%`` or ``0.2``."""
    found = _SHARE.fullmatch(text.strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if not 0 <= share <= 1:
        raise Mistyped(f"{text!r} is no share", "write 20% or 0.2, at most 100%")
    return share


def parse_size(text: str, option: str = "--ring") -> int:
    """Bytes of ``64MiB`` or ``1.5GB``, the value of an `option`; a unit is needed."""
    found = _SIZE.fullmatch(text.strip())
    size = float(found[1]) * _SIZES[found[2]] if found else -1.0
    if not 0 <= size < 1 << 62:
        raise Mistyped(f"{text!r} is no size", "write a number and KiB, MiB, GiB, kB, MB or GB, like 64MiB", option)
    return round(size)


def parse_rule(text: str) -> Rule:
    """When a flight recorder dumps: ``wait>50ms``, ``stall>100ms``, ``deadlock``, or the name of a signal, ``USR1``."""
    from giltrace.collectors.rules import EXAMPLES, parse

    try:
        return parse(text)
    except ValueError as error:
        raise Mistyped(str(error), f"write {', '.join(EXAMPLES[:-1])} or {EXAMPLES[-1]}", "--dump-on") from None


def parse_command(text: str) -> list[str]:
    """The words of a command, as a shell would take it apart; nothing of it is done by one."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise Mistyped(f"{text!r} is no command: {error}", "close its quotes", "--on-dump") from None
