"""Tests that pytest runs with giltrace's plugin; the last word of a name is the outcome that each must have."""

import functools
import gc
import json
import multiprocessing
import os
import re
import sys
import threading
import time
import unittest
import zlib

import pytest

import giltrace

TEXT = json.dumps(list(range(300_000)))
BYTES = TEXT.encode()


@pytest.fixture
def hogged():
    """Another thread of the test process has the GIL most of the time; what counts its turns."""
    ended, turns = threading.Event(), []

    def hog():
        while not ended.is_set():
            json.loads(TEXT)
            turns.append(1)

    thread = threading.Thread(target=hog, name="hog")
    thread.start()
    yield lambda: len(turns)
    ended.set()
    thread.join()


def backtrack():
    return re.match(r"(a+)+$", "a" * 21 + "b")


def test_returns_what_the_function_returned_passed(assert_releases_gil):
    assert zlib.decompress(assert_releases_gil(zlib.compress, BYTES, level=9)) == BYTES


def test_the_line_that_held_it_failed(assert_releases_gil):
    assert_releases_gil(backtrack)


def test_a_builtin_by_name_failed(assert_releases_gil):
    assert_releases_gil(sorted, list(range(300_000)), key=functools.partial(int))


def test_beside_a_hog_passed(hogged):
    giltrace.assert_releases_gil(zlib.compress, BYTES, 9)


def test_beside_a_hog_failed(hogged):
    giltrace.assert_releases_gil(backtrack)


def test_in_threads_passed():
    problems = []

    def one(function, releases):
        try:
            giltrace.assert_releases_gil(function)
            problems.append("") if releases else problems.append("passed")
        except AssertionError as error:
            problems.append(str(error) if releases else "")

    threads = [threading.Thread(target=one, args=(lambda: zlib.compress(BYTES, 9), True)) for _ in range(2)]
    threads += [threading.Thread(target=one, args=(backtrack, False)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [""] * 4


def test_nested_passed():
    def outer():
        giltrace.assert_releases_gil(time.sleep, 0.02)
        with pytest.raises(AssertionError, match=r"backtrack was without the GIL for 0\.0%"):
            giltrace.assert_releases_gil(backtrack)
        return 7

    assert giltrace.assert_releases_gil(outer, share=0) == 7


def test_exceptions_pass_through_passed():
    with pytest.raises(ZeroDivisionError):
        giltrace.assert_releases_gil(lambda: 1 / 0)
    assert gc.isenabled()


def test_often_passed():
    """Nothing stays behind: no descriptor, no thread."""
    giltrace.assert_releases_gil(time.sleep, 0.001)
    before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    for _ in range(50):
        giltrace.assert_releases_gil(time.sleep, 0.001, share=0)
    assert (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))) == before
    assert threading.active_count() == 1


def _in_child():
    giltrace.assert_releases_gil(time.sleep, 0.01)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.gil(max_hold="60s")
def test_a_forked_child_passed():
    child = multiprocessing.get_context("fork").Process(target=_in_child)
    child.start()
    child.join()
    assert child.exitcode == 0


async def coroutine():
    pass


def generator():
    yield


class Called:
    async def __call__(self):
        pass


@pytest.mark.parametrize(
    "function", [coroutine, generator, functools.partial(coroutine), Called(), lambda: generator(), 5]
)
def test_what_does_its_work_later_is_refused_passed(function):
    with pytest.raises(TypeError, match=r"not run it|after the call|cannot be called"):
        giltrace.assert_releases_gil(function)


@pytest.mark.parametrize("share", ["90%", 2, -1, None, True])
def test_a_share_that_is_none_passed(share):
    with pytest.raises(ValueError, match="is no share: write a number from 0 to 1"):
        giltrace.assert_releases_gil(time.sleep, 0, share=share)


def test_no_gil_skipped(assert_releases_gil, monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert_releases_gil(time.sleep, 0.01)


@pytest.mark.gil(max_hold="20ms")
def test_python_gives_it_up_when_asked_passed():
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        pass


@pytest.mark.gil(max_hold="5ms")
class TestMarkedClass:
    def test_holds_it_failed(self):
        backtrack()

    @pytest.mark.gil(max_hold="60s")
    def test_the_closest_counts_passed(self):
        backtrack()

    def test_its_own_outcome_counts_failed(self):
        raise KeyError("its own")


@pytest.mark.gil(max_hold="30ms", releases=0.5)
def test_other_threads_do_not_count_passed(hogged):
    time.sleep(0.05)


@pytest.mark.gil(max_wait="3ms")
def test_waits_failed(hogged):
    enough = hogged() + 10  # it may have had many before, or, on a busy machine, none
    while hogged() < enough:
        time.sleep(0.001)


@pytest.mark.gil(max_wait="15ms")
def test_waits_for_nobody_passed():
    for _ in range(5):
        time.sleep(0.001)


@pytest.mark.gil(releases=0.9)
def test_releases_too_little_failed():
    time.sleep(0.001)
    backtrack()


@pytest.mark.gil(releases=0.9)
class TestOfUnittest(unittest.TestCase):
    def test_sleeps_passed(self):
        time.sleep(0.05)

    def test_computes_failed(self):
        backtrack()


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.gil(max_hold=5)), 2])
def test_a_wrong_mark_of_parameters(at):
    pass


def test_threads_that_wait_passed():
    """Told by --giltrace."""
    thread = threading.Thread(target=backtrack, name="backtracker")
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
