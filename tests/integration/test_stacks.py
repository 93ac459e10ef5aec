"""The Python stacks that the tracer records are where the program itself says that it stands."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from giltrace.recording.events import ProcessEvents
from tests.interpreters import Interpreter, one_per_minor
from tests.tracing import TARGETS, of_kind, read, traced_environment


def frames(process: ProcessEvents, stack: int) -> list[tuple[str, str, int]]:
    """A stack as (function, file, line), innermost first, without the classes of functions."""
    table = process.stacks
    assert table is not None
    rows = table.frames[table.offsets[stack] : table.offsets[stack + 1]]
    return [
        (table.strings[row["function"]].rpartition(".")[2], table.strings[row["file"]], int(row["line"]))
        for row in rows
    ]


def run(interpreter: Interpreter, folder: Path, program: list[str], depth: int = 128) -> tuple[str, ProcessEvents]:
    append_pair(folder)
    env = traced_environment(folder) | {"GILTRACE_STACKS": str(depth)}
    ran = subprocess.run(
        [interpreter.path, *program], env=env, check=True, timeout=60, stdout=subprocess.PIPE, text=True
    )
    (process,) = read(folder)
    return ran.stdout, process


def test_every_release_has_the_line_that_the_program_logs(interpreter: Interpreter, tmp_path: Path) -> None:
    output, process = run(interpreter, tmp_path, [str(TARGETS / "stands.py")])
    releases = of_kind(process.events, layout.Kind.RELEASE)
    tids = np.array([thread.tid for thread in process.threads])
    checked = 0
    for row in output.splitlines():
        tid, before, after, line, function = row.split(maxsplit=4)
        own = releases[tids[releases["thread"]] == int(tid)]
        inside = own[(own["time"] > int(before)) & (own["time"] < int(after))]
        assert inside.size >= 1, row
        for release in inside:
            top = frames(process, int(release["stack"]))[0]
            assert (top[0], top[2]) == (function, int(line)), row
            checked += 1
    assert checked >= 50 * 8 + 200 + 20


def test_code_objects_that_were_freed_keep_their_names(interpreter: Interpreter, tmp_path: Path) -> None:
    _, process = run(interpreter, tmp_path, [str(TARGETS / "stands.py")])
    assert process.stacks is not None
    assert {f"<made-{number}>" for number in range(0, 700, 100)} <= set(process.stacks.strings)


def test_deep_stacks_are_cut_and_marked(interpreter: Interpreter, tmp_path: Path) -> None:
    _, process = run(interpreter, tmp_path, [str(TARGETS / "stands.py")])
    table = process.stacks
    assert table is not None
    depths = np.diff(table.offsets)
    assert depths.max() == 128
    assert table.truncated[depths == 128].all()
    # 3.12's entry frames count as frames when the tracer cuts, and are left out when the stack is read.
    assert not table.truncated[depths < 120].any()
    assert {name for name, _, _ in frames(process, int(np.flatnonzero(depths == 128)[0]))} == {"recursive"}


def test_waiters_sample_the_line_of_the_holder(interpreter: Interpreter, tmp_path: Path) -> None:
    code = """
import threading
def spin():
    n = 0
    while n < 3000000:
        n += 1
threads = [threading.Thread(target=spin) for _ in range(2)]
for t in threads: t.start()
for t in threads: t.join()
"""
    _, process = run(interpreter, tmp_path, ["-c", code])
    asked = of_kind(process.events, layout.Kind.TIMEOUT)
    asked = asked[asked["flags"] & layout.RecordFlag.SWITCH_REQUEST != 0]
    sampled = asked[asked["stack"] >= 0]
    assert sampled.size >= 0.9 * asked.size > 0, (sampled.size, asked.size)
    tops = [frames(process, int(stack))[0] for stack in sampled["stack"]]
    inside = [line for name, _, line in tops if name == "spin"]
    others = {(name, Path(file).name) for name, file, _ in tops if name != "spin"}
    # The main thread starts the others and joins them, and both take what threading takes.
    assert {file for _, file in others} <= {"<string>", "threading.py"}, others
    assert len(inside) >= 0.8 * len(tops), (len(inside), len(tops), others)
    assert set(inside) <= {3, 4, 5, 6}  # the function begins with its first line


@pytest.mark.parametrize(("depth", "most"), [(0, 0), (1, 1), (5, 5)])
def test_depth_is_as_asked(interpreter: Interpreter, tmp_path: Path, depth: int, most: int) -> None:
    _, process = run(interpreter, tmp_path, [str(TARGETS / "stands.py")], depth)
    if most == 0:
        assert process.stacks is None
        assert (process.events["stack"] == -1).all()
    else:
        assert process.stacks is not None
        assert np.diff(process.stacks.offsets).max() == most


COLLECTS = """
import gc, threading, time
gc.disable()
heap = [[number] for number in range(200_000)]
def works():
    for _ in range(6):
        gc.collect()  # COLLECT
        for _ in range(1_500_000): pass  # COMPUTE
thread = threading.Thread(target=works, name="works")
thread.start()
while thread.is_alive():
    time.sleep(0.0005)
"""


def test_who_waits_sees_whether_the_holder_collects_garbage(interpreter: Interpreter, tmp_path: Path) -> None:
    _, process = run(interpreter, tmp_path, ["-c", COLLECTS])
    samples = of_kind(process.events, layout.Kind.SAMPLE)
    lines = {name: COLLECTS[: COLLECTS.index(f"# {name}")].count("\n") + 1 for name in ("COLLECT", "COMPUTE")}
    seen: dict[str, list[int]] = {name: [] for name in lines}
    for sample in samples[samples["stack"] >= 0]:
        function, _, line = frames(process, int(sample["stack"]))[0]
        for name, at in lines.items():
            if (function, line) == ("works", at):
                seen[name].append(int(sample["arg"]))
    # A sample at the edge of the one may be told as of the other.
    assert len(seen["COLLECT"]) > 10
    assert len(seen["COMPUTE"]) > 10
    assert np.mean(seen["COLLECT"]) > 0.9
    assert np.mean(seen["COMPUTE"]) < 0.1


MANY = """
import os, threading
fd, read = os.open("/dev/zero", os.O_RDONLY), os.read
def stand(left, bits):
    if left == 0:
        read(fd, 1)
    elif bits & 1:
        stand(left - 1, bits >> 1)  # odd
    else:
        stand(left - 1, bits >> 1)  # even
def work():
    for _ in range(2):
        for bits in range(10000):
            stand(14, bits)
threads = [threading.Thread(target=work) for _ in range(2)]
for each in threads: each.start()
for each in threads: each.join()
"""


def test_ten_thousand_stacks_in_turn_are_told_apart(interpreter: Interpreter, tmp_path: Path) -> None:
    program = tmp_path / "many.py"
    program.write_text(MANY)
    _, process = run(interpreter, tmp_path, [str(program)])
    lines = MANY.splitlines()
    reads, odd, even = (
        next(at for at, line in enumerate(lines, 1) if mark in line) for mark in ("read(fd", "# odd", "# even")
    )
    assert (process.lost, process.lost_stacks) == (0, 0)
    releases = of_kind(process.events, layout.Kind.RELEASE)
    table = process.stacks
    assert table is not None
    at_read = np.array([frames(process, stack)[0] == ("stand", str(program), reads) for stack in range(len(table))])
    for thread in (1, 2):
        own = releases[releases["thread"] == thread]["stack"]
        # A thread that is asked for the GIL gives it up elsewhere too, or once more where it has just read.
        own = own[(own >= 0) & at_read[own]]
        own = own[np.append(True, own[1:] != own[:-1])]
        assert own.size == 20000
        assert (own[:10000] == own[10000:]).all()
        assert len(np.unique(own)) == 10000
        for bits in range(0, 10000, 61):
            found = [line for _, _, line in frames(process, int(own[bits]))[1:15]]
            assert found == [odd if bits >> level & 1 else even for level in reversed(range(14))]


#: Lets others have the GIL when their thread states are gone: it flushes its output at the very end.
DAEMONS = """
import io, sys, threading, time
def spin():
    while True: pass
class Slow(io.StringIO):
    def flush(self):
        for _ in range(30): sleep(0.0003)
sleep, begun = time.sleep, threading.Barrier(5)
def work():
    begun.wait()
    spin()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
begun.wait()
sys.stdout = Slow()
"""
#: Where threads that are to end do not look at what is freed, as older ones do themselves.
ENDS_WELL = [i for i in one_per_minor() if i.version[:2] in ((3, 11), (3, 12))]


@pytest.mark.unsanitized
@pytest.mark.parametrize("python", ENDS_WELL, ids=[i.id for i in ENDS_WELL])
@pytest.mark.parametrize("count", ["", "only"])
def test_no_line_is_looked_for_in_a_freed_thread_state(python: Interpreter, tmp_path: Path, count: str) -> None:
    # What is freed is overwritten.
    env = {**traced_environment(tmp_path), "MALLOC_PERTURB_": "165", "PYTHONMALLOC": "malloc"}
    env |= {"GILTRACE_COUNT": count} if count else {}
    ran = subprocess.run([python.path, "-c", DAEMONS], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
