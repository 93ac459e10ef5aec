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
        "/home/ann/.pex/installed_wheels/1f3a/Flask-3.0.0-py3-none-any.whl/flask/app.py",
        "/srv/app.pex/.deps/Flask-3.0.0-py3-none-any.whl/flask/app.py",
        "/srv/eggs/flask-3.0-py3.11.egg/flask/app.py",
        "/srv/app/tools/_vendor/requests/api.py",
        "<attrs generated init shop.models.Order>",
        "<decorator-gen-7>",
        "<__array_function__ internals>",
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
        "/srv/app.pyz/work.py",
        "/srv/app.pyz/__main__.py",
        "<python-input-0>",
        "/tmp/ipykernel_4242/1234567890.py",
        "/home/me/bin/report",
        "queue.py",
        "json/encoder.py",
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


THREAD = [("Thread.run", "threading.py", 982), ("Thread._bootstrap", "threading.py", 1002)]


@pytest.mark.parametrize(
    ("file", "known"),
    [
        ("json/encoder.py", True),
        ("queue.py", True),
        ("PyInstaller/loader/pyimod02_importers.py", True),
        ("pyi_rth_inspect.py", True),
        ("app.py", False),
        ("helpers/calc.py", False),
        ("/srv/plugins/queue.py", False),
    ],
)
def test_a_frozen_program_has_relative_paths_of_the_standard_library_too(file: str, known: bool) -> None:
    assert own([("leaf", file, 3), ("mine", "app.py", 4)], THREAD) == ["mine" if known else "leaf", None]


def test_a_command_that_an_installer_wrote_is_not_the_users() -> None:
    serve = ("run", "/venv/lib/python3.11/site-packages/gunicorn/app/base.py", 235)
    for script in ("/venv/bin/gunicorn", "/home/me/bin/report"):
        entry = ("<module>", script, 8)
        assert own([serve, entry]) == [None]
        assert own([serve, entry], [("build", script, 30), entry]) == ["<module>", "build"]


@pytest.mark.parametrize("function", ["__create_fn__.<locals>.__init__", "__init__", "__eq__", "<lambda>"])
def test_text_that_a_library_executes_is_not_the_users(function: str) -> None:
    made = [(function, "<string>", 2), ("order", "/srv/shop.py", 9)]
    assert own(made) == ["order"]
    # The program's own text, as of python -c, counts as a whole: there is nothing else to tell them by.
    assert own(made, [("<module>", "<string>", 1)]) == [function, "<module>"]
