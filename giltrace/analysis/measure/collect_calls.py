"""Whether the program calls for a collection of garbage itself where one ran, by what the source says there."""

from __future__ import annotations

import re
from functools import lru_cache

from giltrace.analysis.measure.expressions import Expressions, source_lines

_MODULE = re.compile(rb"^[ \t]*import[ \t][^\n]*(?<![\w.])gc[ \t]+as[ \t]+(\w+)", re.M)
_FROM = re.compile(rb"^[ \t]*from[ \t]+gc[ \t]+import[ \t]*(\([^)]*\)|[^\n]*)", re.M)
_FUNCTION = re.compile(rb"\bcollect\b(?:\s+as\s+(\w+))?")


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
