"""What docs/safety.md promises: each promise names tests that exist, and none is without."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "safety.md").read_text()

_TABLE = PAGE.partition("## Each promise and its test\n")[2].partition("\n## ")[0]
ROWS = dict(re.findall(r"^\| (?!promise)([^|-][^|]*) \| ([^|]*) \|$", _TABLE, re.M))


@functools.cache
def functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("promise", ROWS)
def test_a_promise_has_tests(promise: str) -> None:
    named = re.findall(r"`([^`]+)`", ROWS[promise])
    assert named
    for name in named:
        path, _, function = name.partition("::")
        assert function.startswith("test_")
        assert (TESTS / path).is_file(), path
        assert function in functions_of(TESTS / path), name


def test_nothing_that_it_never_does_is_without_a_promise() -> None:
    never = re.findall(r"^\* It (never \w+)", PAGE, re.M)
    assert len(never) >= 6
    assert [words for words in never if not any(words in promise for promise in ROWS)] == []
