"""`native-code.npz`: what was written comes back, what is damaged does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from giltrace.recording.archive import write_archive
from giltrace.recording.door import Times
from giltrace.recording.events import NATIVE_SAMPLE, SPAN, NativeCode, NativeFunction
from giltrace.recording.native_code import FILE, read_native_code, write_native_code

FUNCTIONS = (NativeFunction("sort", "/lib/a.so"), NativeFunction("", "/lib/\x1b[1m", "caller", "/lib/b.so"))


def rows(*samples: tuple[int, int, int]) -> NativeCode:
    return NativeCode(FUNCTIONS, np.array(list(samples), NATIVE_SAMPLE))


def test_what_was_written_comes_back_in_order_and_visible(tmp_path: Path) -> None:
    write_native_code(tmp_path, rows((30, 2, 0), (20, 2, 1), (10, 3, 0), (40, 1, 1)))
    back = read_native_code(tmp_path)
    assert back.samples.tolist() == [(40, 1, 1), (20, 2, 1), (30, 2, 0), (10, 3, 0)]
    assert back.functions == (FUNCTIONS[0], NativeFunction("", "/lib/\\x1b[1m", "caller", "/lib/b.so"))


def test_without_the_file_there_is_nothing_and_no_damage(tmp_path: Path) -> None:
    damage: list[str] = []
    back = read_native_code(tmp_path, damage=damage)
    assert (back.functions, len(back.samples), damage) == ((), 0, [])


def test_samples_that_make_no_sense_are_left_out_and_told(tmp_path: Path) -> None:
    write_native_code(tmp_path, rows((20, 2, 0), (20, 0, 0), (20, 1 << 23, 0), (20, 2, 2), (5, 2, 0), (99, 2, 0)))
    damage: list[str] = []
    assert read_native_code(tmp_path, Times(10, 50), damage).samples.tolist() == [(20, 2, 0)]
    assert damage == [f"{FILE}: 5 samples make no sense: left out"]


@pytest.mark.parametrize(
    "about",
    [
        {"version": 1, "functions": [["f", "g"]]},
        {"version": 1, "functions": [["f", "g", "", 5]]},
        {"version": 1, "functions": 5},
        {"version": 1},
        {"version": 2, "functions": []},
    ],
    ids=str,
)
def test_a_file_that_makes_no_sense_is_left_out_and_told(tmp_path: Path, about: dict[str, object]) -> None:
    write_archive(tmp_path / FILE, about, "samples", np.zeros(1, NATIVE_SAMPLE))
    damage: list[str] = []
    assert len(read_native_code(tmp_path, damage=damage).samples) == 0
    assert len(damage) == 1
    assert FILE in damage[0]


def test_other_columns_are_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / FILE, {"version": 1, "functions": []}, "samples", np.zeros(1, SPAN))
    damage: list[str] = []
    read_native_code(tmp_path, damage=damage)
    assert len(damage) == 1
