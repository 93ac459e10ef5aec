"""An expected failure, as the command line tells it."""

from __future__ import annotations

import sys

from giltrace.errors import GiltraceError
from giltrace.text import visible

_LINES = "\n"


def tell(error: GiltraceError, about: str = "", kind: str = "error") -> None:
    """Print an error, or another `kind` of news, and its remedy to stderr; `about` leads one of several."""
    # They quote names; the line breaks are those of SQL's messages.
    print(f"giltrace: {kind}: {visible(about + error.message, keep=_LINES)}", file=sys.stderr)
    if error.remedy:
        print(f"  {visible(error.remedy)}", file=sys.stderr)
