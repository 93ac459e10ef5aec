"""Options that several commands share."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

Python = Annotated[
    str | None,
    typer.Option(
        "--python",
        metavar="PATH",
        help="Interpreter for scripts, modules and code. [default: the active environment's, else giltrace's own]",
    ),
]


class StackDepth(str, Enum):
    """How much of a Python stack is recorded: nothing, the innermost frame, or all (up to 128 frames)."""

    none = "none"
    top = "top"
    full = "full"

    @property
    def frames(self) -> int:
        """The greatest number of frames."""
        return {StackDepth.none: 0, StackDepth.top: 1, StackDepth.full: 128}[self]
