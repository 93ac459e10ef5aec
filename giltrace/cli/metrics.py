"""`giltrace metrics`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from giltrace.cli import heap
from giltrace.cli.completion.candidates import files, live_targets
from giltrace.cli.options import Code, Module, Python
from giltrace.cli.outcome import exit_like, tell_printed
from giltrace.cli.parsing import named_pid
from giltrace.cli.values import Mistyped, parse_duration
from giltrace.errors import UsageError

if TYPE_CHECKING:
    from giltrace.launch.counting import Counted
    from giltrace.launch.target import Target
    from giltrace.metrics.export import Export
    from giltrace.metrics.export.table import Table
    from giltrace.views.ending import Ending

_SHORTEST, _LONGEST = 0.1, 3600.0


_Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PID | [--] SCRIPT|WORKLOAD|COMMAND [ARGS]...",
        help="What to count: a process that runs, or what to run.",
        show_default=False,
        autocompletion=live_targets,
    ),
]
_Match = Annotated[
    list[str] | None,
    typer.Option(
        "--match",
        metavar="GLOB",
        help="All Python processes whose command line, script or program fits, also those to come; repeatable.",
        show_default=False,
    ),
]
_Listen = Annotated[
    str | None,
    typer.Option("--listen", metavar="ADDRESS", help="Serve Prometheus at 127.0.0.1:9464, or at unix:/path."),
]
_Cert = Annotated[
    Path | None,
    typer.Option("--tls-cert", metavar="FILE", help="Serve by TLS, with this certificate.", autocompletion=files),
]
_Key = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's key.", autocompletion=files)
]
_Otlp = Annotated[
    str | None,
    typer.Option("--otlp", metavar="URL", help="Send to an OpenTelemetry collector, like http://127.0.0.1:4318."),
]
_Interval = Annotated[
    str | None,
    typer.Option("--interval", metavar="TIME", help="Between readings. [default: 1s for the table, else 10s]"),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="With the table: write what the command prints here. [default: its last lines are shown at the end]",
        autocompletion=files,
    ),
]
_Seccomp = Annotated[
    bool,
    typer.Option("--allow-seccomp", help="With PID: attach although a seccomp filter might kill the process."),
]


def metrics(
    words: _Words = None,
    module: Module = None,
    code: Code = None,
    match: _Match = None,
    listen: _Listen = None,
    tls_cert: _Cert = None,
    tls_key: _Key = None,
    otlp: _Otlp = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each interval.")] = False,
    interval: _Interval = None,
    output: _Output = None,
    allow_seccomp: _Seccomp = False,
    python: Python = None,
) -> None:
    """Count the use of the GIL and of locks, for dashboards and alerts: exact, and cheap enough to be always on.

    \b
    giltrace metrics 4242                              a table
    giltrace metrics --listen 127.0.0.1:9464 4242      for Prometheus
    giltrace metrics --listen 9464 -- gunicorn a:app   a command and its children
    giltrace metrics --listen 9464 --match gunicorn    all that fit, also later
    giltrace metrics --otlp http://127.0.0.1:4318 4242 for OpenTelemetry
    giltrace metrics --json --interval 5s 4242         for programs

    Counted in the process itself: how often and how long threads of each role held the GIL and waited for it, slept in
    locks, and which lines made others wait. Nothing is recorded. Several of the options may be combined; without any,
    a table is shown. It goes on until Ctrl-C or the end of the process; a command that was started here is as without
    it, and giltrace ends as that does.
    """
    pid = named_pid(words or [], module=module, code=code)
    table = listen is None and otlp is None and not as_json
    seconds = _seconds(interval, 1.0 if table else 10.0)
    _refuse(table=table, runs=not match and pid is None, output=output, allow_seccomp=allow_seccomp)
    if match and (words or module or code):
        raise UsageError("--match and a PID or a command are two things to count", "leave one of them out")
    target = None if match or pid is not None else _target(words or [], module, code, python)
    status = None
    with contextlib.ExitStack() as closing:
        exports = _exports(closing, listen, (tls_cert, tls_key), otlp, as_json=as_json)
        if match:
            _match(match, exports, seconds, table=table, allow_seccomp=allow_seccomp)
        elif target is not None and not table:
            status = _run(target, exports, seconds)
        else:
            from giltrace.views.ending import Ending

            with Ending() as ending, _counted(pid, target, output, ending, allow_seccomp=allow_seccomp) as counted:
                _look(counted, ending, exports, seconds, table=table)
    if status is not None:
        exit_like(status)


def _seconds(interval: str | None, default: float) -> float:
    if interval is None:
        return default
    seconds = parse_duration(interval, "--interval", unit="s") / 1e9
    if not _SHORTEST <= seconds <= _LONGEST:
        raise Mistyped(f"{interval!r} is no time between readings", "give 100ms to 1h, written 3600s", "--interval")
    return seconds


def _refuse(*, table: bool, runs: bool, output: Path | None, allow_seccomp: bool) -> None:
    if output is not None and not (runs and table):
        raise UsageError("--output is for a command beside the table", "leave it out: the command's output is its own")
    if allow_seccomp and runs:
        raise UsageError("--allow-seccomp is for a process that runs already", "give its PID, or leave it out")


def _target(words: list[str], module: str | None, code: str | None, python: str | None) -> Target:
    from giltrace.launch.target import resolve

    if not words and module is None and code is None:
        usage = "give a PID, a script or a command: `giltrace metrics 4242`, `giltrace metrics app.py`"
        raise UsageError("nothing to count", usage)
    return resolve(words, module=module, code=code, python=python)


def _exports(
    closing: contextlib.ExitStack,
    listen: str | None,
    tls: tuple[Path | None, Path | None],
    otlp: str | None,
    *,
    as_json: bool,
) -> list[Export]:
    """Make what was asked for, before anything is started; each is closed at the end."""
    exports: list[Export] = []
    if listen is not None:
        from giltrace.metrics.export.listen import Address, Listen

        server = Listen(Address.of(listen), cert=tls[0], key=tls[1])
        closing.callback(server.close)
        exports.append(server)
        _say(f"metrics at {server.url}")
    elif tls != (None, None):
        raise UsageError("--tls-cert is for a server", "add --listen 127.0.0.1:9464, or leave it out")
    if otlp is not None:
        from giltrace.metrics.export.otlp import Otlp

        sender = Otlp(otlp, _say)
        closing.callback(sender.close)
        exports.append(sender)
    if as_json:
        from giltrace.metrics.export.json_lines import JsonLines

        exports.append(JsonLines())
    return exports


def _say(line: str) -> None:
    print(f"giltrace: {line}", file=sys.stderr, flush=True)


def _run(target: Target, exports: list[Export], seconds: float) -> int | None:
    """Run a command as from a shell, and return how it ended."""
    from giltrace.launch.counting import counted_command
    from giltrace.metrics.following import follow, ledger_of

    with counted_command(target) as counted:
        goes_on = partial(_lasts, counted, None)
        follow(ledger_of(counted), exports, seconds, start=counted.start, wait=counted.wait, goes_on=goes_on, say=_say)
    return counted.status


def _match(patterns: list[str], exports: list[Export], seconds: float, *, table: bool, allow_seccomp: bool) -> None:
    """Count all processes that fit, until somebody ends it."""
    from giltrace.metrics.following import follow
    from giltrace.metrics.ledger import Ledger
    from giltrace.metrics.matching import Matching
    from giltrace.views.ending import Ending

    heap.share_one()
    with Ending() as ending, contextlib.ExitStack() as closing:
        matching = Matching(patterns, ending, _say, allow_seccomp=allow_seccomp)
        closing.callback(matching.close)
        shown = _table(closing, ", ".join(patterns), ending) if table else None
        wait = matching.wait if shown is None else partial(shown.wait, meanwhile=matching.look)
        goes_on, say = partial(_goes_on, shown, ending), _say if shown is None else None
        exports = exports if shown is None else [*exports, shown]
        follow(Ledger(matching), exports, seconds, start=matching.look, wait=wait, goes_on=goes_on, say=say)


def _look(counted: Counted, ending: Ending, exports: list[Export], seconds: float, *, table: bool) -> None:
    """Tell of a process that runs, or of a command beside the table, until the end or until somebody ends it."""
    from giltrace.metrics.following import follow, ledger_of

    with contextlib.ExitStack() as closing:
        if not table:
            goes_on, wait = partial(_lasts, counted, ending), counted.wait
        else:
            shown = _table(closing, counted.title, ending)
            exports, wait = [*exports, shown], shown.wait
            goes_on = partial(_is_shown, shown, counted, ending)
        say = None if table else _say
        follow(ledger_of(counted), exports, seconds, start=counted.start, wait=wait, goes_on=goes_on, say=say)


def _table(closing: contextlib.ExitStack, title: str, ending: Ending) -> Table:
    from giltrace.metrics.export.table import Table

    table = Table(title, ending)
    closing.callback(table.close)
    return table


def _lasts(counted: Counted, ending: Ending | None) -> bool:
    return counted.over() is None and (ending is None or ending.signal is None)


def _goes_on(table: Table | None, ending: Ending) -> bool:
    return ending.signal is None and not (table is not None and table.quit)


def _is_shown(table: Table, counted: Counted, ending: Ending) -> bool:
    """Whether the table goes on: after the end of what is counted, too, until somebody has seen it."""
    over = counted.over()
    table.notice = f"{over}; q quits" if over else ""
    return _goes_on(table, ending)


@contextlib.contextmanager
def _counted(
    pid: int | None, target: Target | None, output: Path | None, ending: Ending, *, allow_seccomp: bool
) -> Iterator[Counted]:
    from giltrace.launch.counting import counted_in_background, counted_process

    if pid is not None or target is None:
        assert pid is not None
        with counted_process(pid, ending, allow_seccomp=allow_seccomp) as counted:
            yield counted
        return
    from giltrace.launch.live import Output

    printed = Output(output)
    try:
        with counted_in_background(target, printed, ending) as counted:
            yield counted
    finally:
        tell_printed(printed)
