"""The rules of a flight recorder: how they are typed, and what they make of what is on record."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from giltrace.analysis.findings.stall import Look
from giltrace.analysis.measure.block_causes import BlockCause, cause_of_frames
from giltrace.analysis.measure.loops import may_wait, own_frames, runs, selector_of
from giltrace.collectors.rules import EXAMPLES, RULES, parse
from giltrace.collectors.rules.deadlock import _circle
from giltrace.collectors.rules.request import Request
from giltrace.collectors.rules.stall import Stall, _Loop
from giltrace.integrations.requests import ASGI, WSGI
from giltrace.recording.live_file import LiveFile
from giltrace.recording.live_sleeps import Sleep
from giltrace.recording.slow_requests import FOLDER, LIMIT, MOST_BYTES, file_name

LIB = "/usr/lib/python3.12"
SELECT = [("EpollSelector.select", f"{LIB}/selectors.py"), ("BaseEventLoop._run_once", f"{LIB}/asyncio/base_events.py")]


def test_every_rule_has_an_example_that_is_one() -> None:
    assert {one.partition(">")[0] for one in EXAMPLES} == set(RULES)
    for example in EXAMPLES:
        assert parse(example).text == example
    assert parse(" stall > 0.1s ").limit_ns == 100_000_000
    assert parse("sigusr1").kind == "signal"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("boredom", "no reason to dump"),
        ("stall", "write stall>100ms"),
        ("deadlock>1s", "write deadlock"),
        ("USR1>1s", "write USR1"),
        ("lock>soon", "is no duration"),
        ("stall>0ms", "is no duration"),
        ("stall>1e99s", "is no duration"),
        ("held>95%", "write held>95%/5s"),
        ("held>100%/5s", "write held>95%/5s"),
        ("held>95%/ever", "is no duration"),
    ],
)
def test_what_is_no_rule_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse(text)


def test_the_lowest_limit_is_the_tracers() -> None:
    env: dict[str, str] = {}
    for rule in ("wait>50ms", "wait>5ms", "wait>500ms"):
        parse(rule).prepare(env)
    lowest: dict[str, str] = {}
    parse("wait>5ms").prepare(lowest)
    assert env.keys() == lowest.keys() == {"GILTRACE_WAIT_LIMIT"}
    assert int(env["GILTRACE_WAIT_LIMIT"]) == pytest.approx(int(lowest["GILTRACE_WAIT_LIMIT"]), rel=1e-2)


@pytest.mark.parametrize(
    ("frames", "loop"),
    [
        (SELECT, "asyncio"),
        ([*SELECT, ("start", "/x/site-packages/tornado/platform/asyncio.py")], "Tornado"),
        (
            [("EpollIOManager.get_events", "/x/trio/_core/_io_epoll.py"), ("unrolled_run", "/x/trio/_core/_run.py")],
            "trio",
        ),
        ([("Hub.run", "/x/gevent/hub.py")], "gevent"),
        ([("Runner.run", f"{LIB}/asyncio/runners.py"), ("run", "/x/uvloop/__init__.py")], "uvloop"),
        ([SELECT[0], ("BaseServer.serve_forever", f"{LIB}/socketserver.py")], ""),
        ([("select", "/srv/app/selectors.py")], ""),
        ([("run", "/srv/app/runners.py")], ""),
        ([], ""),
    ],
)
def test_a_loop_in_its_selector_is_known_by_its_frames(frames: list[tuple[str, str]], loop: str) -> None:
    assert selector_of(frames) == loop
    assert not loop or may_wait(frames[0])
    assert not loop or loop == "gevent" or runs(frames[-2:], loop)


def test_what_a_loop_runs_is_told_from_the_loop() -> None:
    handler = [("work", "/srv/app.py"), ("handler", "/srv/app.py")]
    stack = [*handler, ("Handle._run", f"{LIB}/asyncio/events.py"), SELECT[1]]
    assert own_frames(stack) == 2
    assert own_frames(handler) == 2
    assert runs(stack, "asyncio")
    assert not runs(handler, "asyncio")


def test_an_interpreter_that_is_being_ended_has_left_its_loop() -> None:
    mine = (("close", "/srv/app.py", 7), ("unrolled_run", "/x/trio/_core/_run.py", 9), ("<module>", "/srv/app.py", 30))
    loop = _Loop("trio", tid=7, outermost=mine[-1][:2])
    loop.looks = [Look(time, 7, mine, False, True, "") for time in (1, 2)]
    file = cast(LiveFile, SimpleNamespace(stacks=None))
    assert Stall._is_of_loop(file, loop, ended=False)
    # Its last collection goes on, and no code is run any more.
    loop.looks.append(Look(3, 7, (), True, True, ""))
    assert not Stall._is_of_loop(file, loop, ended=False)
    # A loop that came back to its selector has not been left.
    assert Stall._is_of_loop(file, loop, ended=True)


def test_idle_waits_are_told_by_their_frames() -> None:
    queue = [(f"{LIB}/threading.py", "Condition.wait"), (f"{LIB}/queue.py", "Queue.get")]
    join = [(f"{LIB}/threading.py", "Thread._wait_for_tstate_lock"), (f"{LIB}/threading.py", "Thread.join")]
    worker = [(f"{LIB}/concurrent/futures/thread.py", "_worker")]
    assert [cause_of_frames(each) for each in (queue, join, worker)] == [
        BlockCause.QUEUE,
        BlockCause.JOIN,
        BlockCause.QUEUE,
    ]
    assert cause_of_frames([("/srv/app.py", "work")]) is BlockCause.LOCK


def sleep(thread: int, semaphore: int, *had: int) -> Sleep:
    return Sleep(thread, 0, semaphore, 0, 0, 0, had)


def test_a_circle_of_threads_is_found() -> None:
    one, two, three = sleep(1, 10, 20), sleep(2, 20, 30), sleep(3, 30, 10)
    assert {each.thread for each in _circle([one, two, three, sleep(4, 10)])} == {1, 2, 3}
    assert _circle([one, two]) == []
    assert _circle([sleep(1, 10, 10)]) == []


def request_line(**changed: object) -> bytes:
    told = {"start": 0, "end": 10**9, "tid": 5, "request": "GET /", "task": ""}
    return json.dumps(told | changed).encode() + b"\n"


def test_lines_of_the_middleware_that_make_no_sense_are_left_out(tmp_path: Path) -> None:
    rule = Request("request>1ms", "1ms")
    path = tmp_path / file_name(7)
    wrong = (b"\n", b"[]\n", b"{\n", request_line(start="x"), request_line(tid=-1), request_line(end=5))
    path.write_bytes(b"".join(wrong) + request_line(request="GET /\x1b[31m") + b'{"half')
    (found,) = rule.poll(tmp_path)
    assert (found.trigger.pid, found.trigger.tid, found.trigger.length_ns) == (7, 5, 10**9)
    assert "\x1b" not in found.what
    assert rule.poll(tmp_path) == []
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - len(b'{"half'))
        file.seek(0, os.SEEK_END)
        file.write(request_line())
    assert len(rule.poll(tmp_path)) == 1


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Have a recorder want to know of every request; returns what it was told."""
    monkeypatch.setenv(LIMIT, "1")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    path = tmp_path / file_name(os.getpid())
    return lambda: [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def test_wsgi_requests_are_told_once_they_are_over(recorded: Callable[[], list[dict[str, Any]]]) -> None:
    closed = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"one"])

        def close(self) -> None:
            closed.append(True)

    def failing(environ: dict[str, Any], start: object) -> list[bytes]:
        raise LookupError

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/list"}
    assert WSGI(lambda *_: [b"all"])(environ, None) == [b"all"]
    assert [one["request"] for one in recorded()] == ["GET /list"]
    body: Any = WSGI(lambda *_: Body())(environ | {"SCRIPT_NAME": "/app"}, None)
    assert list(body) == [b"one"]
    assert len(recorded()) == 1
    body.close()
    assert closed == [True]
    assert recorded()[1]["request"] == "GET /app/list"
    with pytest.raises(LookupError):
        WSGI(failing)(environ, None)
    assert len(recorded()) == 3


def test_asgi_requests_are_told_with_their_task(recorded: Callable[[], list[dict[str, Any]]]) -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        middleware = ASGI(app)
        await middleware({"type": "http", "method": "GET", "path": "/"}, None, None)
        await middleware({"type": "websocket", "path": "/"}, None, None)

    async def named() -> None:
        await asyncio.create_task(main(), name="mine")

    asyncio.run(named())
    (one,) = recorded()
    assert (one["request"], one["task"]) == ("GET /", "mine")
    assert one["end"] > one["start"]


def test_middleware_is_silent_without_a_recorder_and_bounded_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / file_name(os.getpid())
    monkeypatch.setenv(FOLDER, str(tmp_path))
    WSGI(lambda *_: [])({}, None)
    assert not path.exists()
    monkeypatch.setenv(LIMIT, "1")
    path.write_bytes(b"x" * MOST_BYTES)
    WSGI(lambda *_: [])({}, None)
    assert path.stat().st_size == MOST_BYTES
    monkeypatch.setenv(FOLDER, str(tmp_path / "gone"))
    assert WSGI(lambda *_: [b"still"])({}, None) == [b"still"]
