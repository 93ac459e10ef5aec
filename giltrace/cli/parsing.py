"""Reading a command line that ends in somebody else's, the way ``python`` itself does."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

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


def set_off(words: list[str], with_value: frozenset[str]) -> list[str]:
    """Return `words` with ``--`` after the value of ``-m`` or ``-c``, if that is what ends the options.

    `with_value` are the options that take the next word as their value.
    """
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        word = words[at]
        at += 2 if word in with_value else 1
        if at > len(words):
            return words  # its value is missing
        if word.startswith(LAST_OPTIONS):
            # `-mMODULE` carries its value itself.
            at_end = words[at : at + 1] == ["--"]
            return words if at_end else [*words[:at], "--", *words[at:]]
    return words
