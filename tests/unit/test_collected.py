"""Collections of garbage in a program of one thread, as samples of what it ran tell them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.findings.verdict import judge
from giltrace.recording.events import NATIVE_SAMPLE, NativeCode, NativeFunction
from giltrace.timeline.model import Process
from tests.unit.gil_events import MS, PID, process
from tests.unit.test_summary_verdict import single

LIBRARY = "/usr/lib/libpython3.12.so.1.0"
EVAL = NativeFunction("_PyEval_EvalFrameDefault", LIBRARY)


def made(*ran: tuple[NativeFunction, int], tid: int = PID) -> Process:
    """A thread that ran for 950 of 1000 ms; of so many samples each is in that function."""
    functions = tuple(function for function, _ in ran)
    numbers = [number for number, (_, count) in enumerate(ran) for _ in range(count)]
    rows = [(at * MS, tid, number) for at, number in enumerate(numbers)]
    return replace(process(*single()), native_code=NativeCode(functions, np.array(rows, NATIVE_SAMPLE)))


def python(names: Sequence[str], file: str = LIBRARY) -> list[NativeFunction]:
    return [NativeFunction(name, file) for name in names]


@pytest.mark.parametrize("name", ["gc_collect_main", "visit_decref", "dict_traverse", "subtract_refs", "gc_mark_alive"])
def test_they_are_told_where_they_take_more_than_a_tenth_of_the_time(name: str) -> None:
    (function,) = python([name])
    verdict = judge(made((EVAL, 70), (function, 30)))
    assert verdict.kind == "single-threaded"
    assert "Collections of garbage take 28.5% of the time (30 of 100 samples of what ran)" in verdict.advice
    assert "gc.freeze()" in verdict.advice
    assert "gc.freeze()" not in judge(made((EVAL, 90), (function, 10))).advice


def test_few_samples_say_nothing() -> None:
    (function,) = python(["gc_collect_main"])
    assert "garbage" not in judge(made((EVAL, 4), (function, 15))).advice
    assert "garbage" in judge(made((EVAL, 5), (function, 15))).advice


def test_what_another_process_ran_is_not_counted() -> None:
    (function,) = python(["gc_collect_main"])
    assert "garbage" not in judge(made((EVAL, 70), (function, 30), tid=PID + 1000)).advice


def test_what_an_extension_calls_so_is_its_own_unless_it_is_walked_over() -> None:
    (own,) = python(["visit_nodes"], "/app/tree.so")
    assert "garbage" not in judge(made((EVAL, 70), (own, 30))).advice
    (walked,) = python(["Tree_traverse"], "/app/tree.so")
    assert "garbage" in judge(made((EVAL, 70), (walked, 30))).advice


def test_it_may_be_part_of_a_program_of_any_name() -> None:
    eval_frame, collect = python([EVAL.name, "gc_collect_main"], "/opt/app/server")
    assert "garbage" in judge(made((eval_frame, 70), (collect, 30))).advice
