"""clock.bin as it is written: readings of the tracer's clock beside CLOCK_MONOTONIC. `clock.py` reads it.

What writes while a program runs does without numpy, so that the program need not wait for its import.
"""

from __future__ import annotations

import struct
from pathlib import Path

from giltrace import native

FILE = "clock.bin"

#: A pair, as `clock.PAIR` has it.
_PAIR = struct.Struct("<QQQ")


def append_pair(folder: Path) -> None:
    """Read both clocks now and append the pair to the recording's `clock.bin`."""
    with (folder / FILE).open("ab") as file:
        file.write(_PAIR.pack(*native.clock_pair()))
