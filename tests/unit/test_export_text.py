"""Rows of text from columns: every number and text as Python itself would write it."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from giltrace.exporters._text import PIECE, choices, decimals, integers, json_text, rows, where, write_array

NUMBERS = some.lists(some.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=20)


@given(NUMBERS)
def test_integers(values: list[int]) -> None:
    text = rows(integers(np.array(values, np.int64)), b"\n").decode()
    assert text.splitlines() == [str(value) for value in values]


@given(some.lists(some.integers(0, 2**63 - 1), min_size=1, max_size=20), some.sampled_from([3, 6]))
def test_decimals_are_exact(values: list[int], places: int) -> None:
    text = rows(decimals(np.array(values, np.int64), places), b"\n").decode()
    want = [f"{value // 10**places}.{value % 10**places:0{places}}" for value in values]
    assert text.splitlines() == want


def test_negative_decimals() -> None:
    assert rows(decimals(np.array([-1, 1, -12_345]), 3), b" ") == b"-0.001 0.001 -12.345 "


@given(some.lists(some.text(some.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_texts_of_any_length(texts: list[str]) -> None:
    cells = choices(texts)(np.arange(len(texts))[::-1])
    assert rows(b"<", cells, b">").decode() == "".join(f"<{text}>" for text in reversed(texts))


@given(some.text())
def test_json_texts(text: str) -> None:
    assert json.loads(rows(choices([json_text(text)])(np.zeros(1, np.int64)))) == text


def test_parts_are_there_only_where_they_are_present() -> None:
    numbers = np.array([5, 60, 700])
    part = where(numbers > 5, b",x=", integers(numbers))
    assert rows(b"[", part, b"]") == b"[][,x=60][,x=700]"


@pytest.mark.parametrize("count", [0, 1, PIECE, PIECE + 1])
def test_arrays_of_several_pieces(count: int) -> None:
    file = io.BytesIO()
    write_array(file, count, lambda piece: integers(np.arange(count)[piece]))
    assert json.loads(file.getvalue()) == list(range(count))


def test_the_width_of_numbers_may_differ_between_types() -> None:
    assert rows(integers(np.array([0, 255], np.uint8)), b",") == b"0,255,"
    assert rows(integers(np.array([-1, 7], np.int16)), b",") == b"-1,7,"
