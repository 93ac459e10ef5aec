"""Drive the server of `targets/stalling_server.py` under a flight recorder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from giltrace.recording.meta import Meta
from tests.tracing import TARGETS

GILTRACE = (sys.executable, "-m", "giltrace")
#: A stall is planted for so long, and told from this on: the recorder has the time between, on a busy machine too. What
#: a busy machine plants itself is shorter.
SECONDS, LIMIT = 1.2, "300ms"
#: What is planted: the function of the line that is to be blamed, and the cause.
PLANTS = {
    "call": ("block", "blocking-call"),
    "computing": ("compute", "computing"),
    "collection": ("collect", "collection"),
    "import": ("bring_in", "import"),
    "lock": ("keep_lock", "lock"),
    "hog": ("hog", "gil-wait"),
    "turns": ("spin", "small-holds"),
}


def _length(dump: Path) -> int:
    trigger = Meta.read(dump).trigger
    assert trigger is not None
    return trigger.length_ns


class Server:
    """A server under way: its recorder, whose announcements are read, and a connection to it."""

    def __init__(self, recorder: subprocess.Popen[str], folder: Path, port: int) -> None:
        self.recorder, self.folder, self.dumps = recorder, folder, 0
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._lines = self._connection.makefile("rw")

    def ask(self, word: str) -> None:
        """Have it do that, and wait until it is done."""
        self._lines.write(word + "\n")
        self._lines.flush()
        assert self._lines.readline() == "done\n"

    def told(self) -> tuple[str, Path]:
        """Wait for the next dump that is as long as what is planted: the sentence, and the path."""
        sentence, path = self._told()
        while _length(self.folder / path) < SECONDS * 1e9:
            sentence, path = self._told()
        return sentence, path

    def _told(self) -> tuple[str, Path]:
        self.dumps += 1
        assert self.recorder.stderr is not None
        sentence = self.recorder.stderr.readline()
        line = self.recorder.stderr.readline()
        assert line.rstrip().endswith(".giltrace"), sentence + line
        return sentence.removeprefix("giltrace: ").strip(), Path(line.rsplit(": ", 1)[1].strip())

    def end(self) -> str:
        """End it; returns what else the recorder said."""
        self._lines.close()
        self._connection.close()
        self.recorder.send_signal(signal.SIGINT)
        return self.recorder.communicate(timeout=60)[1]


@contextmanager
def serving(folder: Path, loop: str, *options: str) -> Iterator[Server]:
    """Run it on a `loop` in `folder`, recorded with these options."""
    always = ("--ring", "16MiB", "--dump-apart", "0s", "--max-dumps", "100", "--no-trace", "-o", "server")
    command = [*GILTRACE, "record", *always, *options, str(TARGETS / "stalling_server.py"), loop]
    env = {**os.environ, "STALL_SECONDS": str(SECONDS)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True) as recorder:
        try:
            assert recorder.stdout is not None
            yield Server(recorder, folder, int(recorder.stdout.readline()))
        finally:
            if recorder.poll() is None:
                recorder.kill()
