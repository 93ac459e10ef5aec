"""Which C function a hog was in, from spans made up to show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from giltrace.analysis.findings.hogs import find_hogs
from giltrace.analysis.measure.native_code import NativeCode, find_native_code
from giltrace.analysis.results import Hog
from giltrace.recording.events import SPAN, Spans
from giltrace.timeline.model import Process
from tests.unit.gil_events import MS, PID, US, process
from tests.unit.test_summary_verdict import hog

HOG, OTHER = 101, 102
NAMES = (
    "run (app.py:3)",
    "outer (lib.so)",
    "inner (lib.so)",
    "[no symbol] (lib.so)",
    "memcpy (libc.so)",
    "[no symbol] (libc.so)",
    "merge (sort.c:10)",
    "merge (sort.c:20)",
)
RUN, OUTER, INNER, NAMELESS, MEMCPY, LIBC, MERGE_10, MERGE_20 = range(len(NAMES))

Stretch = tuple[int, int, Sequence[int]]


def spans(stretches: Sequence[Stretch], *, tid: int = HOG, interval: int = 10 * MS, error: int = 0) -> Spans:
    """Stretches of (start, end, names of the stack, outermost first), a span per frame."""
    rows = [(start, end, tid, name, depth) for start, end, stack in stretches for depth, name in enumerate(stack)]
    rows.sort(key=lambda row: (row[2], row[0], row[4]))
    native = tuple(range(OUTER, len(NAMES)))
    return Spans("py-spy", PID, True, NAMES, np.array(rows, SPAN), error, native=native, interval_ns=interval)


def made(*sampled: Spans) -> Process:
    return replace(process(*hog()), spans=sampled)


def the_hog(*sampled: Spans) -> Hog:
    (found,) = find_hogs(made(*sampled))
    return found


def told(hog: Hog) -> tuple[str | None, str | None, int, int]:
    return hog.c_function, hog.c_file, hog.c_samples, hog.samples


def test_without_native_samples_nothing_is_said() -> None:
    python_only = replace(spans([(0, 300 * MS, [RUN])]), native=())
    for found in (the_hog(), the_hog(python_only)):
        assert told(found) == (None, None, 0, 0)
        assert found.c_stack == ()


def test_the_deepest_function_that_most_samples_show() -> None:
    # Thread 1 holds for 300 ms from 20 us on and is asked after 6 ms: of 30 samples the first is before that.
    stretches = [(0, 200 * MS, [RUN, OUTER, INNER]), (200 * MS, 300 * MS, [RUN, OUTER, MEMCPY])]
    found = the_hog(spans(stretches))
    assert told(found) == ("inner", "lib.so", 19, 29)
    assert found.c_stack == ("inner (lib.so)", "outer (lib.so)")


def test_where_samples_differ_the_function_they_share_is_told() -> None:
    stretches = [(0, 110 * MS, [RUN, OUTER, INNER]), (110 * MS, 200 * MS, [RUN, OUTER, MEMCPY])]
    stretches += [(200 * MS, 300 * MS, [RUN, OUTER])]
    assert told(the_hog(spans(stretches))) == ("outer", "lib.so", 29, 29)


def test_lines_of_one_function_are_one() -> None:
    stretches = [(0, 150 * MS, [RUN, MERGE_10]), (150 * MS, 300 * MS, [RUN, MERGE_20])]
    assert told(the_hog(spans(stretches))) == ("merge", "sort.c", 29, 29)


def test_the_interpreters_own_code_has_no_function() -> None:
    assert told(the_hog(spans([(0, 300 * MS, [OUTER, RUN])]))) == (None, None, 0, 29)


def test_a_function_without_a_symbol_takes_its_callers_name_within_its_library_only() -> None:
    assert told(the_hog(spans([(0, 300 * MS, [RUN, OUTER, NAMELESS])]))) == ("outer", "lib.so", 29, 29)
    assert told(the_hog(spans([(0, 300 * MS, [RUN, OUTER, LIBC])]))) == (None, "libc.so", 29, 29)


def test_only_the_holders_samples_count_and_only_after_the_request() -> None:
    before = [(0, 5 * MS, [RUN, INNER])]
    assert told(the_hog(spans(before), spans([(0, 300 * MS, [RUN, OUTER])], tid=OTHER))) == (None, None, 0, 0)


def test_a_sample_near_the_edge_of_a_hold_is_nobodys() -> None:
    # 0.5 ms before the end of the hold, known to 1 ms.
    edge = [(299 * MS + 500 * US, 300 * MS, [RUN, INNER])]
    assert told(the_hog(spans(edge))) == ("inner", "lib.so", 1, 1)
    assert told(the_hog(spans(edge, error=MS))) == (None, None, 0, 0)


def test_groups_keep_apart_and_those_without_a_sample_are_left_out() -> None:
    sampled = spans([(0, 100 * MS, [RUN, INNER]), (100 * MS, 200 * MS, [RUN, OUTER]), (250 * MS, 300 * MS, [])])
    thread = np.array([1, 1, 1])
    start, end = np.array([0, 100 * MS, 250 * MS]), np.array([100 * MS, 200 * MS, 300 * MS])
    found = find_native_code(made(sampled), thread, start, end, np.array([7, 3, 5]))
    assert found == {
        7: NativeCode("inner", "lib.so", 10, 10, ("inner (lib.so)",)),
        3: NativeCode("outer", "lib.so", 10, 10, ("outer (lib.so)",)),
    }
