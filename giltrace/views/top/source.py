"""What the live view looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def never() -> None:
    """The source goes on."""


@dataclass(frozen=True)
class Source:
    """A recording that is being written into `folder`: `title` names it on the screen, `name` names what is kept of it.

    `ended` says in words that it ended, and how; None as long as it goes on.
    """

    folder: Path
    title: str
    name: str
    command: list[str]
    ended: Callable[[], str | None] = never
