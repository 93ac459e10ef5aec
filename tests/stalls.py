"""Drive the servers of `targets/stalling_server.py` and `targets/stalling_web.py` under a flight recorder."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from giltrace.recording.meta import Meta
from giltrace.recording.trigger import Trigger
from tests.attaching import is_at_work
from tests.tracing import TARGETS

GILTRACE = (sys.executable, "-m", "giltrace")
#: A stall is planted for so long, and told from this on: the recorder has the time between, on a busy machine too. What
#: a busy machine plants itself is shorter.
SECONDS, LIMIT = 1.2, "300ms"


class Plant(NamedTuple):
    """What is planted: the function that is to be blamed, what its line may read, the cause, and what is said of it.

    What `computes` may rather want for a core than for anything else, on a busy machine.
    """

    function: str
    lines: tuple[str, ...]
    cause: str
    said: str
    computes: bool = False


_SLEEP, _LOOP = "time.sleep(LONG)", "while time.monotonic() < end:"
PLANTS = {
    "call": Plant("block", (_SLEEP,), "blocking-call", "it was blocked in a call for "),
    "computing": Plant("compute", (_LOOP, "sum(range(1000))"), "computing", "its own code computed for ", True),
    "collection": Plant("collect", (_LOOP, "gc.collect()"), "collection", "it collected garbage for ", True),
    "import": Plant("bring_in", ("__import__(name)",), "import", "it imported for ", True),
    "lock": Plant("keep_lock", (_SLEEP,), "lock", ", which thread 'helper' had at "),
    "hog": Plant("hog", ("keep_gil(int(LONG * 1e6))",), "gil-wait", " for the GIL, which thread 'helper' held for "),
    "turns": Plant("spin", (_LOOP, "pass"), "small-holds", " waits, mostly for thread 'helper' at ", True),
}
_SOURCE = (TARGETS / "plants.py").read_text().splitlines()


def is_told(plant: str, trigger: Trigger) -> bool:
    """Whether a dump's sentence says what was planted: the cause, the thread, and the line."""
    wanted = PLANTS[plant]
    line = "".join(trigger.lines[:1])
    function, _, place = line.removesuffix(")").partition(" (plants.py:")
    because = trigger.cause == wanted.cause and wanted.said in trigger.sentence
    return (
        (because or (wanted.computes and trigger.cause == "no-core"))
        and function == wanted.function
        and place.isdigit()
        and _SOURCE[int(place) - 1].strip() in wanted.lines
        and line in trigger.sentence
    )


def trigger_of(dump: Path) -> Trigger:
    """What a dump was written for."""
    trigger = Meta.read(dump).trigger
    assert trigger is not None
    return trigger


class Server:
    """A server under way: its recorder, whose announcements are read, and how it is asked for what a word says, until
    that is done.
    """

    def __init__(self, recorder: subprocess.Popen[str], folder: Path, ask: Callable[[str], None]) -> None:
        self.recorder, self.folder, self._ask = recorder, folder, ask
        #: What was told of beside what was planted.
        self.others: list[Trigger] = []
        self.dumps = self.asked = 0

    def ask(self, word: str) -> None:
        """Have it do that, and wait until it is done."""
        self.asked = time.monotonic_ns()
        self._ask(word)

    def told(self) -> tuple[str, Path]:
        """Wait for a dump that is of what was asked for last, and as long as what is planted: sentence and path."""
        while True:
            sentence, path = self._told()
            trigger = trigger_of(self.folder / path)
            if trigger.length_ns >= SECONDS * 1e9 and trigger.time_ns > self.asked:
                return sentence, path
            self.others.append(trigger)

    def _told(self) -> tuple[str, Path]:
        assert self.recorder.stderr is not None
        self.dumps += 1
        sentence = ""
        while not (line := self.recorder.stderr.readline().strip()).endswith(".giltrace"):
            assert line, "the recorder has ended"
            # A server has a log.
            sentence = line.removeprefix("giltrace: ") if line.startswith("giltrace: ") else sentence
        return sentence, Path(line.rsplit(": ", 1)[1])

    def end(self) -> str:
        """End it; returns what else the recorder said."""
        self.recorder.send_signal(signal.SIGINT)
        return self.recorder.communicate(timeout=60)[1]


@contextmanager
def _running(folder: Path, command: Sequence[str | Path]) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "STALL_SECONDS": str(SECONDS), "PYTHONPATH": str(TARGETS)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True) as program:
        try:
            yield program
        finally:
            if program.poll() is None:
                program.kill()


_ALWAYS = ("--ring", "16MiB", "--dump-apart", "0s", "--max-dumps", "100", "--no-trace", "-o", "server")


@contextmanager
def _recorded(folder: Path, options: Sequence[str], program: Sequence[str | Path]) -> Iterator[subprocess.Popen[str]]:
    with _running(folder, [*GILTRACE, "record", *_ALWAYS, *options, *program]) as recorder:
        yield recorder


@contextmanager
def _attached(folder: Path, options: Sequence[str], pid: int) -> Iterator[subprocess.Popen[str]]:
    with _running(folder, [*GILTRACE, "attach", str(pid), *_ALWAYS, *options]) as recorder:
        while not is_at_work(folder / "server.giltrace"):
            assert recorder.poll() is None, recorder.communicate()[1]
            time.sleep(0.005)
        yield recorder


@contextmanager
def serving(folder: Path, loop: str, *options: str) -> Iterator[Server]:
    """Run a server on a `loop` in `folder`, recorded with these options."""
    with (
        _recorded(folder, options, (TARGETS / "stalling_server.py", loop)) as recorder,
        _asked(recorder) as ask,
    ):
        yield Server(recorder, folder, ask)


@contextmanager
def serving_already(folder: Path, loop: str, *options: str) -> Iterator[Server]:
    """Run one that is attached to when it serves: with these options, and recorded from then on."""
    with (
        _running(folder, [sys.executable, TARGETS / "stalling_server.py", loop]) as server,
        _asked(server) as ask,
    ):
        ask("nothing")
        with _attached(folder, options, server.pid) as recorder:
            yield Server(recorder, folder, ask)


@contextmanager
def _asked(program: subprocess.Popen[str]) -> Iterator[Callable[[str], None]]:
    """How a server is asked that says at which port it listens."""
    assert program.stdout is not None
    port = int(program.stdout.readline())
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rw") as lines:

        def ask(word: str) -> None:
            lines.write(word + "\n")
            lines.flush()
            assert lines.readline() == "done\n"

        yield ask


@contextmanager
def serving_web(folder: Path, program: Sequence[str | Path], *options: str) -> Iterator[Server]:
    """Run a web server in `folder`, recorded with these options, that listens at "socket" there."""
    with _recorded(folder, options, program) as recorder:

        def ask(word: str) -> None:
            assert get(folder / "socket", f"/{word}") == b"done\n"

        yield Server(recorder, folder, ask)


def get(place: Path, path: str) -> bytes:
    """What a server answers that listens there, once it does."""
    while True:
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(place))
        except OSError:
            connection.close()
            time.sleep(0.05)  # it is starting: the test's own limit ends this
            continue
        connection.request("GET", path)
        answer = connection.getresponse().read()
        connection.close()
        return answer


def planted(server: Server, folder: Path) -> Iterator[tuple[str, Trigger, Path]]:
    """Plant one stall after the other: which, what its dump, which is in `folder`, was written for, and the dump."""
    for plant in PLANTS:
        server.ask(plant)
        sentence, dump = server.told()
        trigger = trigger_of(folder / dump)
        assert sentence == trigger.sentence
        yield plant, trigger, folder / dump
