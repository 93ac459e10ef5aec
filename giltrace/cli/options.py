"""Options that several commands share."""

from __future__ import annotations

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
