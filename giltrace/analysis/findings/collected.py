"""Garbage collections that nobody waits for: they take time all the same, which only what native code ran tells."""

from __future__ import annotations

import re

import numpy as np

from giltrace.analysis.durations import percent
from giltrace.analysis.findings.figures import QUIET_SHARE, Figures
from giltrace.recording.events import NativeFunction
from giltrace.text import plural

#: Fewer samples of what native code ran say little.
_FEWEST = 20
#: What the collector runs, in each version; above all what walks over objects, which nothing else calls. What is freed
#: by it is told as what frees it.
_COLLECTOR = re.compile(
    r"""gc_\w+ | \w+_traverse | visit_\w+ | _Py(?:Dict|Tuple)_MaybeUntrack | untrack_(?:tuples|dicts)
    | (?:update|subtract)_refs | (?:move|deduce)_unreachable | mark_(?:all_reachable|stacks|heap_visitor|reachable)
    | _PyObject_VisitInstanceAttributes | _?PyObject_VisitManagedDict | _?PyGC_\w+""",
    re.VERBOSE,
)
#: It is of the interpreter, which may be part of a program; what an extension calls so may be its own.
_WALKS = "_traverse"


def collected(f: Figures) -> str:
    """How much of the time went to collections, and what to do about it, in words; empty where that is little."""
    code = f.process.native_code
    mine = code.samples[np.isin(code.samples["tid"], [thread.tid for thread in f.process.threads])]
    if len(mine) < _FEWEST:
        return ""
    interpreter = _interpreter(code.functions)
    its = np.array([_is_collector(one, interpreter) for one in code.functions], np.bool_)
    seen = int(its[mine["function"]].sum())
    # Only what runs is sampled.
    share = seen / len(mine) * f.busy_share
    if share <= QUIET_SHARE:
        return ""
    return (
        f" Collections of garbage take {percent(min(share, 1.0))} of the time ({seen:,} of "
        f"{plural(len(mine), 'sample')} of what ran): call gc.freeze() once the program has started, raise "
        "gc.set_threshold(), call gc.collect() less often, or keep fewer objects."
    )


def _interpreter(functions: tuple[NativeFunction, ...]) -> str:
    """The file of the interpreter: the one that runs Python code."""
    return next((one.file for one in functions if one.name.startswith("_PyEval_EvalFrame")), "")


def _is_collector(function: NativeFunction, interpreter: str) -> bool:
    known = function.file == interpreter if interpreter else "python" in function.file.rpartition("/")[2]
    return _COLLECTOR.fullmatch(function.name) is not None and (known or function.name.endswith(_WALKS))
