"""Whose code a frame is, and where a stack was last in the user's."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence

import pytest

from giltrace.analysis.measure.own_line import innermost_own
from tests.unit.analysis_stacks import Frame, stack_table

RUN = ("run", "app.py", 1)


def own(*stacks: Sequence[Frame]) -> list[str | None]:
    """The function of each stack's own line."""
    table = stack_table(stacks)
    return [table.strings[table.frames["function"][at]] if at >= 0 else None for at in innermost_own(table).tolist()]


@pytest.mark.parametrize(
    "file",
    [
        f"{sysconfig.get_path('stdlib')}/json/encoder.py",
        "/usr/lib/python3.11/threading.py",
        "/usr/lib/python3/dist-packages/yaml/reader.py",
        "/opt/python3.13t/lib/python3.13t/queue.py",
        "/usr/lib64/python3.12/site-packages/flask/app.py",
        "/srv/app/.venv/lib/python3.11/site-packages/flask/app.py",
        "C:/Python/Lib/site-packages/flask/app.py",
        "/opt/python311.zip/json/encoder.py",
        "<frozen importlib._bootstrap>",
    ],
)
def test_libraries_are_not_the_users(file: str) -> None:
    assert own([("dumps", file, 3), RUN], [("dumps", file, 3)]) == ["run", None]


@pytest.mark.parametrize(
    "file",
    [
        "app.py",
        "/srv/app/lib/work.py",
        "/home/me/python3/work.py",
        "<string>",
        "<stdin>",
        "<ipython-input-1>",
        "/tmp/Lib/a.py",
    ],
)
def test_all_else_is_the_users(file: str) -> None:
    assert own([("mine", file, 3), ("outer", "/usr/lib/python3.11/threading.py", 9), RUN]) == ["mine"]


def test_a_standard_library_anywhere_is_told_by_who_starts_threads() -> None:
    start = [
        ("Thread.run", "/src/cpython/Lib/threading.py", 5),
        ("Thread._bootstrap", "/src/cpython/Lib/threading.py", 9),
    ]
    other = [("dumps", "/src/cpython/Lib/json/encoder.py", 1), ("work", "/src/tool.py", 2)]
    assert own([("work", "/src/tool.py", 2), *start], other) == ["work", "work"]
    assert own(other) == ["dumps"]


def test_what_giltrace_runs_has_no_own_line() -> None:
    assert own([("save", "/x/giltrace_viztracer.py", 9), RUN], [RUN]) == [None, "run"]


def test_empty_stacks_between_others_have_none() -> None:
    assert own([], [RUN], [], [("dumps", "<frozen os>", 1)], []) == [None, "run", None, None, None]
