"""A library of functions that compute with the GIL, built as libraries come: with its symbols, and without."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.tracing import TARGETS

PROGRAM = TARGETS / "native_hogs.py"

#: How each is compiled, and whether what only the linker needs to know is taken out of it.
BUILDS = {
    "plain": ((), False),
    "stripped": (("-fomit-frame-pointer",), True),
    "framed": (("-fno-omit-frame-pointer", "-DWITH_FRAME"), True),
    # The frame pointer of a function that calls nothing is its caller's: it leads past that one.
    "leafless": (("-fno-omit-frame-pointer",), True),
}


def build(folder: Path, kind: str) -> Path:
    """Compile the library, one of `BUILDS`, into the folder."""
    flags, stripped = BUILDS[kind]
    library = folder / f"lib{kind}.so"
    order = ("-fno-toplevel-reorder", "-fno-reorder-functions")
    command = ["cc", "-O1", "-shared", "-fPIC", *order, *flags, "-o", str(library), str(TARGETS / "native_hogs.c")]
    subprocess.run(command, check=True)
    if stripped:
        subprocess.run(["strip", "--strip-all", str(library)], check=True)
    return library
