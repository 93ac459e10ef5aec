"""Where collections of garbage ran, and whether the program calls for them itself, by what the source says there."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from giltrace.analysis.measure.expressions import Expressions, source_lines
from giltrace.analysis.measure.intervals import hold_at
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process

_MODULE = re.compile(rb"^[ \t]*import[ \t][^\n]*(?<![\w.])gc[ \t]+as[ \t]+(\w+)", re.M)
_FROM = re.compile(rb"^[ \t]*from[ \t]+gc[ \t]+import[ \t]*(\([^)]*\)|[^\n]*)", re.M)
_FUNCTION = re.compile(rb"\bcollect\b(?:\s+as\s+(\w+))?")


def seen_collecting(process: Process, hold: Ints) -> tuple[Ints, Ints]:
    """Of each of these holds, the samples of its holder, and those in which this one was collecting garbage."""
    samples = process.samples
    of = hold_at(process, samples["gil"], samples["time"])
    seen, collecting = (
        np.bincount(of[rows], minlength=len(process.holds))[hold].astype(np.int64)
        for rows in (of >= 0, (of >= 0) & (samples["collecting"] > 0))
    )
    return seen, collecting


def calls_collect(expressions: Expressions, stack: int) -> bool:
    """Whether `gc.collect` is called at the innermost frame of a stack, by a name that its file has for it."""
    text, names = expressions.innermost(stack), _names(expressions.file(stack), expressions.before)
    return any(re.search(rf"(?<![\w.]){re.escape(name)}\(", text) for name in names)


@lru_cache(maxsize=64)
def _names(file: str, before: int) -> frozenset[str]:
    """What a file may call `gc.collect` by: other functions have that name too."""
    text = b"\n".join(source_lines(file, before))
    modules = {b"gc", *_MODULE.findall(text)}
    functions = {found[1] or b"collect" for part in _FROM.findall(text) for found in _FUNCTION.finditer(part)}
    return frozenset(name.decode() for name in functions | {module + b".collect" for module in modules})
