"""What a recorded program calls things shows, and does nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from giltrace.text import json_text, spreadsheet_cell, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve 名前 \U0001f600 [bold red]", "naïve 名前 \U0001f600 [bold red]"),
        ("\x1b[31m\x07\x9b2J", r"\x1b[31m\x07\x9b2J"),
        ("a\nb\tc\r\0", r"a\nb\tc\r\x00"),
        ("\u202egnp\u2066\u200f", r"\u202egnp\u2066\u200f"),
        ("\ud800\udc80", r"\ud800\udc80"),
        ("\u2028\xa0\U000e0041", r"\u2028\xa0\U000e0041"),
    ],
)
def test_what_does_not_show_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@settings(deadline=None)
@given(st.text(st.characters()))
def test_what_is_shown_is_printable_and_stays_as_it_is(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown
    shown.encode()
    assert visible(text, keep="\n").replace("\n", "").isprintable()


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "=", "-", "-x", "+"])
def test_what_looks_like_a_formula_is_led_by_an_apostrophe(text: str) -> None:
    assert spreadsheet_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "x=1", "-5", "+0.25", "-1e-9", "-.5", "3.", "a-b", "'=1"])
def test_other_cells_stay(text: str) -> None:
    assert spreadsheet_cell(text) == text


@settings(deadline=None, max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_comes_back_as_it_was_and_shows(value: object) -> None:
    text = json_text(value, indent=1)
    assert text.replace("\n", "").isprintable()
    text.encode()
    assert json.loads(text) == json.loads(json.dumps(value), parse_constant=lambda _: None)


def test_json_has_null_for_what_is_no_number() -> None:
    assert json.loads(json_text([float("nan"), float("inf"), -float("inf"), 1.5, (2,), b"\x1f"])) == [
        None,
        None,
        None,
        1.5,
        [2],
        "1f",
    ]
