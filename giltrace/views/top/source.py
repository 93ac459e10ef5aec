"""What the live view looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from giltrace.views.top.locks import AskSleepers


def never() -> None:
    """The source goes on."""


@dataclass(frozen=True)
class Source:
    """A recording that is being written into `folder`: `title` names it on the screen, `name` names what is kept of it.

    `ended` says in words that it ended, and how; None as long as it goes on. `names` has names of threads that the
    tracer could not know, by their ids. `sleepers` tells from outside who sleeps in locks in a process.
    """

    folder: Path
    title: str
    name: str
    command: list[str]
    ended: Callable[[], str | None] = never
    names: Mapping[int, str] = field(default_factory=dict)
    sleepers: AskSleepers | None = None
