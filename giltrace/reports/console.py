"""Where reports are printed: a terminal, a file or a pipe, of a width that something fits into."""

from __future__ import annotations

from typing import Any

from rich.console import Console

_NARROWEST, _USUAL = 20, 80


def console(**options: Any) -> Console:
    """Return Rich's console with these `options`; a width that cannot be meant (``COLUMNS=0``) becomes 80.

    What is printed goes where it is to go in a notebook, too, where Rich would show it.
    """
    made = Console(**options, force_jupyter=False)
    if made.width < _NARROWEST:
        made.width = _USUAL
    return made
