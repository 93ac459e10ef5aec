"""Damaged recordings by rule, and every command that reads one: none may fail in another way than with a clear line.

``python -m tests.fuzzing 500`` makes so many, each from a seed, and prints what went wrong, the largest memory and the
slowest command. ``python -m tests.fuzzing 1 --seed 77`` repeats one, and ``--keep FOLDER`` leaves it there.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.damage import damage
from traces.regenerate import unpack

#: Small ones of several kinds: many processes, many GILs, an event loop, stacks, spans.
BASES = ("single", "multiprocess", "convoy", "subinterpreters", "asyncio_starved", "fork_pool", "hog")

SECONDS = 10
#: Real time is no measure where other programs run; but what waits for ever uses no processor.
PATIENCE = 60
MEMORY = 1 << 30

#: What a shell would do with a recording called "it".
COMMANDS: dict[str, tuple[str, ...]] = {
    "report": ("report", "it"),
    "json": ("report", "it", "--json"),
    "part": ("report", "it", "--window", "1ms..20ms", "--role", "*", "--json"),
    "html": ("report", "it", "--html", "-"),
    "perfetto": ("export", "it", "--to", "perfetto", "-o", "-"),
    "chrome": ("export", "it", "--to", "chrome", "-o", "-"),
    "firefox": ("export", "it", "--to", "firefox", "-o", "-"),
    "speedscope": ("export", "it", "--to", "speedscope", "-o", "-"),
    "waiting": ("export", "it", "--to", "collapsed", "-o", "-"),
    "culprits": ("export", "it", "--to", "collapsed", "--by", "culprit", "-o", "-"),
    "holding": ("export", "it", "--to", "collapsed", "--what", "holding", "-o", "-"),
    "csv": ("export", "it", "--to", "csv", "-o", "tables", "--force"),
    "parquet": ("export", "it", "--to", "parquet", "-o", "parquet", "--force"),
    "cut": ("export", "it", "--to", "perfetto", "--window", "1ms..20ms", "-o", "-"),
    "top-waits": ("export", "it", "--to", "perfetto", "--top-waits", "5", "-o", "-"),
    "compare": ("compare", "it", "whole", "--all"),
    "compare-json": ("compare", "whole", "it", "--json"),
    "check": ("check", "it", "--max-wait", "1ms", "--max-wait-share", "20%", "--max-hold", "1s", "--max-lost", "0"),
    "check-json": ("check", "it", "--max-overstay", "1ms", "--verdict", "convoy", "--json"),
    "query": ("query", "it", "select count(*) from gil_waits; select * from gil_blame limit 5"),
    "api": ("api", "it"),
    "top": ("top", "it"),
    "view": ("view", "it"),
}
#: Those of them whose output has to be JSON.
JSON = ("json", "part", "chrome", "firefox", "speedscope", "compare-json", "check-json")


@dataclass(frozen=True)
class Outcome:
    """What became of one command on one recording; `wrong` is empty if it is as it should be."""

    seed: int
    command: str
    status: int
    seconds: float
    peak: int
    wrong: str


def api(folder: Path) -> None:
    """Everything that the Python interface gives of a recording."""
    import giltrace

    recording = giltrace.load(folder)
    for table in ("processes", "threads", "holds", "waits", "switch_requests", "states", "runs"):
        rows = getattr(recording, table)
        getattr(recording.to_pandas(), table)
        for column in rows.dtype.names:
            if rows[column].dtype.kind in "iu" and len(rows):
                rows[column].sum()
    recording.report()
    recording.summary()


def follow(folder: Path, show: Callable[[str], object] = len) -> None:
    """What the live view does with a recording that is being written, and shows of it."""
    from giltrace.recording.live import LiveReader
    from giltrace.views.top.graph import Ink
    from giltrace.views.top.model import MINUTE_NS
    from giltrace.views.top.page import View, main_page
    from giltrace.views.top.plain import to_json
    from giltrace.views.top.window import Window

    for alive in ((lambda pid: True), (lambda pid: False)):
        reader = LiveReader(folder, alive=alive)
        try:
            begun = reader.begin_ns()
            window = Window(begun, {})
            for step in range(1, 4):
                until = begun + step * MINUTE_NS // 2
                window.feed(reader.poll(until), until)
            snapshot = window.snapshot()
            show("\n".join(line.plain for line in main_page(snapshot, View("it"), Ink(), 80, 24)))
            show(to_json(snapshot))
        finally:
            reader.close()


def view(folder: Path) -> None:
    """What `giltrace view` does before it serves a page."""
    from giltrace.cli.loading import require_something
    from giltrace.views.moment import WORST, Waits
    from giltrace.views.perfetto_ui import page_address
    from giltrace.views.subject import Subject

    subject = Subject.find(folder)
    timeline = subject.need_timeline("a view")
    require_something(timeline, folder)
    with subject.as_trace() as trace:
        assert trace.stat().st_size
        page_address("http://127.0.0.1/", "trace", Waits.of_timeline(timeline).at(WORST))


def perform(words: Sequence[str]) -> int:
    """Run one command in this process and return its exit status."""
    from giltrace.cli.app import main
    from giltrace.errors import GiltraceError

    special: dict[str, Callable[[Path], None]] = {"api": api, "top": follow, "view": view}
    if words[0] in special:
        try:
            special[words[0]](Path("it.giltrace"))
        except GiltraceError as error:
            print(f"giltrace: error: {error.message}", file=sys.stderr)
            return 2
        return 0
    try:
        main(words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1


def _child(words: Sequence[str], output: Path) -> None:
    """Perform a command in a process of its own, with its output in a file; never returns."""
    status = 70
    try:
        out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        errors = os.open(output.with_suffix(".err"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(errors, 2)
        # Those that there were may be a test's, which keeps what is printed.
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        # WebAssembly reserves addresses by the gigabyte; for it, what it really takes is measured.
        if words[0] != "query":
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        status = perform(words)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="backslashreplace"))
    finally:
        os._exit(status)


def _resident() -> int:
    """Bytes that this process has in memory: a child begins with them, and they count for its peak."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def attempt(seed: int, command: str, output: Path) -> Outcome:
    """Perform a command on the recording "it" of the current directory, and judge it."""
    begin, inherited = time.monotonic(), _resident()
    pid = os.fork()
    if pid == 0:
        _child(COMMANDS[command], output)
    ended = os.pidfd_open(pid)
    try:
        waiting = select.poll()
        waiting.register(ended, select.POLLIN)
        late = not waiting.poll(PATIENCE * 1000)
        if late:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(ended)
    _, code, usage = os.wait4(pid, 0)
    status = os.waitstatus_to_exitcode(code)
    told = output.with_suffix(".err").read_bytes().decode(errors="replace")
    peak = usage.ru_maxrss * 1024 - inherited
    wrong = ""
    if late:
        wrong = f"hung for {PATIENCE} s"
    elif status == -signal.SIGXCPU or usage.ru_utime + usage.ru_stime > SECONDS:
        wrong = f"computed for more than {SECONDS} s"
    elif status not in (0, 1, 2):
        wrong = f"status {status}"
    elif "Traceback" in told or "Warning" in told:
        wrong = "traceback or warning"
    elif peak > MEMORY:
        wrong = f"took {peak >> 20} MiB"
    elif status == 2 and not told.startswith("giltrace: error: "):
        wrong = "an error without its line"
    elif status == 0 and command in JSON:
        wrong = _not_json(output)
    detail = f"\n{told.strip()[-1500:]}" if wrong else ""
    return Outcome(seed, command, status, time.monotonic() - begin, peak, wrong + detail)


def _not_json(output: Path) -> str:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(output.read_bytes().decode(), parse_constant=refuse)
    except ValueError as error:
        return f"no JSON: {error}"
    return ""


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make `folder` the current directory within the block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def damaged(seed: int, folder: Path) -> str:
    """Make the damaged recording of this seed as it.giltrace in `folder`, and return what was done to it."""
    choice = random.Random(seed)
    made = unpack(choice.choice(BASES), folder)
    made.rename(folder / "it.giltrace")
    return damage(folder / "it.giltrace", choice)


def fuzz(seeds: Sequence[int], commands: Sequence[str] = tuple(COMMANDS)) -> Iterator[tuple[str, list[Outcome]]]:
    """Yield what was done to each recording, and the outcomes of all commands on it."""
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="giltrace-fuzz-") as place, working_in(Path(place)):
            folder = Path(place)
            unpack("single", folder).rename(folder / "whole.giltrace")
            done = damaged(seed, folder)
            yield done, [attempt(seed, command, folder / "output") for command in commands]


def warm_up() -> None:
    """Import what the commands import, so that their processes need not."""
    with tempfile.TemporaryDirectory() as place, working_in(Path(place)):
        for name in ("it", "whole"):
            unpack("single", Path(place)).rename(Path(place) / f"{name}.giltrace")
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())), contextlib.redirect_stderr(io.StringIO()):
            for name, words in COMMANDS.items():
                if name != "query":
                    perform(words)


def main() -> int:
    """Run as many as asked for; status 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--command", action="append", choices=tuple(COMMANDS))
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    if given.keep is not None:
        shutil.rmtree(given.keep, ignore_errors=True)
        given.keep.mkdir(parents=True)
        print(damaged(given.seed, given.keep))
        return 0
    warm_up()
    failed, outcomes = 0, list[Outcome]()
    seeds = range(given.seed, given.seed + given.count)
    for number, (done, found) in enumerate(fuzz(seeds, given.command or tuple(COMMANDS)), 1):
        wrong = [one for one in found if one.wrong]
        outcomes += found
        failed += bool(wrong)
        if number % 50 == 0:
            print(f"{number} of {given.count}: {failed} failed", file=sys.stderr)
        for one in wrong:
            print(f"seed {one.seed} ({done}), {one.command}: {one.wrong}\n", flush=True)
    slowest, largest = max(outcomes, key=lambda one: one.seconds), max(outcomes, key=lambda one: one.peak)
    refused = sum(one.status == 2 for one in outcomes)
    print(f"{given.count} recordings, {len(outcomes)} commands: {failed} recordings failed, {refused} commands refused")
    print(f"slowest {slowest.seconds:.1f} s (seed {slowest.seed}, {slowest.command})")
    print(f"largest {largest.peak >> 20} MiB (seed {largest.seed}, {largest.command})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
