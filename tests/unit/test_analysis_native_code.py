"""Which native functions a hog was in, from samples made up to show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from giltrace.analysis.finding_results import Hog, SampledFunction
from giltrace.analysis.findings.hogs import find_hogs
from giltrace.analysis.findings.ranked import find_findings
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.measure.native_code import MOST_FUNCTIONS, functions_text, native_functions
from giltrace.recording.events import NATIVE_SAMPLE, NativeCode, NativeFunction
from giltrace.recording.perf_types import ANONYMOUS
from giltrace.timeline.model import Process
from tests.unit.gil_events import MS, US, process
from tests.unit.test_summary_verdict import hog

HOG, OTHER = 101, 102
SORT, COMPARE, NAMELESS, CALLED, UNKNOWN = range(5)
FUNCTIONS = (
    NativeFunction("list_sort_impl", "/usr/lib/libpython.so"),
    NativeFunction("unsafe_long_compare", "/usr/lib/libpython.so"),
    NativeFunction("", "/app/fast.so"),
    NativeFunction("", "/app/fast.so", "run", "/app/slow.so"),
    NativeFunction("", ""),
)

#: From when to when, in ns, a thread is sampled every 10 ms in which function.
Stretch = tuple[int, int, int]


def made(stretches: Sequence[Stretch], *, tid: int = HOG) -> Process:
    rows = [(time, tid, function) for start, end, function in stretches for time in range(start, end, 10 * MS)]
    samples = np.sort(np.array(rows, NATIVE_SAMPLE), order=("tid", "time"))
    return replace(process(*hog()), native_code=NativeCode(FUNCTIONS, samples))


def the_hog(stretches: Sequence[Stretch], *, tid: int = HOG) -> Hog:
    (found,) = find_hogs(made(stretches, tid=tid))
    return found


def told(hog: Hog) -> list[tuple[str, int]]:
    return [(one.name, one.samples) for one in hog.functions]


def test_without_samples_nothing_is_said() -> None:
    found = the_hog([])
    assert (found.functions, found.samples, found.c_function, found.c_file, found.c_stack) == ((), 0, None, None, ())


def test_functions_are_told_by_their_samples_after_the_request() -> None:
    # Thread 1 holds for 300 ms from 20 us on and is asked after 6 ms: of 30 samples the first is before that.
    found = the_hog([(0, 200 * MS, COMPARE), (200 * MS, 300 * MS, SORT)])
    assert told(found) == [("unsafe_long_compare", 19), ("list_sort_impl", 10)]
    assert (found.samples, found.c_function, found.c_file, found.c_samples) == (
        29,
        "unsafe_long_compare",
        "/usr/lib/libpython.so",
        19,
    )
    assert found.c_stack == ("unsafe_long_compare (/usr/lib/libpython.so)",)


def test_only_the_holders_samples_count_and_only_within_its_hold() -> None:
    assert told(the_hog([(0, 300 * MS, SORT)], tid=OTHER)) == []
    assert told(the_hog([(0, 5 * MS, SORT)])) == []
    assert told(the_hog([(300 * MS + 21 * US, 300 * MS + 22 * US, SORT)])) == []
    assert told(the_hog([(300 * MS + 19 * US, 300 * MS + 20 * US, SORT)])) == [("list_sort_impl", 1)]


def test_groups_keep_apart_and_those_without_a_sample_are_left_out() -> None:
    sampled = made([(0, 100 * MS, COMPARE), (100 * MS, 200 * MS, SORT)])
    thread, start = np.array([1, 1, 1, 0]), np.array([0, 100 * MS, 250 * MS, 0])
    end, group = np.array([100 * MS, 200 * MS, 300 * MS, 300 * MS]), np.array([7, 3, 5, 9])
    found = native_functions(sampled, thread, start, end, group)
    assert {one: ([f.name for f in seen.functions], seen.samples) for one, seen in found.items()} == {
        7: (["unsafe_long_compare"], 10),
        3: (["list_sort_impl"], 10),
    }


def test_of_many_functions_those_with_the_fewest_samples_are_left_out_and_counted() -> None:
    several = tuple(NativeFunction(f"f{number}", "/a.so") for number in range(20))
    samples = np.array([(100 * MS + number, HOG, number) for number in range(20)], NATIVE_SAMPLE)
    (found,) = find_hogs(replace(process(*hog()), native_code=NativeCode(several, samples)))
    assert (len(found.functions), found.samples) == (MOST_FUNCTIONS, 20)


def test_a_function_without_a_name_is_told_by_its_library_and_its_caller() -> None:
    found = the_hog([(10 * MS, 200 * MS, CALLED), (200 * MS, 300 * MS, NAMELESS)])
    assert (found.c_function, found.c_file) == (None, "/app/fast.so")
    assert found.c_stack == ("[no symbol] (/app/fast.so)", "run (/app/slow.so)")
    assert functions_text(found.functions, found.samples) == (
        "a function without a name of fast.so, called from run of slow.so 65.5%, "
        "a function without a name of fast.so 34.5% (29 samples)"
    )


def test_functions_in_words() -> None:
    first, second = (SampledFunction(*FUNCTIONS[at], samples=count) for at, count in ((SORT, 31), (COMPARE, 21)))
    assert functions_text([first, second], 52) == (
        "list_sort_impl 59.6%, unsafe_long_compare 40.4% (libpython.so, 52 samples)"
    )
    elsewhere = SampledFunction("memcpy", "/lib/libc.so.6", samples=9)
    assert functions_text([first, elsewhere, second], 61, 2) == (
        "list_sort_impl of libpython.so 50.8%, memcpy of libc.so.6 14.8% (61 samples)"
    )
    assert str(SampledFunction("", "")) == "code of an unknown file"
    assert str(SampledFunction("", ANONYMOUS)) == "code that the program made as it ran"
    same = SampledFunction("", "/a/b.so", "run", "/a/b.so")
    assert str(same) == "a function without a name of b.so, called from run"


def test_the_verdict_and_the_finding_say_which_native_code_it_is() -> None:
    sampled = made([(10 * MS, 300 * MS, SORT)])
    expected = (
        "Let that native code, list_sort_impl 100.0% (libpython.so, 29 samples), release the GIL around its work, "
        "or hand it smaller pieces."
    )
    assert judge(sampled).advice == expected
    findings = find_findings(sampled, hogs=find_hogs(sampled))
    assert [one.advice for one in findings if one.cause == "hog"] == [expected]
    unsampled = process(*hog())
    assert judge(unsampled).advice == (
        "Let that native code release the GIL around its work, or hand it smaller pieces."
    )
