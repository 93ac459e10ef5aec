"""CPython's own tests, bare and under the tracer: each test must come out alike.

Run as a program: ``python -m tests.cpython [--pythons 3.11,3.13] [--tests test_thread,test_signal] [--jobs 1]``. What
came out differently is run again, both ways: a test that is unsteady by itself is no fault of the tracer's. Ends with
status 1 if a test still comes out differently.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests import processes
from tests.interpreters import Interpreter, interpreters

#: What the tracer gets near: threads, processes, signals, memory. A version lacks some, and has others by another name.
TESTS = (
    "test_threading",
    "test_thread",
    "test_fork1",
    "test_subprocess",
    "test_signal",
    "test_faulthandler",
    "test_sqlite3",
    "test_gc",
    "test_os",
    "test_posix",
    "test_asyncio",
    "test_concurrent_futures",
    "test_multiprocessing_fork",
    "test_multiprocessing_forkserver",
    "test_multiprocessing_spawn",
    "test_multiprocessing_main_handling",
)
_SURE = "test_thread.*"
_FORMER = {"test_sqlite3": "test_sqlite"}

VERSIONS = ("3.8", "3.11", "3.12", "3.13")

#: Seconds for one run of one of TESTS, of which the slowest takes some minutes on an idle machine.
LIMIT = 900

_ROOT = Path(__file__).parent.parent
_STATUS = "(status)"


@dataclass(frozen=True)
class Case:
    """One of TESTS on one interpreter."""

    interpreter: Interpreter
    test: str

    def run(self, traced: bool) -> dict[str, str]:
        """Run it and return the outcome of each of its tests, and of the run as a whole."""
        with tempfile.TemporaryDirectory(prefix="giltrace-cpython-") as scratch:
            results = Path(scratch, "results.xml")
            words = [
                str(self.interpreter.path),
                "-m",
                "test",
                "--junit-xml",
                str(results),
                "--tempdir",
                scratch,
                self.test,
            ]
            if traced:
                words = [sys.executable, "-m", "giltrace", "record", "--light", "-o", f"{scratch}/traced", "--", *words]
            with Path(scratch, "output").open("w+b") as output:
                outcomes = {_STATUS: _status(words, output)}
            if results.exists():
                outcomes |= {
                    case.get("name", "?"): _outcome(case) for case in ElementTree.parse(results).iter("testcase")
                }
        return outcomes

    def differences(self) -> tuple[int, list[str]]:
        """Return how many tests ran, and a line for each that came out differently twice."""
        bare, traced = self.run(False), self.run(True)
        lasting = _different(bare, traced)
        if lasting:
            again = _different(self.run(False), self.run(True))
            lasting = {name: again[name] for name in lasting if name in again}
        return len(bare) - 1, [f"{name}: bare {one}, traced {other}" for name, (one, other) in sorted(lasting.items())]


def _status(words: list[str], output: IO[bytes]) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GILTRACE"))}
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        cwd=_ROOT,
        start_new_session=True,
    )
    try:
        return str(process.wait(LIMIT))
    except subprocess.TimeoutExpired:
        processes.end([process.pid, *processes.descendants(process.pid)], grace=0)
        process.wait()
        return f"none within {LIMIT} s"


def _outcome(case: ElementTree.Element) -> str:
    return next((kind for kind in ("error", "failure", "skipped") if case.find(kind) is not None), "passed")


def _different(bare: dict[str, str], traced: dict[str, str]) -> dict[str, tuple[str, str]]:
    pairs = {name: (bare.get(name, "absent"), traced.get(name, "absent")) for name in bare | traced}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def cases(versions: list[str], tests: list[str]) -> list[Case]:
    """Return what there is of `tests` on the interpreters of these `versions` that have CPython's tests."""
    found = []
    for version in versions:
        wanted = tuple(map(int, version.split(".")))
        # Debian's has the folder, and next to nothing in it.
        interpreter = next(
            (i for i in interpreters() if i.version[:2] == wanted and list(_folder(i).glob(_SURE))), None
        )
        if interpreter is None:
            raise SystemExit(f"no Python {version} with CPython's own tests here")
        folder = _folder(interpreter)
        for test in tests:
            name = next((n for n in (test, _FORMER.get(test, test)) if list(folder.glob(f"{n}*"))), None)
            if name is None:
                print(f"{interpreter.id:18} {test:36} is not installed there")
            else:
                found.append(Case(interpreter, name))
    return found


@functools.cache
def _folder(interpreter: Interpreter) -> Path:
    code = "import os; print(os.path.join(os.path.dirname(os.__file__), 'test'))"
    return Path(subprocess.check_output([interpreter.path, "-c", code], text=True).strip())


def main() -> int:
    """Run what the command line asks for, print a line for each, and return the status to end with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pythons", default=",".join(VERSIONS), metavar="VERSION,...")
    parser.add_argument("--tests", default=",".join(TESTS), metavar="NAME,...")
    parser.add_argument("--jobs", type=int, default=1, help="how many to run at once")
    options = parser.parse_args()
    processes.heed_interrupts()
    differed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        chosen = cases(options.pythons.split(","), options.tests.split(","))
        for case, (ran, different, seconds) in zip(chosen, pool.map(_timed, chosen), strict=True):
            print(f"{case.interpreter.id:18} {case.test:36} {ran:5} tests {seconds:6.0f} s  {len(different)} different")
            for line in different:
                print(f"    {line}")
            sys.stdout.flush()
            differed += bool(different) or not ran
    print(f"{len(chosen) - differed} passed, {differed} failed")
    return 1 if differed else 0


def _timed(case: Case) -> tuple[int, list[str], float]:
    began = time.monotonic()
    return *case.differences(), time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
