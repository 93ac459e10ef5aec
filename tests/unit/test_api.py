"""The Python interface: what importing costs, the tables of several processes, the data frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import giltrace
from giltrace import installation
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.summary import summarise
from giltrace.api import Recording, analyse
from giltrace.errors import UsageError
from giltrace.reports.shown import Summary
from giltrace.timeline.model import RUN, BlockEnd, Flag, State, Timeline
from tests.made_blocks import causes, with_blocks
from tests.synthetic import make_process, make_timeline
from tests.unit.gil_events import timeline
from tests.unit.test_summary_verdict import cpu_bound


def recording(built: Timeline) -> Recording:
    return Recording(Path("made-up.giltrace"), built)


def two() -> Recording:
    return recording(make_timeline(make_process(pid=10, threads=3), make_process(pid=20, threads=2, seed=2)))


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, giltrace; print(*sorted(m for m in sys.modules if m.split('.')[0] in {'giltrace', 'numpy'}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["giltrace"]


def test_every_public_name_is_there_and_listed() -> None:
    assert dir(giltrace) == sorted(giltrace.__all__)
    for name in giltrace.__all__:
        assert getattr(giltrace, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        giltrace.lode  # noqa: B018


def test_one_process_is_not_copied_and_cannot_be_changed() -> None:
    built = make_timeline(make_process())
    holds = recording(built).holds
    assert np.shares_memory(holds, built.processes[0].holds)
    assert holds.start.tolist() == built.processes[0].holds["start"].tolist()
    with pytest.raises(ValueError, match="read-only"):
        holds["start"][0] = 1
    assert built.processes[0].holds.flags.writeable


def test_tables_span_processes_and_their_indices_too() -> None:
    both = two()
    first, second = both.timeline.processes
    assert both.processes.pid.tolist() == [10, 20]
    assert both.threads.pid.tolist() == [10] * 3 + [20] * 2
    assert both.threads.name.tolist() == [t.name for p in (first, second) for t in p.threads]
    assert len(both.holds) == len(first.holds) + len(second.holds)
    for table in ("holds", "waits", "switch_requests", "runs"):
        rows = getattr(both, table)
        pids = both.threads.pid[rows.thread]
        assert [int((pids == pid).sum()) for pid in (10, 20)] == [len(getattr(p, table)) for p in (first, second)]
    led = both.waits[both.waits.hold >= 0]
    assert len(led) > 0
    assert (both.holds[led.hold].thread == led.thread).all()
    assert (both.holds[led.hold].start == led.end).all()
    assert first.holds["thread"].max() < 3
    assert second.holds["thread"].max() < 2


def test_an_empty_recording_has_empty_tables() -> None:
    empty = recording(make_timeline())
    assert len(empty.processes) == len(empty.threads) == len(empty.holds) == 0
    assert empty.runs.dtype.names == RUN.names
    assert repr(empty) == "<Recording 'made-up.giltrace': 0 processes, 0 holds>"


def test_analyses_are_those_of_the_timeline_and_worked_out_once() -> None:
    one = recording(timeline(*cpu_bound()))
    assert one.summary() == Summary.showing(summarise(one.timeline))
    assert one.report() == analyse(one.timeline)
    assert one.report() is one.report()


def test_frames() -> None:
    pandas = pytest.importorskip("pandas")
    one = recording(timeline(*cpu_bound()))
    frames = one.to_pandas()
    assert len(frames.holds) == len(one.holds)
    assert isinstance(frames.holds["thread"].dtype, pandas.CategoricalDtype)
    assert frames.holds["thread"].tolist() == one.threads.name[one.holds.thread].tolist()
    assert frames.holds["forced"].sum() == np.count_nonzero(one.holds["flags"] & Flag.FORCED) > 0
    assert frames.waits["duration"].sum() == (one.waits.end - one.waits.start).sum()
    assert list(frames.states["state"].cat.categories) == [state.label for state in State]
    lives = frames.states.groupby("tid")["duration"].sum()
    assert lives.to_dict() == dict(zip(frames.threads["tid"], frames.threads["duration"], strict=True))
    assert set(frames.switch_requests.columns) == {"pid", "tid", "thread", "time", "gil"}
    assert frames.runs["preempted"].dtype == bool
    assert frames.processes["pid"].tolist() == [100]
    assert frames.holds is frames.holds


def test_frames_of_several_processes_and_of_none() -> None:
    pytest.importorskip("pandas")
    frames = two().to_pandas()
    assert frames.waits["pid"].value_counts().to_dict() == {
        p.pid: len(p.waits) for p in two().timeline.processes
    }  # fmt: skip
    empty = recording(make_timeline()).to_pandas()
    assert [len(empty.holds), len(empty.states), len(empty.threads)] == [0, 0, 0]


def blocked() -> Recording:
    return recording(make_timeline(make_process(pid=5), *(with_blocks(make_process(pid=pid)) for pid in (10, 20))))


def test_blocks_span_processes_and_their_wakers_too() -> None:
    one = blocked()
    parts = [process.blocks for process in one.timeline.processes]
    assert one.blocks.start.tolist() == np.concatenate([part["start"] for part in parts]).tolist()
    assert one.blocks.lock.tolist() == (np.concatenate([part["lock"] for part in parts]) + 1).tolist()
    woken = one.blocks[one.blocks.waker >= 0]
    assert 0 < len(woken) < len(one.blocks)
    assert (one.threads.pid[woken.waker] == one.threads.pid[woken.thread]).all()
    (told,) = {tuple(causes(process)) for process in one.timeline.processes[1:]}
    assert [BlockCause(cause).label for cause in one.blocks.cause] == [*told, *told]
    with pytest.raises(ValueError, match="read-only"):
        one.blocks["start"][0] = 1
    assert len(two().blocks) == len(recording(make_timeline()).blocks) == 0


def test_frames_of_blocks() -> None:
    pytest.importorskip("pandas")
    one = blocked()
    frame = one.to_pandas().blocks
    assert frame["duration"].sum() == (one.blocks.end - one.blocks.start).sum() > 0
    assert frame["cause"].value_counts().loc[["lock", "queue", "event", "join"]].sum() == len(frame)
    assert frame["ended"].tolist() == [BlockEnd(end).label for end in one.blocks.ended]
    assert frame["timed"].dtype == bool
    woken = frame[frame["waker_tid"] >= 0]
    assert woken["waker"].tolist() == one.threads.name[one.blocks.waker[one.blocks.waker >= 0]].tolist()
    assert frame["waker"].isna().sum() == len(frame) - len(woken) > 0
    assert len(recording(make_timeline()).to_pandas().blocks) == 0


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pandas is not installed") as raised:
        two().to_pandas()
    assert raised.value.remedy == installation.with_extra("pandas")
