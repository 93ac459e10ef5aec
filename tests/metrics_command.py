"""`giltrace metrics` at work: started, asked, and ended."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

GILTRACE = (sys.executable, "-m", "giltrace")
_SERVED = re.compile(r"giltrace: metrics at (\S+)")

#: Two threads that compute, four that sleep in one lock, one that keeps the GIL in native code; it ends with its input.
BUSY = """
import sys, threading, time
lock = threading.Lock()

def compute():
    while True:
        total = 0
        for i in range(20000):
            total += i * i

def in_turn():
    while True:
        with lock:
            time.sleep(0.02)

def hog():
    while True:
        sum(range(40_000_000))
        time.sleep(0.2)

threads = [(compute, f"cpu-{i}") for i in range(2)] + [(in_turn, f"io-{i}") for i in range(4)] + [(hog, "hog")]
for target, name in threads:
    threading.Thread(target=target, name=name, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


class Counting:
    """`giltrace metrics` with `options`, running a Python program `code` that ends with its input: a context.

    `url` is where it serves, if it does.
    """

    def __init__(self, *options: str, code: str = BUSY, python: str | Path = sys.executable) -> None:
        command = [*GILTRACE, "metrics", *options, "--", str(python), "-c", code]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.url = ""

    def __enter__(self) -> Counting:
        assert self.process.stderr is not None
        served = _SERVED.match(line := self.process.stderr.readline())
        assert served, line + self.process.stderr.read()
        self.url = served[1]
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    @property
    def address(self) -> str:
        """Where it serves, as Prometheus wants it."""
        return self.url.removeprefix("http://").removesuffix("/metrics")

    def scrape(self, accept: str = "text/plain") -> str:
        """What it answers."""
        asked = urllib.request.Request(self.url, headers={"Accept": accept})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return str(answer.read().decode())

    def end(self) -> int:
        """Let the program end, and return how giltrace did."""
        self.process.communicate()
        return self.process.returncode


def metrics(*words: str, code: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `giltrace metrics` to its end, with a Python program if there is `code`."""
    command = [*GILTRACE, "metrics", *words, *(["--", sys.executable, "-c", code] if code else [])]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, **options)


def lines(ran: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The lines of JSON that it printed."""
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
