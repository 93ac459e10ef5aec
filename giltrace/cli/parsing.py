"""Reading a command line that ends in somebody else's, the way ``python`` itself does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

from giltrace.errors import UsageError

#: What names the program to run; all that follows is that program's.
LAST_OPTIONS = ("-m", "-c")


class TargetCommand(TyperCommand):
    """A command whose own options end with ``-m MODULE``, ``-c CODE`` or the first word that is no option."""

    allow_interspersed_args = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `args`, with the target's part set off by ``--``."""
        return super().parse_args(ctx, set_off(args, self._with_value()))

    def _with_value(self) -> frozenset[str]:
        options = (p for p in self.params if p.param_type_name == "option" and not getattr(p, "is_flag", False))
        return frozenset(word for option in options for word in option.opts)

    @classmethod
    def is_last(cls, word: str) -> bool:
        """Whether what follows the first word that is no option is not the command's own any more."""
        return True


class LiveCommand(TargetCommand):
    """Likewise, but for a process that runs already: it gets no words, so options may stand after its PID, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `args`, whose options go on after a PID."""
        at, ended = options_end(args, self._with_value())
        ctx.allow_interspersed_args = not ended and not all(map(self.is_last, args[at : at + 1]))
        return super().parse_args(ctx, args)

    @classmethod
    def is_last(cls, word: str) -> bool:
        """Whether it is anything but a PID."""
        return not is_pid(word)


def is_pid(word: str) -> bool:
    """Whether a word that names what to look at is the id of a process: a program may have a number for its name."""
    return word.isdigit() and not os.path.exists(word)


def named_pid(words: Sequence[str], *, module: str | None, code: str | None) -> int | None:
    """The process that `words` name, where they may say what to run instead; None if they do.

    Raises `UsageError` if words follow a PID.
    """
    if module is not None or code is not None or not words or not is_pid(words[0]):
        return None
    if len(words) > 1:
        raise UsageError(f"{' '.join(words)!r} begins with a PID and goes on", "give one PID, and nothing but options")
    return int(words[0])


def options_end(words: list[str], with_value: frozenset[str]) -> tuple[int, bool]:
    """Where the options at the beginning of `words` end, and whether ``-m`` or ``-c`` with its value ended them.

    `with_value` are the options that take the next word as their value.
    """
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        word = words[at]
        at += 2 if word in with_value else 1
        # `-mMODULE` carries its value itself. Else it may be missing.
        if at <= len(words) and word.startswith(LAST_OPTIONS):
            return at, True
    return at, False


def set_off(words: list[str], with_value: frozenset[str]) -> list[str]:
    """Return `words` with ``--`` after the value of ``-m`` or ``-c``, if that is what ends the options."""
    at, ended = options_end(words, with_value)
    return [*words[:at], "--", *words[at:]] if ended and words[at : at + 1] != ["--"] else words
