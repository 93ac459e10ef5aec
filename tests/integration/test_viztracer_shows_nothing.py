"""What runs under viztracer writes, finds and ends as it would without: programs that betray a tracer's presence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from giltrace.collectors.base import Session
from giltrace.collectors.viztracer import VizTracerCollector
from giltrace.recording.collected import CollectorReport
from tests.collecting import script

# CPython 3.11 resumes the outer coroutine without telling a profiler, where the inner one survives what is thrown in.
SURVIVES_CANCELLATION = """
import asyncio
async def inner():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "survived"
async def outer():
    what = await inner()
    await asyncio.sleep(0)
    return what
async def main():
    task = asyncio.ensure_future(outer())
    await asyncio.sleep(0)
    task.cancel()
    print(await task)
asyncio.run(main())
"""

SWITCHES_STACKS = """
import greenlet
main = greenlet.getcurrent()
def ping():
    main.switch("ping")
def pong(other):
    ping()
    other.switch()
    return "pong"
one, other = greenlet.greenlet(pong), greenlet.greenlet(lambda: ping())
print(one.switch(other), one.switch(), other.switch(), other.dead)
"""

CALLS_WRONGLY = """
for wrong in (lambda: str.upper(5), lambda: list.append(1, 2), lambda: "".join(3), lambda: dict.keys(None)):
    try:
        wrong()
    except TypeError as error:
        print(error)
"""

LISTS_THREADS = """
import _thread, threading
started, ended = _thread.allocate_lock(), _thread.allocate_lock()
started.acquire(), ended.acquire()
def foreign():
    len("")
    started.release()
    ended.acquire()
_thread.start_new_thread(foreign, ())
started.acquire()
print(threading.Thread(target=print).name, [thread.name for thread in threading.enumerate()])
ended.release()
"""

TRACES_ITSELF = """
import json, sys, threading
from viztracer import VizTracer
def work():
    return sum(range(10))
for turn in range(2):
    tracer = VizTracer(verbose=0, output_file=sys.argv[1])
    tracer.start()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    tracer.stop()
    tracer.save()
    del tracer
print(sum(event["name"].startswith("work ") for event in json.load(open(sys.argv[1]))["traceEvents"]))
"""

IS_LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
def f():
    pass
for _ in range(1000):
    f()
print("limited")
"""

SHOWS_MODULES = """
import sys
print({name.partition(".")[0] for name in sys.modules} & {"viztracer", "multiprocessing", "json", "trio", "typing"})
"""


def bare_and_traced(folder: Path, argv: list[str]) -> CollectorReport:
    """Run `argv` both ways, see that nobody can tell the difference, and return what the collector says."""
    folder.mkdir()
    env = dict(os.environ)
    collector = VizTracerCollector()
    collector.prepare(folder, env)
    bare = subprocess.run(argv, capture_output=True, text=True, check=False)
    traced = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    collector.start(Session(folder, 0, None))
    assert (traced.returncode, traced.stdout, traced.stderr) == (bare.returncode, bare.stdout, bare.stderr)
    assert bare.returncode == 0, bare.stderr
    return collector.stop()


@pytest.mark.parametrize("options", [[], ["-W", "error"], ["-X", "dev"]], ids=" ".join)
def test_viztracer_does_not_warn_where_it_loses_track(tmp_path: Path, options: list[str]) -> None:
    argv = [sys.executable, *options, str(script(tmp_path, SURVIVES_CANCELLATION))]
    report = bare_and_traced(tmp_path / "x.giltrace", argv)
    if sys.version_info[:2] == (3, 11):
        assert report.status.startswith("partial: viztracer lost track and stopped in process ")


def test_viztracer_says_that_greenlets_confuse_it(tmp_path: Path) -> None:
    pytest.importorskip("greenlet")
    report = bare_and_traced(tmp_path / "x.giltrace", [sys.executable, str(script(tmp_path, SWITCHES_STACKS))])
    assert report.status.startswith("no function spans: process ")
    assert report.status.endswith(" used greenlets, whose switches viztracer takes for calls")


@pytest.mark.parametrize("text", [CALLS_WRONGLY, LISTS_THREADS, SHOWS_MODULES])
def test_viztracer_does_not_show(tmp_path: Path, text: str) -> None:
    report = bare_and_traced(tmp_path / "x.giltrace", [sys.executable, str(script(tmp_path, text))])
    assert report.status == "ok"


def test_viztracer_lets_the_program_use_it_too(tmp_path: Path) -> None:
    argv = [sys.executable, str(script(tmp_path, TRACES_ITSELF)), str(tmp_path / "own.json")]
    report = bare_and_traced(tmp_path / "x.giltrace", argv)
    assert report.status.startswith("partial: viztracer lost track and stopped in process ")


def test_viztracer_respects_a_limit_of_file_sizes(tmp_path: Path) -> None:
    report = bare_and_traced(tmp_path / "x.giltrace", [sys.executable, str(script(tmp_path, IS_LIMITED))])
    assert " had no room for its calls: " in report.status
