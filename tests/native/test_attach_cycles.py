"""Tracing that begins and ends in the middle of a process's life: nothing breaks, and nothing recorded is wrong."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from giltrace import native
from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, of_kind, overlaps, read

CYCLES = 60


@pytest.mark.parametrize("way", ["call", "control"])
def test_cycles_among_busy_threads(interpreter: Interpreter, tmp_path: Path, way: str) -> None:
    command: list[str | Path] = [interpreter.path, TARGETS / "cycles.py", native.LIBRARY, tmp_path, str(CYCLES), way]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, (ran.returncode, ran.stderr)
    early, late = json.loads(ran.stdout)
    assert late[1] == early[1], "descriptors"
    # A thread that sleeps through the end of a recording keeps its chunk mapped until it comes back.
    assert late[0] <= early[0] + 6, "mappings"
    seen = 0
    for number in range(CYCLES):
        folder = tmp_path / str(number)
        (process,) = read(folder)
        assert process.lost == 0
        events = process.events
        if not len(events):
            continue
        seen += 1
        start = process.start
        requests = of_kind(events, layout.Kind.REQUEST)
        under_way = (requests["flags"] & layout.RequestFlag.UNDER_WAY) != 0
        assert (requests["time"][~under_way] >= start).all()
        turns = events[(events["kind"] == layout.Kind.ACQUIRE) | (events["kind"] == layout.Kind.RELEASE)]
        # Whoever had the GIL at the start may have given it up unseen or seen; from the first acquire on all is seen.
        first = int(np.flatnonzero(turns["kind"] == layout.Kind.ACQUIRE)[0])
        assert first <= 1
        assert overlaps(turns[first:]) == 0
    assert seen > CYCLES // 2


def test_a_lease_that_ran_out_ends_the_tracer(interpreter: Interpreter, tmp_path: Path) -> None:
    program = f"""if 1:
        import ctypes, time
        library = ctypes.CDLL({str(native.LIBRARY)!r})
        result = ctypes.c_int(-1)
        none, long_ago = ctypes.c_uint64(0), ctypes.c_uint64(1)
        library.giltrace_attach({str(tmp_path).encode()!r}, 0, long_ago, none, ctypes.byref(result), None)
        assert result.value == 0
        for _ in range(1000):
            time.sleep(0)
        library.giltrace_attach({str(tmp_path).encode()!r}, 0, none, none, ctypes.byref(result), None)
        assert result.value == 0, "the first recording should have ended by itself"
        for _ in range(1000):
            time.sleep(0)
    """
    append_pair(tmp_path)
    ran = subprocess.run([interpreter.path, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    cut, whole = sorted(read(tmp_path), key=lambda process: len(process.events))
    assert len(of_kind(cut.events, layout.Kind.RELEASE)) <= 2
    assert len(of_kind(whole.events, layout.Kind.RELEASE)) >= 999


def test_a_ring_keeps_the_last_events_of_every_thread(interpreter: Interpreter, tmp_path: Path) -> None:
    program = f"""if 1:
        import ctypes, threading, time, json
        library = ctypes.CDLL({str(native.LIBRARY)!r})
        result = ctypes.c_int(-1)
        def use(times):
            for _ in range(times):
                time.sleep(0)
        def idle(gate):
            use(10)
            gate.wait()
            use(10)
        gate = threading.Event()
        sleeper = threading.Thread(target=idle, args=(gate,), name="sleeper")
        none, ring = ctypes.c_uint64(0), ctypes.c_uint64(1 << 20)
        library.giltrace_attach({str(tmp_path).encode()!r}, 128, none, ring, ctypes.byref(result), None)
        assert result.value == 0
        sleeper.start()
        for _ in range(3):
            others = [threading.Thread(target=use, args=(15000,), name="busy") for _ in range(3)]
            for thread in others: thread.start()
            for thread in others: thread.join()
        before = time.monotonic_ns()
        gate.set()
        sleeper.join()
        library.giltrace_stop()
        print(before)
    """
    append_pair(tmp_path)
    ran = subprocess.run([interpreter.path, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    (file,) = tmp_path.glob("gil-*.bin")
    assert file.stat().st_size <= 1 << 20
    (process,) = read(tmp_path)
    assert process.lost == 0
    assert process.overwritten > 50_000
    events = process.events
    assert len(events) > 50_000
    assert (events["time"] >= process.start).all()
    assert overlaps(events[int(np.flatnonzero(events["kind"] == layout.Kind.ACQUIRE)[0]) :]) == 0
    names = [thread.name for thread in process.threads]
    (sleeper,) = (index for index, name in enumerate(names) if name == "sleeper")
    late = events[(events["thread"] == sleeper) & (events["time"] >= int(ran.stdout))]
    assert len(of_kind(late, layout.Kind.ACQUIRE)) >= 10
    assert (of_kind(events, layout.Kind.RELEASE)["stack"] >= 0).mean() > 0.99


def test_a_ring_with_more_threads_than_room_counts_what_it_loses(interpreter: Interpreter, tmp_path: Path) -> None:
    program = f"""if 1:
        import ctypes, threading, time
        library = ctypes.CDLL({str(native.LIBRARY)!r})
        result = ctypes.c_int(-1)
        none, ring = ctypes.c_uint64(0), ctypes.c_uint64(1 << 20)
        library.giltrace_attach({str(tmp_path).encode()!r}, 0, none, ring, ctypes.byref(result), None)
        assert result.value == 0
        gate = threading.Event()
        idle = [threading.Thread(target=gate.wait, name="idle") for _ in range(300)]
        for thread in idle: thread.start()
        def use(times):
            for _ in range(times):
                time.sleep(0)
        busy = [threading.Thread(target=use, args=(2000,), name="busy") for _ in range(2)]
        for thread in busy: thread.start()
        for thread in busy: thread.join()
        gate.set()
        for thread in idle: thread.join()
        last = threading.Thread(target=use, args=(2000,), name="last")
        last.start()
        last.join()
        library.giltrace_stop()
    """
    append_pair(tmp_path)
    ran = subprocess.run([interpreter.path, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    (file,) = tmp_path.glob("gil-*.bin")
    assert file.stat().st_size <= 1 << 20
    (process,) = read(tmp_path)
    assert process.lost >= 2 * 2000 * 2, "the busy threads found no room"
    (last,) = (index for index, thread in enumerate(process.threads) if thread.name == "last")
    events = process.events[process.events["thread"] == last]
    assert len(of_kind(events, layout.Kind.ACQUIRE)) >= 2000 - 1024, "the idle ones have made room"


def test_a_wait_that_outlives_its_recording_ends_unseen(interpreter: Interpreter, tmp_path: Path) -> None:
    """All threads of the second recording were at work before it began: the first one's end must not reach it."""
    first, second = tmp_path / "first", tmp_path / "second"
    program = f"""if 1:
        import ctypes, os, sys, threading, time
        sys.setswitchinterval(0.6)
        library = ctypes.PyDLL({str(native.LIBRARY)!r})  # keeps the GIL, so that a wait spans both recordings
        none, result = ctypes.c_uint64(0), ctypes.c_int(-1)
        def attach(folder):
            os.mkdir(folder)
            library.giltrace_attach(folder.encode(), 64, none, none, ctypes.byref(result), None)
            assert result.value == 0
        running = True
        def step():
            while running:
                time.sleep(0.05)
        def burn(seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass
        waiter = threading.Thread(target=step)
        attach({str(first)!r})
        waiter.start()
        time.sleep(0.1)
        burn(0.2)
        library.giltrace_stop()
        attach({str(second)!r})
        burn(0.8)
        running = False
        waiter.join()
        library.giltrace_stop()
    """
    ran = subprocess.run([interpreter.path, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    (early,), (late,) = read(first), read(second)
    assert early.events["time"].max() < late.start
    requests = of_kind(late.events, layout.Kind.REQUEST)
    under_way = (requests["flags"] & layout.RequestFlag.UNDER_WAY) != 0
    assert (requests["time"][~under_way] >= late.start).all()
    turns = late.events[np.isin(late.events["kind"], (layout.Kind.ACQUIRE, layout.Kind.RELEASE))]
    assert overlaps(turns[int(np.flatnonzero(turns["kind"] == layout.Kind.ACQUIRE)[0]) :]) == 0
    assert len(turns) >= 4


@pytest.fixture(scope="session")
def outlive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("outlive") / "outlive.so"
    source = TARGETS / "outlive.c"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", out, source, "-lpthread"], check=True, timeout=60)
    return out


@pytest.mark.needs("cc")
def test_threads_that_end_in_a_later_recording_leave_both_whole(
    interpreter: Interpreter, tmp_path: Path, outlive: Path
) -> None:
    """Some of their chunks are full to the last word when the recording ends: the record of the end has no room."""
    first, second = tmp_path / "first", tmp_path / "second"
    program = f"""if 1:
        import ctypes, os, threading, time
        library, outlive = ctypes.CDLL({str(native.LIBRARY)!r}), ctypes.CDLL({str(outlive)!r})
        none, result = ctypes.c_uint64(0), ctypes.c_int(-1)
        api = [ctypes.cast(getattr(ctypes.pythonapi, "PyGILState_" + name), ctypes.c_void_p)
               for name in ("Ensure", "Release")]
        def attach(folder):
            os.mkdir(folder)
            library.giltrace_attach(folder.encode(), 0, none, none, ctypes.byref(result), None)
            assert result.value == 0
        attach({str(first)!r})
        outlive.launch(*api, ctypes.c_long(200), 49)
        library.giltrace_stop()
        attach({str(second)!r})
        fresh = [threading.Thread(target=time.sleep, args=(0.1,), name="fresh-%d" % i) for i in range(60)]
        for thread in fresh: thread.start()
        outlive.finish(49)
        for thread in fresh: thread.join()
        library.giltrace_stop()
    """
    ran = subprocess.run([interpreter.path, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    (early,), (late,) = read(first), read(second)
    assert early.lost == late.lost == 0
    acquires = of_kind(early.events, layout.Kind.ACQUIRE)
    counts = np.bincount(acquires["thread"], minlength=len(early.threads))
    assert set(range(200, 249)) <= set(counts.tolist())
    assert early.events["time"].max() < late.start
    assert overlaps(early.events[int(np.flatnonzero(early.events["kind"] == layout.Kind.ACQUIRE)[0]) :]) == 0
    assert {f"fresh-{i}" for i in range(60)} <= {thread.name for thread in late.threads}
    first_acquire = int(np.flatnonzero(late.events["kind"] == layout.Kind.ACQUIRE)[0])
    assert overlaps(late.events[first_acquire:]) == 0


def test_forks_in_mid_start_and_stop(interpreter: Interpreter, tmp_path: Path) -> None:
    command: list[str | Path] = [interpreter.path, "-W", "ignore", TARGETS / "fork_cycles.py"]
    command += [native.LIBRARY, tmp_path, "100"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, (ran.returncode, ran.stdout, ran.stderr)
    assert len(list(tmp_path.glob("child-*"))) > 50


@pytest.mark.parametrize("asks", ["hooks", "attach", "stop"])
def test_a_child_whose_fork_had_begun_before_the_recording(interpreter: Interpreter, tmp_path: Path, asks: str) -> None:
    """Such a fork calls no handler of the tracer: whoever comes by first looks after the child."""
    folders = tmp_path / "parent", tmp_path / "child"
    program = f"""if 1:
        import ctypes, os, time
        library, libc = ctypes.CDLL({str(native.LIBRARY)!r}), ctypes.CDLL(None)
        none, parent = ctypes.c_uint64(0), os.getpid()
        def attach(folder):
            result = ctypes.c_int(-1)
            library.giltrace_attach(folder, 0, none, none, ctypes.byref(result), None)
            return result.value
        @ctypes.CFUNCTYPE(None)
        def prepare():
            assert attach({str(folders[0]).encode()!r}) == 0
        libc.__register_atfork(prepare, None, None, None)
        child = os.fork()
        if child == 0:
            if {asks!r} == "stop":
                library.giltrace_stop()
                os._exit(attach({str(folders[1]).encode()!r}))
            if {asks!r} == "attach":
                os._exit(attach({str(folders[1]).encode()!r}) != 1)
        for _ in range(100):
            time.sleep(0)
        assert child == 0 or os.waitpid(child, 0)[1] == 0
        library.giltrace_stop()
    """
    for folder in folders:
        folder.mkdir()
        append_pair(folder)
    ran = subprocess.run([interpreter.path, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    parent, child = sorted(read(folders[0]), key=lambda process: process.start)
    assert child.ppid == parent.pid
    assert len(of_kind(parent.events, layout.Kind.ACQUIRE)) >= 100
    assert (len(of_kind(child.events, layout.Kind.ACQUIRE)) >= 100) == (asks == "hooks")
    assert len(list(folders[1].glob("gil-*"))) == (asks == "stop")
