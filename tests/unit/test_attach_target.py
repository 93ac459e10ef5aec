"""Which of a process's objects is its C library: each distribution calls it otherwise."""

from __future__ import annotations

import pytest

from giltrace.launch.attach.target import _LIBC


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("libc.so.6", True),
        ("libc-2.31.so", True),
        ("libc.so", True),  # musl, where Debian keeps it
        ("ld-musl-x86_64.so.1", True),
        ("libc.musl-x86_64.so.1", True),
        ("libc.so.6 (deleted)", True),
        ("libcrypt.so.1", False),
        ("libc.so.6.1", False),
        ("libclang.so", False),
    ],
)
def test_names_of_the_c_library(name: str, is_one: bool) -> None:
    assert (_LIBC.fullmatch(name) is not None) is is_one
