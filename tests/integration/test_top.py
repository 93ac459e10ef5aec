"""Looking at recordings in progress: the same events as afterwards, the same figures, and nothing left behind."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from giltrace.launch.live import attached, followed
from giltrace.recording.events import PLACE, Array, ProcessEvents
from giltrace.recording.layout import Kind, RecordFlag
from giltrace.recording.live import HOLD_BACK_NS, LiveReader, Update
from giltrace.recording.locate import being_written
from giltrace.timeline.load import load
from giltrace.timeline.model import Flag, Process
from giltrace.views.top.kernel import ask_kernel
from giltrace.views.top.model import Deadlock, ThreadState
from giltrace.views.top.screen import Feed
from tests.attaching import Running
from tests.interpreters import Interpreter
from tests.stuck import Stuck, stood
from tests.tracing import TARGETS, read, recorded, traced_environment

GILTRACE = (sys.executable, "-m", "giltrace")
CONTEND = TARGETS / "contend.py"
#: Kinds whose `arg` is the number of a place.
NUMBERED = (Kind.SLEPT, Kind.POSTED)


def collect(updates: list[Update]) -> Array:
    """All events of one process, releases that turned out to be forced marked so."""
    parts: list[Array] = []
    for update in updates:
        for piece in update.pieces:
            if piece.late_forced:
                _mark_last_release(parts, piece.thread)
        parts.append(update.events.copy())
    return np.concatenate(parts)


def places_of(events: Array, places: Array) -> Array:
    """Where threads sleep, or wake others up: what such events number, by a table of each update's own."""
    found = np.zeros(len(events), PLACE)
    numbered = np.isin(events["kind"], NUMBERED)
    found[numbered] = places[events["arg"][numbered]]
    return found


def _mark_last_release(parts: list[Array], thread: int) -> None:
    for part in reversed(parts):
        releases = np.flatnonzero((part["thread"] == thread) & (part["kind"] == Kind.RELEASE))
        if len(releases):
            part["flags"][releases[-1]] |= RecordFlag.FORCED
            return
    raise AssertionError("a forced release that was never told")


def top_frames(events: Array, process: ProcessEvents) -> list[tuple[str, str, int] | None]:
    table = process.stacks
    assert table is not None
    frames: list[tuple[str, str, int] | None] = []
    for number in events["stack"].tolist():
        frame = table.frames[table.offsets[number] : table.offsets[number + 1]][:1] if number >= 0 else ()
        frames += [(table.strings[f["function"]], table.strings[f["file"]], int(f["line"])) for f in frame] or [None]
    return frames


def test_gives_the_events_that_are_read_afterwards(interpreter: Interpreter, tmp_path: Path) -> None:
    environment = {**traced_environment(tmp_path), "GILTRACE_STACKS": "128"}
    pipe = subprocess.PIPE
    reader = LiveReader(tmp_path)
    updates: list[Update] = []
    with subprocess.Popen([interpreter.path, CONTEND], env=environment, stdin=pipe, stdout=pipe, text=True) as target:
        assert target.stdout is not None
        assert target.stdout.readline() == "ready\n"
        while sum(len(update.events) for update in updates) < 200:
            updates += reader.poll(time.monotonic_ns() - HOLD_BACK_NS)
        assert not any(update.ended for update in updates)
        target.communicate("\n", timeout=60)
    updates += reader.poll(time.monotonic_ns())
    assert updates[-1].ended
    (process,) = read(tmp_path)
    live, later = collect(updates), process.events
    live_places = np.concatenate([places_of(update.events, update.places) for update in updates])
    live_order, later_order = (np.argsort(events["thread"], kind="stable") for events in (live, later))
    live, later = live[live_order], later[later_order]
    for field in ("thread", "gil", "kind", "flags"):
        assert live[field].tolist() == later[field].tolist()
    other = ~np.isin(later["kind"], NUMBERED)
    assert live["arg"][other].tolist() == later["arg"][other].tolist()
    assert live_places[live_order].tolist() == places_of(process.events, process.places)[later_order].tolist()
    # Ticks become times by readings of the clocks, of which more are known afterwards.
    assert np.abs(live["time"] - later["time"]).max() < 100_000
    stacks = updates[-1].file.stacks
    assert stacks is not None
    stacks.update()
    shown = [stacks.tops[top][0] if top >= 0 else None for top in stacks.top(live["stack"]).tolist()]
    assert shown == top_frames(later, process)
    assert any(shown)
    names = {info.name for update in updates for info in update.threads.values()}
    assert names == {thread.name for thread in process.threads}
    last = max(at for at, frame in enumerate(shown) if frame is not None)
    assert stacks.stack(int(live["stack"][last]))[0] == shown[last]


def test_looks_at_a_process_that_is_being_recorded(tmp_path: Path) -> None:
    with recorded(CONTEND, tmp_path / "x.giltrace") as pid:
        command = [*GILTRACE, "top", "--json", "-d", "500ms", str(pid)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(ran.stdout)
    assert told["processes"][0]["pid"] == pid
    states = {row["name"]: row["state"] for row in told["threads"]}
    assert {"count-0", "count-1"} <= states.keys()
    assert states["MainThread"] == "blocked"  # it reads its standard input: the kernel's word, as on the screen
    assert told["lost"] == told["missed"] == 0
    assert load(tmp_path / "x.giltrace").violations == ()


def whole_holds_between(begin: int, end: int, process: Process) -> list[tuple[int, bool]]:
    """The tid of each hold that began and ended in a span, and whether by force; not those at its very edges."""
    near = 100_000  # the clocks of two recordings agree only so far
    holds = process.holds[(process.holds["flags"] & (Flag.PARTIAL_START | Flag.PARTIAL_END)) == 0]
    holds = holds[(holds["start"] > begin + near) & (holds["end"] < end - near)]
    return [(process.threads[int(h["thread"])].tid, bool(h["flags"])) for h in holds]


def test_what_is_kept_is_the_same_as_in_the_whole_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with recorded(CONTEND, tmp_path / "x.giltrace") as pid:
        written = being_written(pid)
        assert written is not None
        with followed(pid, written) as source:
            feed = Feed(source)
            feed.update()
            kept = feed.start_keeping()
            begin = feed.window.until
            while feed.window.snapshot().acquires < 300 or feed.window.until < begin + 1_000_000_000:
                feed.update()
            end = feed.window.until
            assert feed.stop_keeping() == kept
            feed.close()
    (part,), (whole,) = load(kept).processes, load(written.path).processes
    assert load(kept).violations == ()
    told = [whole_holds_between(begin, end, process) for process in (part, whole)]
    assert told[0] == told[1]
    assert len(told[0]) > 10
    assert {"count-0", "count-1"} <= {thread.name for thread in part.threads}
    assert part.stacks is not None
    assert (part.stacks.hold_end >= 0).any()


def test_counts_a_forked_child_too(tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        "pid = os.fork()\n"
        "end = time.monotonic() + 1\n"
        "while time.monotonic() < end: time.sleep(0.001)\n"
        "if pid: os.waitpid(pid, 0)\n"
    )
    command = [*GILTRACE, "top", "--json", "-d", "60s", "-c", code]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=True)
    told = json.loads(ran.stdout)
    assert len(told["processes"]) == told["gils"] == 2
    assert len({row["pid"] for row in told["threads"]}) == 2


def test_one_snapshot_as_text(tmp_path: Path) -> None:
    code = "import time; print('printed'); time.sleep(0.2)"
    command = [*GILTRACE, "top", "--once", "-d", "60s", "-c", code]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=True)
    assert "MainThread" in ran.stdout
    assert "the command has ended with status 0" in ran.stdout
    assert ran.stderr.splitlines() == ["giltrace: the last lines that the command printed:", "printed"]
    assert list(tmp_path.iterdir()) == []


def test_output_goes_to_a_file_on_demand(tmp_path: Path) -> None:
    command = [*GILTRACE, "top", "--once", "-d", "60s", "--output", "out.txt", "-c", "print('printed')"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=True)
    assert (tmp_path / "out.txt").read_text() == "printed\n"
    assert ran.stderr == ""


ENDLESS = "import threading, sys; open('ready', 'w').close(); threading.Event().wait()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + ENDLESS


@pytest.mark.parametrize("code", [ENDLESS, STUBBORN], ids=["usual", "ignores SIGTERM"])
def test_the_command_ends_with_it(code: str, tmp_path: Path) -> None:
    command = [*GILTRACE, "top", "--once", "-d", "60s", "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as top:
        for _ in itertools.takewhile(lambda _: not (tmp_path / "ready").exists(), itertools.count()):
            assert top.poll() is None
            time.sleep(0.01)
        top.send_signal(signal.SIGTERM)
        assert top.wait(60) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["999999999"], "there is no process 999999999"),
        (["no-such-command-anywhere"], "there is no file, bundled workload or command"),
        (["-d", "soon", "-c", "pass"], "is no duration"),
        (["--interval", "1m", "-c", "pass"], "is no time between refreshes\n  give 100ms to 2s"),
        ([], "nothing to look at\n  give a PID, a script or a command: `giltrace top 4242`"),
    ],
)
def test_refusals(words: list[str], said: str, tmp_path: Path) -> None:
    once = [] if "--interval" in words else ["--once"]
    command = [*GILTRACE, "top", *once, *words]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert said in ran.stderr


ON_ITS_OWN = """
import threading, time
def count():
    while True: sum(range(1000))
def step():
    while True: time.sleep(0.001)
threading.Thread(target=count, name="counter", daemon=True).start()
threading.Thread(target=step, name="stepper", daemon=True).start()
print("ready", flush=True)
input()
"""


@pytest.mark.parametrize("options", [(), ("--observe",)], ids=["exact", "observed"])
def test_a_process_that_runs_already(options: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-c", ON_ITS_OWN]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as target:
        assert target.stdout is not None
        assert target.stdout.readline() == "ready\n"
        ran = subprocess.run(
            [*GILTRACE, "top", "--json", "-d", "2s", *options, str(target.pid)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        told = json.loads(ran.stdout)
        rows = {row["name"]: row for row in told["threads"]}
        assert {"counter", "stepper"} <= rows.keys()
        assert rows["counter"]["held"] > rows["stepper"]["held"]
        assert rows["stepper"]["waits"] > 10
        assert being_written(target.pid) is None
        assert not list(tmp_path.iterdir())
        target.communicate("\n", timeout=30)
        assert target.returncode == 0


@pytest.mark.on_some
@pytest.mark.parametrize("kind", ["spin", "seized"])
def test_a_thread_that_never_lets_go_is_told(interpreter: Interpreter, kind: str) -> None:
    """It computes, or is in a C function; one that waits for it may be there, and says so only once."""
    with Running(interpreter.path, kind) as target, attached(target.pid) as source:
        feed = Feed(source)
        told = feed.window.snapshot(ask=ask_kernel)
        # Who waits looks at the holder, so where it stands is known before it lets go.
        while (
            feed.window.until < feed.window.since + HOLD_BACK_NS
            or not told.threads
            or (kind == "seized" and not any(culprit.line.function for culprit in told.culprits))
        ):
            assert source.ended() is None
            time.sleep(0.02)
            feed.update()
            told = feed.window.snapshot(ask=ask_kernel)
        feed.close()
    rows = {row.name: row for row in told.threads}
    assert (rows["MainThread"].tid, rows["MainThread"].state) == (target.pid, ThreadState.HOLDING)
    assert (told.held, rows["MainThread"].held) == (1.0, 1.0)
    assert rows.keys() == {"MainThread", *(["worker-0"] if kind == "seized" else [])}
    assert [process.note for process in told.processes] == [""]
    if kind == "seized":
        (seized,) = (
            at for at, text in enumerate((TARGETS / "attached.py").read_text().splitlines(), 1) if "sleep(600)" in text
        )
        assert told.contended > 0
        assert (rows["MainThread"].line.function, rows["MainThread"].line.number) == ("<module>", seized)
        assert rows["MainThread"].line in {culprit.line for culprit in told.culprits}
        # It has not had the GIL since anybody looked, and says itself where it wants it.
        assert rows["worker-0"].line.file.endswith("attached.py")


@pytest.mark.on_some
@pytest.mark.parametrize("kind", ["spin", "seized"])
def test_a_thread_that_never_lets_go_is_in_what_is_kept(
    interpreter: Interpreter, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Running(interpreter.path, kind) as target, attached(target.pid) as source:
        feed = Feed(source)
        while ThreadState.HOLDING not in (row.state for row in feed.window.snapshot().threads):
            feed.update()
        kept, begin = feed.start_keeping(), feed.window.until
        while feed.window.until < begin + 300_000_000:
            feed.update()
        feed.stop_keeping()
        feed.close()
    (process,) = load(kept).processes
    (hold,) = process.holds
    thread = process.threads[int(hold["thread"])]
    assert (thread.tid, thread.name) == (target.pid, "MainThread")
    assert (hold["start"], hold["end"]) == (process.start, process.end)
    # The two clocks agree to some microseconds.
    assert hold["end"] - hold["start"] >= 299_000_000


def test_a_process_that_is_not_python() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        ran = subprocess.run([*GILTRACE, "top", "--once", str(other.pid)], capture_output=True, text=True, check=False)
        other.kill()
    assert ran.returncode == 2
    assert "is not Python" in ran.stderr


def test_a_deadlock_is_told_as_soon_as_it_is_there_and_until_it_is_gone(any_interpreter: Interpreter) -> None:
    """Between two threads that are attached to, that wait for each other's Lock, and that another one then helps."""
    with Stuck(any_interpreter.path, "Lock", "later") as target, attached(target.pid) as source:
        feed = Feed(source)

        def deadlocks() -> tuple[Deadlock, ...]:
            feed.update()
            return feed.window.snapshot(sleepers=source.sleepers).deadlocks

        assert deadlocks() == ()
        target.say("begin")
        while not (found := deadlocks()):
            time.sleep(0.05)
        at = {one.name: one.at for one in found[0].threads}
        assert set(at.values()) == set(stood())
        # Without a GIL a thread's first record may come before its name.
        assert at.keys() == {"payer", "booker"} or any_interpreter.free_threaded
        parked = any_interpreter.free_threaded or any_interpreter.version >= (3, 13, 1)
        assert found[0].certain or parked
        assert found[0].for_ns is not None
        target.say("enough")
        while deadlocks():
            time.sleep(0.05)
        feed.close()
