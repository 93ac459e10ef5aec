"""Stalls that are planted in servers are dumped, each with a sentence that names its cause and its line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from giltrace.recording.trigger import Trigger
from tests.stalls import (
    GILTRACE,
    LIMIT,
    SECONDS,
    Server,
    get,
    is_told,
    planted,
    serving,
    serving_already,
    trigger_of,
)
from tests.tracing import TARGETS

OTHERS = ("uvloop", "trio", "gevent", "tornado")
LOOPS = ("asyncio", *(pytest.param(loop, marks=pytest.mark.needs(loop)) for loop in OTHERS))
#: As they are called in sentences.
NAMED = {"tornado": "Tornado"}


@pytest.mark.parametrize("loop", LOOPS)
def test_what_stalls_a_loop_is_told(tmp_path: Path, loop: str) -> None:
    with serving(tmp_path, loop, "--dump-on", f"stall>{LIMIT}") as server:
        _is_told(tmp_path, server, loop)


def test_what_stalls_a_loop_that_runs_already_is_told(tmp_path: Path) -> None:
    with serving_already(tmp_path, "asyncio", "--dump-on", f"stall>{LIMIT}") as server:
        _is_told(tmp_path, server, "asyncio")
        server.ask("nothing")  # it goes on without giltrace


def _is_told(tmp_path: Path, server: Server, loop: str) -> None:
    wrong = []
    server.ask("nothing")
    for plant, trigger, dump in planted(server, tmp_path):
        sentence = trigger.sentence
        assert sentence.startswith(f"The {NAMED.get(loop, loop)} loop of thread 'MainThread' stalled for ")
        if not is_told(plant, trigger):
            wrong.append((plant, sentence, dump))
    ended = " ".join(server.end().split())
    assert not wrong
    assert f"flight recorder ok ({server.dumps} dumps" in ended
    report = subprocess.run([*GILTRACE, "report", str(dump)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert " ".join(report.stdout.split()).startswith(sentence)


def test_a_recorder_that_did_not_get_to_run_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, "asyncio", "--dump-on", f"stall>{LIMIT}") as server:
        server.ask("call")
        server.told()
        server.recorder.send_signal(signal.SIGSTOP)
        server.ask("computing")
        server.recorder.send_signal(signal.SIGCONT)
        sentence, dump = server.told()
        server.end()
    assert trigger_of(tmp_path / dump).cause in ("computing", "no-core")
    if "computed" in sentence:  # there was a core for it; and it may have looked once, before it was stopped
        assert sentence.endswith((": it was over before giltrace looked.", "where it gave the GIL up."))


@pytest.mark.needs("python3.14")
def test_the_task_has_its_name_from_outside(tmp_path: Path) -> None:
    from tests.interpreters import one_per_minor

    python = next(one.path for one in one_per_minor() if one.version[:2] == (3, 14) and not one.free_threaded)
    with serving(tmp_path, "asyncio", "--dump-on", f"stall>{LIMIT}", "--python", str(python)) as server:
        server.ask("call")
        sentence, dump = server.told()
        server.end()
    trigger = trigger_of(tmp_path / dump)
    assert trigger.task.startswith("Task-")
    assert f"in task {trigger.task!r} in " in sentence


def _served(folder: Path, rule: str, how: str, *paths: str) -> list[Trigger]:
    """Ask a recorded wsgiref server for these paths; returns what the dumps were written for."""
    command = [
        *GILTRACE,
        "record",
        "--ring",
        "4MiB",
        "--dump-on",
        rule,
        "--dump-apart",
        "0s",
        "--no-trace",
        "-o",
        "web",
    ]
    env = {**os.environ, "STALL_SECONDS": str(SECONDS)}
    pipe = subprocess.PIPE
    target = str(TARGETS / "serving.py")
    with subprocess.Popen(
        [*command, target, how], cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True
    ) as recorder:
        assert recorder.stdout is not None
        assert recorder.stderr is not None
        port = int(recorder.stdout.readline())
        for path in paths:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
                assert answer.read() == b"done\n"
        for _ in range(2 * paths.count("/slow")):
            line = ""
            while "giltrace: " not in line:
                line = recorder.stderr.readline()
        recorder.terminate()
        recorder.communicate(timeout=60)
    return [trigger_of(dump) for dump in sorted(folder.glob("web-*.giltrace"))]


def test_a_slow_request_is_told_by_the_middleware(tmp_path: Path) -> None:
    (found,) = _served(tmp_path, f"request>{LIMIT}", "wsgi", "/", "/slow", "/")
    assert found.sentence.startswith("The request GET /slow took ")
    assert (found.kind, found.cause, found.lines[0]) == ("http-request", "blocking-call", "work (serving.py:15)")
    assert found.length_ns >= SECONDS * 1e9


def test_a_slow_request_is_told_by_the_servers_frames(tmp_path: Path) -> None:
    (found,) = _served(tmp_path, f"request>{LIMIT}", "wsgi-bare", "/", "/slow", "/")
    assert found.sentence.startswith("A request took ")
    assert (found.kind, found.cause, found.lines[0]) == ("http-request", "blocking-call", "work (serving.py:15)")


@pytest.mark.parametrize("how", [pytest.param(how, marks=pytest.mark.needs(how)) for how in ("gunicorn", "uvicorn")])
def test_a_real_servers_request_is_told(tmp_path: Path, how: str) -> None:
    words = {
        "gunicorn": ["gunicorn", "-b", "unix:socket", "serving:told_wsgi"],
        "uvicorn": ["uvicorn", "--uds", "socket", "serving:told_asgi"],
    }[how]
    command = [*GILTRACE, "record", "--ring", "4MiB", "--dump-on", f"request>{LIMIT}", "--no-trace", "-o", "web", "--"]
    env = {**os.environ, "STALL_SECONDS": str(SECONDS), "PYTHONPATH": str(TARGETS)}
    run = [*command, sys.executable, "-m", *words]
    with subprocess.Popen(
        run, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as it:
        assert it.stderr is not None
        assert get(tmp_path / "socket", "/") == b"done\n"
        assert get(tmp_path / "socket", "/slow") == b"done\n"
        while not (line := it.stderr.readline()).startswith("giltrace: The request GET /slow took "):
            assert line
        it.stderr.readline()
        it.terminate()
        it.communicate(timeout=60)
    trigger = trigger_of(tmp_path / "web-1.giltrace")
    assert (trigger.cause, trigger.lines[0]) == ("blocking-call", "work (serving.py:15)")


PROGRAM = f"""
import concurrent.futures, ctypes, queue, sys, threading, time

lock, first, second = threading.Lock(), threading.Lock(), threading.Lock()
has, both = threading.Event(), threading.Barrier(2)

def keep():
    with lock:
        has.set()
        time.sleep({SECONDS})

def take():
    has.wait()
    with lock:
        pass

def one():
    with first:
        both.wait()
        with second:
            pass

def two():
    with second:
        both.wait()
        with first:
            pass

def idle():
    work, done = queue.Queue(), queue.SimpleQueue()
    def worker():
        for _ in range(2):
            done.put(work.get())
    thread = threading.Thread(target=worker, name="idle")
    thread.start()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for item in range(2):
            pool.submit(time.sleep, {SECONDS}).result()
            work.put(item)
            done.get()
    thread.join()

def run(*functions, daemon=False):
    threads = [threading.Thread(target=each, name=each.__name__, daemon=daemon) for each in functions]
    for thread in threads:
        thread.start()
    if not daemon:
        for thread in threads:
            thread.join()

print("ready", flush=True)
for line in sys.stdin:
    {{"lock": lambda: run(keep, take), "idle": idle, "deadlock": lambda: run(one, two, daemon=True),
      "hold": lambda: ctypes.PyDLL(None).usleep(int({SECONDS} * 1e6))}}[line.strip()]()
    print("done", flush=True)
"""


class Told:
    """A recorded program that does what it is told."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [*GILTRACE, "record", "--ring", "4MiB", "--no-trace", "-o", "app", *options, "-c", PROGRAM]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def hear(self, start: str) -> str:
        """Wait for the line of the recorder's that begins so."""
        assert self.process.stderr is not None
        while not (line := self.process.stderr.readline()).startswith(start):
            assert line
        return line.strip()

    def end(self) -> str:
        return self.process.communicate(timeout=60)[1]

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def test_a_lock_that_another_thread_has_is_told_and_idle_waits_are_not(tmp_path: Path) -> None:
    with Told(tmp_path, "--dump-on", f"lock>{LIMIT}", "--dump-apart", "0s") as told:
        told.tell("idle")
        told.tell("lock")
        assert told.hear("giltrace: Thread ").startswith("giltrace: Thread 'take' was kept from going on for ")
        told.tell("idle")
        assert "flight recorder ok (1 dumps)" in " ".join(told.end().split())
    found = trigger_of(tmp_path / "app-1.giltrace")
    assert (found.cause, found.lines[0]) == ("lock", "keep (<string>:10)")


def test_threads_that_wait_for_each_other_are_told(tmp_path: Path) -> None:
    with Told(tmp_path, "--dump-on", "deadlock") as told:
        told.tell("idle")
        told.tell("deadlock")
        sentence = told.hear("giltrace: Deadlock: ")
        assert "'one' at one (<string>:" in sentence
        assert "'two' at two (<string>:" in sentence
        told.end()
    assert trigger_of(tmp_path / "app-1.giltrace").cause == "deadlock"


def test_a_gil_that_is_held_for_most_of_the_time_is_told(tmp_path: Path) -> None:
    with Told(tmp_path, "--dump-on", "held>90%/200ms", "--max-dumps", "1") as told:
        told.tell("hold")
        assert "by thread 'MainThread'" in told.hear("giltrace: The GIL was held for ")
        told.end()
    assert trigger_of(tmp_path / "app-1.giltrace").cause == "held"


def test_dumps_are_passed_on_and_what_fails_then_is_told(tmp_path: Path) -> None:
    command = f"{sys.executable} -c \"import sys; print('got', sys.argv[1], file=sys.stderr); sys.exit(3)\" {{}}"
    with Told(tmp_path, "--dump-on", "hold>100ms", "--on-dump", command) as told:
        told.tell("hold")
        told.hear("got app-1.giltrace")
        assert "failed with status 3 on app-1.giltrace" in told.hear("giltrace: --on-dump: ")
        assert "flight recorder --on-dump: " in " ".join(told.end().split())
    with Told(tmp_path, "--dump-on", "hold>100ms", "-f", "--on-dump", "no-such-command {}") as told:
        told.tell("hold")
        assert told.hear("giltrace: --on-dump: ").endswith("cannot run no-such-command: No such file or directory")
        told.end()


def test_a_rule_is_not_dumped_for_again_at_once(tmp_path: Path) -> None:
    with Told(tmp_path, "--dump-on", "hold>100ms", "--dump-apart", "100s") as told:
        told.tell("hold")
        told.hear("giltrace: hold of ")
        told.tell("hold")
        assert told.hear("giltrace: hold of ").endswith("s old (--dump-apart)")
        told.tell("hold")
        ended = told.end()
    assert "(1 dumps, 2 further triggers" in " ".join(ended.split())
    assert "--dump-apart" not in ended
