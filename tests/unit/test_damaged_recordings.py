"""Recordings that are damaged by chance: each command gives an answer or one clear line, soon and in little memory.

`python -m tests.fuzzing 500` does the same for more of them, and for all commands.
"""

from __future__ import annotations

import pytest

from tests.fuzzing import fuzz

COMMANDS = ("report", "html", "csv", "api", "top")
#: Few enough for a machine that does other things too.
GROUP = 3


@pytest.mark.parametrize("first", range(1, 61, GROUP))
def test_each_command_answers_or_says_why_not(first: int) -> None:
    for done, outcomes in fuzz(range(first, first + GROUP), COMMANDS):
        assert [f"{done}: {one.command}: {one.wrong}" for one in outcomes if one.wrong] == []


@pytest.mark.parametrize("first", range(101, 107))
def test_so_do_those_that_few_use(first: int) -> None:
    others = ("json", "chrome", "firefox", "speedscope", "culprits", "cut", "compare", "check")
    for done, outcomes in fuzz([first], others):
        assert [f"{done}: {one.command}: {one.wrong}" for one in outcomes if one.wrong] == []
