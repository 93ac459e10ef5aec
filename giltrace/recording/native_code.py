"""Reads and writes `native-code.npz`: which native functions threads were found in, under their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from giltrace.recording.archive import read_archive, write_archive
from giltrace.recording.door import MAX_ID, Damaged, Times, leaving_out
from giltrace.recording.events import NATIVE_SAMPLE, NativeCode, NativeFunction
from giltrace.text import visible

FILE = "native-code.npz"
_VERSION = 1
_EVER = Times()


def write_native_code(folder: Path, code: NativeCode) -> None:
    """Write the samples of all processes into the recording `folder`. Raises OSError if they cannot be written."""
    about = {"version": _VERSION, "functions": [list(one) for one in code.functions]}
    write_archive(folder / FILE, about, "samples", code.samples)


def read_native_code(folder: Path, times: Times = _EVER, damage: list[str] | None = None) -> NativeCode:
    """Read the samples of all processes; none without the file.

    What is not of these `times`, or makes no sense, is left out; in words, it is added to `damage`.
    """
    refused: list[Damaged] = []
    code = NativeCode()
    left_out = 0
    with leaving_out(folder / FILE, refused):
        about, rows = read_archive(folder / FILE, _VERSION, {"functions": _are_functions}, "samples", NATIVE_SAMPLE)
        functions = tuple(NativeFunction(*map(visible, one)) for one in about["functions"])
        good = times.have(rows["time"]) & (rows["function"] < len(functions))
        good &= (rows["tid"] > 0) & (rows["tid"] <= MAX_ID)
        left_out = len(rows) - int(good.sum())
        rows = rows[good]
        code = NativeCode(functions, rows[np.lexsort((rows["time"], rows["tid"]))])
    if damage is not None:
        damage += [error.left_out() for error in refused]
        damage += [f"{FILE}: {left_out} samples make no sense: left out"] * (left_out > 0)
    return code


def _are_functions(value: Any) -> bool:
    """Whether what JSON gave are the fields of functions."""
    width = len(NativeFunction._fields)
    return isinstance(value, list) and all(
        isinstance(one, list) and len(one) == width and all(isinstance(text, str) for text in one) for one in value
    )
