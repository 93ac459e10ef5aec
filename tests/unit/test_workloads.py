"""The bundled workloads: found, described, runnable by every interpreter, and their truths readable and checkable."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import numpy as np
import pytest

from giltrace.analysis.kinds import KINDS
from giltrace.launch.bundled import Header, bundled, header
from giltrace.timeline.model import (
    BLOCK,
    HOLD,
    LOCK,
    RUN,
    STATE,
    SWITCH_INTERVAL,
    SWITCH_REQUEST,
    WAIT,
    BlockEnd,
    Flag,
    LockKind,
    Process,
    State,
    Thread,
    Timeline,
)
from tests.interpreters import Interpreter, has
from tests.truth import Truth, broken, measure, truths

MS = 1_000_000

#: Makes each workload end at once.
SMALL = {
    "asyncio_starved": ["--ticks", "2"],
    "condition_herd": ["--items", "2", "--seconds", "0"],
    "convoy": ["--steps", "2"],
    "cpu_bound": ["--count", "1000"],
    "deadlock": ["--seconds", "0"],
    "fork_pool": ["--tasks", "2", "--count", "1000"],
    "ft_dict": ["--snapshots", "1", "--entries", "10"],
    "ft_gc": ["--rounds", "1", "--heap", "10", "--seconds", "0"],
    "gc_storm": ["--rounds", "1", "--heap", "100"],
    "hog": ["--rounds", "1", "--items", "100"],
    "import_lock": ["--modules", "2", "--seconds", "0"],
    "import_storm": ["--modules", "4", "--entries", "10"],
    "io_bound": ["--seconds", "0"],
    "json_regex_hog": ["--rounds", "1", "--items", "10", "--words", "10"],
    "lock_contention": ["--steps", "2", "--count", "1000"],
    "lock_convoy": ["--steps", "2"],
    "lock_io": ["--steps", "2", "--seconds", "0"],
    "logging_lock": ["--requests", "2", "--seconds", "0"],
    "multiprocess": ["--count", "1000"],
    "native_parallel": ["--rounds", "1", "--megabytes", "1"],
    "numpy_mix": ["--rounds", "1", "--numbers", "100", "--objects", "100"],
    "ping_pong": ["--rounds", "10"],
    "queue_pipeline": ["--items", "3", "--size", "10"],
    "queue_starved": ["--items", "2", "--seconds", "0"],
    "rlock_recursion": ["--walks", "1", "--depth", "1", "--seconds", "0"],
    "single": ["--count", "1000"],
    "sqlite_threads": ["--rounds", "1", "--limit", "100"],
    "subinterpreters": ["--count", "1000"],
    "switch_interval": ["--steps", "2"],
    "thread_pool_http": ["--requests", "4", "--seconds", "0"],
}
NAMES = tuple(SMALL)


def test_all_are_found_by_name() -> None:
    found = bundled()
    assert tuple(found) == NAMES
    assert all(path.stem == name for name, path in found.items())


@pytest.mark.parametrize("name", NAMES)
def test_first_line_describes(name: str) -> None:
    path = bundled()[name]
    line = header(path).description
    assert 20 < len(line) <= 120
    first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]
    assert first == line + "."


@pytest.mark.parametrize("name", NAMES)
def test_states_a_verdict_and_more(name: str) -> None:
    stated = truths(bundled()[name])
    assert [t.metric for t in stated].count("verdict") == 1
    assert len(stated) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_says_what_to_look_for(name: str) -> None:
    known = header(bundled()[name])
    assert known.verdict in KINDS
    assert len(known.look_for) > 100
    assert known.look_for.endswith(".")
    assert "\n" not in known.look_for


def test_reads_headers(tmp_path: Path) -> None:
    program = tmp_path / "w.py"
    text = "A b.\n\nMore.\n\nWhat to look for: this\nand that.\n\nNeeds: x y\nTruth: verdict = hog\n"
    program.write_text(f'"""{text}"""\n')
    assert header(program) == Header("A b", "this and that.", "hog", "x y")
    program.write_text('"""A b."""\n')
    assert header(program) == Header("A b", "", "", "")


@pytest.mark.parametrize("name", NAMES)
def test_runs(name: str, any_interpreter: Interpreter) -> None:
    needs = header(bundled()[name]).needs
    done = subprocess.run(
        [any_interpreter.path, "-W", "error", bundled()[name], *SMALL[name]], capture_output=True, text=True
    )
    if needs and not has(any_interpreter.path, needs):
        assert done.returncode == 2
        assert f"error: needs {needs}" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name}: ")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_reads_truths(tmp_path: Path) -> None:
    program = tmp_path / "w.py"
    program.write_text('"""A.\n\nTruth: verdict = hog\nTruth: waits(io-*) >= 190\nTruth: cores <= 1.5\n"""\n')
    assert truths(program) == [
        Truth("verdict", "=", "hog"),
        Truth("waits", ">=", 190.0, "io-*"),
        Truth("cores", "<=", 1.5),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Truth: nonsense >= 1",
        "Truth: verdict = nonsense",
        "Truth: cause = nonsense",
        "Truth: waits 3",
        "Truth:waits >= 3",
    ],
)
def test_refuses_what_is_no_truth(tmp_path: Path, line: str) -> None:
    program = tmp_path / "w.py"
    program.write_text(f'"""A.\n\n{line}\n"""\n')
    with pytest.raises(ValueError, match=r"w\.py"):
        truths(program)


@pytest.fixture
def timeline() -> Timeline:
    """Two workers, 100 ms: a holds 0-60 (forced off) and 80-100, b waits 20-60 and holds 60-80; main blocks."""
    process = Process(
        pid=10,
        ppid=1,
        python="3.13.0",
        cmdline="x",
        start=0,
        end=100 * MS,
        threads=(
            Thread(10, "MainThread", 0, 100 * MS),
            Thread(11, "cpu-0", 0, 100 * MS),
            Thread(12, "cpu-1", 0, 100 * MS),
        ),
        gils=1,
        holds=np.array(
            [
                (0, 60 * MS, 1, 0, 0, Flag.FORCED),
                (60 * MS, 80 * MS, 2, 0, 1, 0),
                (80 * MS, 90 * MS, 1, 0, 0, 0),
            ],
            HOLD,
        ),
        waits=np.array([(20 * MS, 60 * MS, 2, 0, 7, 1, 0)], WAIT),
        switch_requests=np.array([(58 * MS, 2, 0)], SWITCH_REQUEST),
        switch_intervals=np.array([(20 * MS, 0, 2 * MS)], SWITCH_INTERVAL),
        runs=np.array([(0, 90 * MS, 1, 0, 0), (60 * MS, 100 * MS, 2, 1, 0)], RUN),
        states=np.array(
            [
                (0, 100 * MS, 0, State.OFF_BLOCKED),
                (0, 60 * MS, 1, State.HOLDING_RUNNING),
                (60 * MS, 80 * MS, 1, State.OFF_RUNNING),
                (80 * MS, 90 * MS, 1, State.HOLDING_RUNNING),
                (90 * MS, 100 * MS, 1, State.OFF_BLOCKED),
                (0, 20 * MS, 2, State.OFF_BLOCKED),
                (20 * MS, 60 * MS, 2, State.WAITING),
                (60 * MS, 80 * MS, 2, State.HOLDING_RUNNING),
                (80 * MS, 100 * MS, 2, State.OFF_RUNNING),
            ],
            STATE,
        ),
        has_sched=True,
        locks=np.array([(1, LockKind.SEMAPHORE), (2, LockKind.EVENT)], LOCK),
        blocks=np.array(
            [
                (0, 100 * MS, 0, 1, -1, 100 * MS, BlockEnd.OPEN, 0, 0),
                (5 * MS, 15 * MS, 2, 0, 1, 15 * MS, BlockEnd.WOKEN, 0, 1),
                (90 * MS, 96 * MS, 1, 0, 2, 95 * MS, BlockEnd.WOKEN, 1, 1),
                (96 * MS, 100 * MS, 1, 0, -1, 100 * MS, BlockEnd.TIMED_OUT, 1, 0),
            ],
            BLOCK,
        ),
    )
    return Timeline((process,), 0, 100 * MS, (), np.empty(0, RUN), 0, 0, 0, {"cpus": 2})


@pytest.mark.parametrize(
    ("metric", "threads", "value"),
    [
        ("held_share", "", 0.9),
        ("wait_share", "", 40 / 200),
        ("wait_share", "cpu-1", 0.4),
        ("blocked_share", "", 30 / 200),
        ("holds", "", 3),
        ("holds", "cpu-0", 2),
        ("waits", "cpu-0", 0),
        ("forced", "", 1),
        ("handoffs", "", 2),
        ("longest_hold_ms", "cpu-1", 20),
        ("longest_wait_ms", "", 40),
        ("longest_wait_ms", "cpu-0", 0),
        ("median_wait_ms", "", 40),
        ("low_wait_ms", "", 40),
        ("low_wait_ms", "cpu-0", 0),
        ("switch_requests", "", 1),
        ("switch_requests", "cpu-0", 0),
        ("switch_interval_ms", "cpu-1", 2),
        ("gils_at_once", "", 1),
        ("processes", "", 1),
        ("cores", "", 1.3),
        ("off_running_cores", "", 0.4),
        ("off_ready_share", "", 40 / 200),
        ("blocks", "", 3),
        ("blocks", "cpu-0", 2),
        ("lock_share", "", 20 / 200),
        ("lock_share", "MainThread", 1),
        ("woken_share", "", 2 / 3),
        ("median_block_ms", "", 6),
        ("median_block_ms", "io-*", 0),
    ],
)
def test_measures(timeline: Timeline, metric: str, threads: str, value: float) -> None:
    assert measure(Truth(metric, "=", 0.0, threads), timeline) == pytest.approx(value)


def test_tells_the_cause_of_the_longest_blocks(timeline: Timeline) -> None:
    assert measure(Truth("cause", "=", "lock"), timeline) == "lock"
    assert measure(Truth("cause", "=", "event", "MainThread"), timeline) == "event"
    stated = [Truth("cause", "=", "queue", "cpu-*")]
    assert broken(stated, timeline) == ["cause(cpu-*) = queue: the recording shows lock"]


def test_says_which_truths_are_broken(timeline: Timeline) -> None:
    stated = [Truth("verdict", "=", "idle"), Truth("cores", "<=", 1.0), Truth("holds", ">=", 3.0, "cpu-*")]
    assert broken(stated, timeline) == [
        "verdict = idle: the recording shows cpu-bound-contention",
        "cores <= 1.0: the recording shows 1.3",
    ]
