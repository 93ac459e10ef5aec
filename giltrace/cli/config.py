"""`[tool.giltrace.check]` in pyproject.toml: the options of `giltrace check`, where a project keeps them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from giltrace.cli.values import parse_duration, parse_share
from giltrace.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "pyproject.toml"
TABLE = "tool.giltrace.check"
#: More than any project's file; others are no such file.
_MOST_BYTES = 16 << 20


def _duration(value: Any) -> int:
    return parse_duration(str(value))


def _share(value: Any) -> float:
    return parse_share(str(value))


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise typer.BadParameter(f"{value!r} is no count: write a number without quotes, like 0")
    return value


def _text(value: Any) -> str:
    if type(value) not in (str, int, float):
        raise typer.BadParameter(f"{value!r} is no text: write it in quotes")
    return str(value)


def _texts(value: Any) -> list[str]:
    return list(map(_text, value if isinstance(value, list) else [value]))


#: What reads the value of each key; a key is the name of an option, and they are in the order of `check`'s parameters.
KEYS: dict[str, Callable[[Any], Any]] = {
    "max-wait": _duration,
    "max-wait-p99": _duration,
    "max-wait-share": _share,
    "max-hold": _duration,
    "max-overstay": _duration,
    "max-lost": _count,
    "verdict": _texts,
    "verdict-not": _texts,
    "window": _texts,
    "after": _text,
    "process": _texts,
    "thread": _texts,
    "role": _texts,
    "own": _texts,
}


def settings(named: Path | None) -> dict[str, Any]:
    """The values of the table in the file that is `named`, by key; without one, in the nearest pyproject.toml with it.

    That is looked for in the current directory and in those above it; if there is none, nothing is set. Raises
    `UsageError` for a file that cannot be read, and a key or a value that makes no sense.
    """
    if named is not None:
        found = _table(named, str(named))
        if found is None:
            raise UsageError(f"{named} has no table [{TABLE}]", "write one, or name another file with --config")
        return _values(found, named, str(named))
    here = Path.cwd()
    for file in (folder / FILE for folder in (here, *here.parents)):
        if file.is_file():
            shown = os.path.relpath(file)
            found = _table(file, shown)
            if found is not None:
                return _values(found, file, shown)
    return {}


def _table(file: Path, shown: str) -> Mapping[str, Any] | None:
    try:
        with file.open("rb") as opened:
            document = tomllib.loads(opened.read(_MOST_BYTES).decode())
    except OSError as error:
        raise UsageError(f"cannot read {shown}: {error.strerror}", "name another file with --config") from None
    except ValueError as error:
        raise UsageError(f"{shown} is no TOML: {error}", "mend it, or name another file with --config") from None
    ours = _inner(_inner(document, "tool", shown, "tool"), "giltrace", shown, "tool.giltrace")
    _refuse_others(ours, ("check",), shown, "tool.giltrace")
    return _inner(ours, "check", shown, TABLE) if "check" in ours else None


def _inner(table: Mapping[str, Any], key: str, shown: str, name: str) -> Mapping[str, Any]:
    found = table.get(key, {})
    if not isinstance(found, dict):
        raise UsageError(
            f"{shown}: {name} is no table", f"write [{TABLE}] in a line of its own, and the rules below it"
        )
    return found


def _values(table: Mapping[str, Any], file: Path, shown: str) -> dict[str, Any]:
    _refuse_others(table, KEYS, shown, TABLE)
    values = {}
    for key, value in table.items():
        try:
            values[key] = KEYS[key](value)
        except typer.BadParameter as error:
            raise UsageError(f"{shown}: {TABLE}.{key}: {error.message}", f"mend it in {shown}") from None
    if "own" in values:
        values["own"] = [str(file.parent / path) for path in values["own"]]
    return values


def _refuse_others(table: Mapping[str, Any], known: Collection[str], shown: str, name: str) -> None:
    for key in table:
        if key not in known:
            like = get_close_matches(key, known, 1)
            remedy = f"did you mean {like[0]!r}?" if like else f"there are: {', '.join(known)}"
            raise UsageError(f"{shown}: {name} has no key {key!r}", remedy)
