"""Stalls that are planted in web servers, under the frameworks that people have, are dumped, each with its sentence."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from giltrace.recording.trigger import Trigger
from tests.stalls import GILTRACE, LIMIT, is_told, planted, serving_web, trigger_of
from tests.tracing import TARGETS

pytestmark = pytest.mark.rarely

#: How the sentence begins where a loop of this name stalls, and where the request is what is told of.
_LOOP = r"The {} loop of thread 'MainThread' stalled for [\d.]+ s( so far)? in \S+ \(stalling_web\.py:\d+\): "
_REQUEST = r"The request GET /{plant} took [\d.]+ s in thread 'ThreadPoolExecutor-0_\d': "
_WEB = TARGETS / "stalling_web.py"
_GUNICORN = ("--", sys.executable, "-m", "gunicorn", "-b", "unix:socket", "--threads", "4", "stalling_web:told_flask()")
#: The server, what it needs, the rule, how it is started, and the beginning of the sentence.
SERVERS = {
    "aiohttp": (("aiohttp",), "stall", (_WEB, "aiohttp"), _LOOP.format("asyncio")),
    "uvicorn": (("uvicorn", "fastapi", "uvloop"), "stall", (_WEB, "uvicorn"), _LOOP.format("uvloop")),
    "tornado": (("tornado",), "stall", (_WEB, "tornado"), _LOOP.format("asyncio")),
    "gevent": (("gevent", "flask"), "stall", (_WEB, "gevent"), _LOOP.format("gevent")),
    "gunicorn": (("gunicorn", "flask"), "request", _GUNICORN, _REQUEST),
}


def _without_cause(others: list[Trigger], ready: int) -> list[Trigger]:
    """What was told once a server was ready, and is not the machine's doing."""
    return [trigger for trigger in others if trigger.cause != "no-core" and trigger.time_ns > ready]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(*SERVERS[name][0])) for name in SERVERS])
def test_what_stalls_a_web_server_is_told(tmp_path: Path, name: str) -> None:
    _, rule, program, begins = SERVERS[name]
    wrong = []
    with serving_web(tmp_path, program, "--dump-on", f"{rule}>{LIMIT}") as server:
        server.ask("nothing")
        ready = time.monotonic_ns()
        for _ in range(100):
            server.ask("nothing")
        for plant, trigger, dump in planted(server, tmp_path):
            sentence = trigger.sentence
            if not is_told(plant, trigger) or not re.match(begins.format(plant=plant), sentence):
                wrong.append((plant, sentence, dump))
        for _ in range(100):
            server.ask("nothing")
        ended = " ".join(server.end().split())
    assert not wrong
    assert not _without_cause(server.others, ready)
    assert f"flight recorder ok ({server.dumps} dumps" in ended
    report = subprocess.run([*GILTRACE, "report", str(dump)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert " ".join(report.stdout.split()).startswith(sentence)


@pytest.mark.timeout(900)
@pytest.mark.needs(*sorted({need for needs, *_ in SERVERS.values() for need in needs}))
def test_nothing_is_told_without_a_cause(tmp_path: Path) -> None:
    """Ten minutes in which five servers have little to do, and end."""
    rules = [word for rule in ("stall", "request", "lock") for word in ("--dump-on", f"{rule}>{LIMIT}")]
    with contextlib.ExitStack() as stack:
        servers = []
        for name, (_, _, program, _) in SERVERS.items():
            (tmp_path / name).mkdir()
            server = stack.enter_context(serving_web(tmp_path / name, program, *rules, "--dump-on", "deadlock"))
            server.ask("nothing")
            servers.append(server)
        ready = time.monotonic_ns()
        for _ in range(600):
            for server in servers:
                server.ask("nothing")
            time.sleep(1)  # nothing is waited for: the time is what is tested
        for server in servers:
            assert "flight recorder ok" in " ".join(server.end().split())
    assert not _without_cause([trigger_of(dump) for dump in tmp_path.glob("*/server-*.giltrace")], ready)
