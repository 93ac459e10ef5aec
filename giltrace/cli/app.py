"""The command line's entry: which commands there are, and the one place where an error becomes text.

Only the command that is called is imported; for the others this table has what ``giltrace --help`` shows.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand

from giltrace import __version__, installation
from giltrace.cli.completion.shells import VARIABLE, Shell, install, script
from giltrace.cli.parsing import LiveCommand, TargetCommand
from giltrace.cli.starting import ReadingCommand, collect_rarely, leave_the_rest
from giltrace.cli.stdout import written_out
from giltrace.cli.telling import tell
from giltrace.errors import GiltraceError
from giltrace.text import visible

#: What Typer raises for a command line that it does not understand; newer ones have a click of their own.
_Refused: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")

#: What it says of a name like another, and of which option's value it speaks.
_MEANT = re.compile(r"[. ]+\(?(?:Did you mean|Possible options:) (.+?)[?)]*$")
_ABOUT = re.compile(r"Invalid value for ((?:'[^']*'(?: / )?)+): ")

#: What one types who has just installed it.
_LOOKS = ("-h", "--help", "-V", "--version")

_HELP = {"help_option_names": ["-h", "--help"]}


class Command(NamedTuple):
    """One command: its `name`, its function as ``module:function``, its line in ``giltrace --help``, and its parser."""

    name: str
    target: str
    summary: str
    parser: type[TyperCommand] = TyperCommand

    def load(self) -> Callable[..., Any]:
        """Import the command's module and return its function."""
        module, _, function = self.target.partition(":")
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return loaded


#: A new command is one file in this package and one line here.
COMMANDS: tuple[Command, ...] = (
    Command(
        "record",
        "giltrace.cli.record:record",
        "Run a Python program and record who held the GIL, on which core, and who waited.",
        TargetCommand,
    ),
    Command(
        "attach",
        "giltrace.cli.attach:attach",
        "Record a Python process that runs already, and leave it as it was.",
        ReadingCommand,
    ),
    Command(
        "dump",
        "giltrace.cli.dump:dump",
        "Write out the last moments of a process that is being recorded.",
        ReadingCommand,
    ),
    Command(
        "dask",
        "giltrace.cli.dask:dask",
        "Record all workers of a Dask cluster, and which task ran where.",
        ReadingCommand,
    ),
    Command(
        "report",
        "giltrace.cli.report:report",
        "Say what a recording means, and which line made which line wait.",
        ReadingCommand,
    ),
    Command(
        "view",
        "giltrace.cli.view:view",
        "Open a recording in the Perfetto UI, where threads lost most to the GIL.",
        ReadingCommand,
    ),
    Command(
        "query",
        "giltrace.cli.query:query",
        "Ask a recording by SQL.",
        ReadingCommand,
    ),
    Command(
        "merge",
        "giltrace.cli.merge:merge",
        "Put another profiler's file beside the GIL, on the same clock.",
        ReadingCommand,
    ),
    Command(
        "compare",
        "giltrace.cli.compare:compare",
        "Say what changed beyond noise between two recordings.",
        ReadingCommand,
    ),
    Command(
        "check",
        "giltrace.cli.check:check",
        "Check recordings against limits, for continuous integration.",
        ReadingCommand,
    ),
    Command(
        "top",
        "giltrace.cli.top:top",
        "Show live who holds the GIL, who waits for it, and which lines make them wait.",
        LiveCommand,
    ),
    Command(
        "metrics",
        "giltrace.cli.metrics:metrics",
        "Count the use of the GIL and of locks, for Prometheus, OpenTelemetry or a table.",
        LiveCommand,
    ),
    Command(
        "export",
        "giltrace.cli.export:export",
        "Write a recording in the format of another tool.",
        ReadingCommand,
    ),
    Command("doctor", "giltrace.cli.doctor:doctor", "Say what can be captured here, and how to get the rest."),
    Command("workloads", "giltrace.cli.workloads:workloads", "List the bundled workloads with what each shows."),
)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line `argv` (default: ``sys.argv[1:]``, of a process for that alone) and exit with its status."""
    if argv is None:
        collect_rarely()
        try:
            _run(sys.argv[1:])
        finally:
            leave_the_rest()
    _run(list(argv))


def _run(arguments: list[str]) -> NoReturn:
    shell = os.environ.get(VARIABLE)
    if shell is not None:
        from giltrace.cli.completion.answer import answer

        with written_out():
            answer(application(arguments[:-1]), shell, arguments)
        sys.exit(0)
    if not arguments or arguments[0] in _LOOKS:
        _warn_without_tracer()
    try:
        with written_out():
            status = application(arguments)(args=arguments, prog_name="giltrace", standalone_mode=False)
    except GiltraceError as error:
        tell(error)
        sys.exit(error.exit_code)
    except _Refused as refused:
        if refused.ctx is not None and not arguments:
            refused.show()  # the help: nothing was asked for
        else:
            tell(GiltraceError(*_in_words(refused, _called(arguments))))
        sys.exit(refused.exit_code)
    sys.exit(status if isinstance(status, int) else 0)


def _warn_without_tracer() -> None:
    """Say what pip did not: it shows nothing of a build that ends well."""
    from giltrace import native

    if sys.platform == "linux" and not native.tracers():
        tell(GiltraceError(installation.UNBUILT, installation.how_to_build()), kind="warning")


def _in_words(refused: Any, called: str | None) -> tuple[str, str]:
    """The cause of one of Typer's errors, with the option or argument that it is about, and the remedy."""
    text = " ".join(refused.format_message().split()).removesuffix(".")
    message, meant = text, _MEANT.search(text)
    if meant is not None:
        message = text[: meant.start()]
    about = _ABOUT.match(message)
    if about is not None:
        message = f"{about[1].replace(chr(39), '')}: {message[about.end() :]}"
    elif message.partition(" ")[0].istitle():
        message = message[0].lower() + message[1:]
    if meant is not None:
        return message, f"did you mean {meant[1]}?"
    path = ["giltrace", *(command.name for command in COMMANDS if command.name == called)]
    return message, getattr(refused, "remedy", "") or f"`{' '.join(path)} --help` says what there is"


def application(arguments: Sequence[str]) -> typer.Typer:
    """Return the Typer application for `arguments`: the command they name is loaded, the others are listed only."""
    # Plain help: Rich alone would take longer to import than everything else that `--help` needs.
    app = typer.Typer(
        name="giltrace",
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_HELP,
    )
    app.callback()(giltrace)
    called = _called(arguments)
    for command in COMMANDS:
        function = command.load() if command.name == called else _listed_only
        # The full help of a command is its function's docstring; the line in the list is the table's.
        text = function.__doc__ if command.name == called else command.summary
        names: Any = {"help": text, "short_help": command.summary, "context_settings": _HELP}
        app.command(command.name, cls=command.parser, **names)(function)
    return app


def _called(arguments: Sequence[str]) -> str | None:
    return next((word for word in arguments if not word.startswith("-")), None)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"giltrace {__version__}")
        raise typer.Exit


def _print_completion(shell: Shell | None) -> None:
    if shell is not None:
        print(script(shell), end="")
        raise typer.Exit


def _install_completion(shell: Shell | None) -> None:
    if shell is not None:
        path, rest = install(shell)
        print(f"giltrace: wrote {visible(str(path))}; {visible(rest, keep=chr(10))}", file=sys.stderr)
        raise typer.Exit


def giltrace(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
    install_completion: Annotated[
        Shell | None,
        typer.Option(
            "--install-completion",
            help="Let this shell complete giltrace's command lines, and exit.",
            is_eager=True,
            callback=_install_completion,
            show_default=False,
        ),
    ] = None,
    show_completion: Annotated[
        Shell | None,
        typer.Option(
            "--show-completion",
            help="Print the script that does so, and exit.",
            is_eager=True,
            callback=_print_completion,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show who held the GIL, on which core, for how long, and what every other thread lost to it.

    giltrace COMMAND --help explains a command. Exit status 0 is success and 2 an error, told with its remedy; record
    ends as the recorded program did, check and doctor with 1 if what they look for is not given.
    """


def _listed_only() -> None:
    """Stand in the list for a command that this command line does not call."""
