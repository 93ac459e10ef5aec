"""The answer to a shell that completes a command line: Typer's parameters say what they take.

Typer could find out by itself whose turn it is, but parses for that: 0.3 s, most of it for an import.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import typer

from giltrace.cli.completion.candidates import Candidates
from giltrace.cli.completion.shells import VARIABLE, Shell
from giltrace.cli.parsing import LAST_OPTIONS, TargetCommand
from giltrace.text import visible

_ESCAPED = re.compile(r"\\(.)")


def answer(app: typer.Typer, shell: str, words: Sequence[str]) -> None:
    """Print what the last of `words` may become; nothing, and no word of it, if that cannot be found out."""
    os.environ.pop(VARIABLE, None)
    found: Candidates = []
    with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
        found = candidates(app, words, keeps_option=shell == Shell.fish)
    for value, description in found:
        print(f"{value}\t{visible(' '.join(description.split()))}")


def candidates(app: typer.Typer, words: Sequence[str], *, keeps_option: bool) -> Candidates:
    """What the last of `words` may become; of ``--format=js`` the value only, unless the shell `keeps_option`."""
    # Bash makes three words of `--format=js`, and shows ours as they were typed.
    *before, typed = [word for word in words[:-1] if word != "="] + list(words[-1:] or [""])
    typed = typed if keeps_option else _ESCAPED.sub(r"\1", "" if typed == "=" else typed)
    group: Any = typer.main.get_command(app)
    at = next((at for at, word in enumerate(before) if word in group.commands), None)
    if at is None:
        line = _Line(group, before)
        return line.next(typed) if line.expects_more or typed.startswith("-") else _commands(group, typed)
    option, equals, value = typed.partition("=")
    line = _Line(group.commands[before[at]], before[at + 1 :])
    if equals and line.takes_value(option):
        led = f"{option}=" if keeps_option else ""
        return [(led + one, text) for one, text in line.values(option, value)]
    return line.next(typed)


def _commands(group: Any, typed: str) -> Candidates:
    return [(name, command.short_help) for name, command in group.commands.items() if name.startswith(typed)]


class _Line:
    """What is typed of a `command`'s line: which options, which arguments, and whether the options have ended."""

    def __init__(self, command: Any, words: Sequence[str]) -> None:
        kinds = [(one.param_type_name, one) for one in command.params]
        self._options = {name: one for kind, one in kinds if kind == "option" for name in one.opts}
        self._arguments = [one for kind, one in kinds if kind == "argument"]
        self._used: set[str] = set()
        self._given: list[str] = []
        self._waiting = ""
        self._ended = False
        for word in words:
            self._take(word, command if isinstance(command, TargetCommand) else None)

    def _take(self, word: str, command: TargetCommand | None) -> None:
        if self._waiting:
            # All that follows `-m MODULE` is the module's.
            self._ended = command is not None and self._waiting in LAST_OPTIONS
            self._given += [word] if self._ended else []
            self._waiting = ""
        elif self._ended or word in ("", "-") or not word.startswith("-"):
            self._given.append(word)
            self._ended = self._ended or (command is not None and command.is_last(word))
        elif word == "--":
            self._ended = True
        else:
            self._used.add(word.partition("=")[0])
            self._waiting = word if self.takes_value(word) else ""

    @property
    def expects_more(self) -> bool:
        """Whether a value is missing, or there are words that none of the command's parameters take."""
        return bool(self._waiting or self._given)

    def takes_value(self, name: str) -> bool:
        """Whether the option takes the next word as its value."""
        return name in self._options and not getattr(self._options[name], "is_flag", False)

    def next(self, typed: str) -> Candidates:
        """What `typed`, the next word, may become."""
        if self._waiting:
            return self.values(self._waiting, typed)
        if typed.startswith("-") and not self._ended:
            return [
                (name, option.help or "")
                for name, option in [*self._options.items(), ("--help", SimpleNamespace(opts=[], help="Explain."))]
                if name.startswith(typed) and (getattr(option, "multiple", False) or not self._used & {*option.opts})
            ]
        at = len(self._given)
        if self._arguments and (at < len(self._arguments) or self._arguments[-1].nargs < 0):
            return self._values(self._arguments[min(at, len(self._arguments) - 1)], typed)
        return []

    def values(self, name: str, typed: str) -> Candidates:
        """What `typed`, the value of the option `name`, may become."""
        return self._values(self._options[name], typed)

    def _values(self, parameter: Any, typed: str) -> Candidates:
        items = parameter.shell_complete(SimpleNamespace(params={"words": self._given}), typed)
        # An older Typer has the file itself for what takes any.
        return [(item.value, item.help or "") for item in items if item.type == "plain"]
