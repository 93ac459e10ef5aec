"""A page for each command: what the command line says of itself, around what docs/commands.md explains."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

import typer

from giltrace.cli.app import COMMANDS, application

#: The page that explains commands by hand, a section each, and in the site lists them.
SOURCE = "commands.md"
FOLDER = "commands/"
_TREE = "```{{toctree}}\n:hidden:\n\n{}\n```\n"


@cache
def pages() -> dict[str, str]:
    """The name of each command by its page in the site, in the order of ``giltrace --help``."""
    return {f"{FOLDER}{command.name}.md": command.name for command in COMMANDS}


def page_of(anchor: str) -> str | None:
    """The page that has the section of docs/commands.md that `anchor` leads to; None if it is no command's."""
    name = next((name for name in pages().values() if re.match(rf"giltrace-{name}(-|$)", anchor)), None)
    return f"{FOLDER}{name}.md" if name else None


def index(explained: str) -> str:
    """The page that lists the commands, under the heading of docs/commands.md, whose Markdown is `explained`."""
    heading = explained.partition("\n")[0]
    rows = (f"| [`giltrace {one.name}`]({FOLDER}{one.name}.md) | {one.summary} |" for one in COMMANDS)
    return "\n".join(
        [heading, "", "| command | what it does |", "|---|---|", *rows, "", _TREE.format("\n".join(pages()))]
    )


def page(name: str, explained: str) -> str:
    """The page of the command `name`: usage, help, the sections of `explained` whose heading names it, options."""
    group: Any = typer.main.get_command(application([name]))
    command = group.commands[name]
    context = type(group.make_context("giltrace", [name]))(command, info_name=name)
    usage = " ".join(["giltrace", name, *command.collect_usage_pieces(context)])
    parts = [f"# giltrace {name}", f"```text\n{usage}\n```", _help(command.help or "")]
    return "\n\n".join([*parts, *_sections(name, explained), "## Options", _options(command, context)]) + "\n"


def _sections(name: str, explained: str) -> list[str]:
    sections = re.split(r"^## ", explained, flags=re.M)[1:]
    found = []
    for heading, _, body in (section.partition("\n") for section in sections):
        if re.search(rf"giltrace {name}\b", heading):
            plain = heading.strip() == f"giltrace {name}"
            found.append(f"## {'In detail' if plain else heading}\n\n{body.strip()}")
    return found


def _help(text: str) -> str:
    r"""A docstring as Markdown: its paragraphs, and as code those that are not to be wrapped (they begin with \b)."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(_example(one) if one.startswith("\b") else one for one in paragraphs)


def _example(paragraph: str) -> str:
    """Lines ``command     what it does`` as the shell reads them."""
    lines = (re.sub(r"(\S)( {2,})(?=\S)", r"\1\2# ", line, count=1) for line in paragraph.splitlines()[1:])
    return "```sh\n" + "\n".join(lines) + "\n```"


def _options(command: Any, context: Any) -> str:
    records = (record for param in command.get_params(context) if (record := param.get_help_record(context)))
    return "\n".join(
        ["| option | meaning |", "|---|---|", *(f"| `{_cell(names)}` | {_text(what)} |" for names, what in records)]
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _text(text: str) -> str:
    return _cell(text).replace("<", "&lt;")
