"""`giltrace check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from giltrace.cli.options import After, Own, Processes, Roles, Threads, Window
from giltrace.cli.stdout import print_if_read
from giltrace.cli.values import parse_duration, parse_share
from giltrace.errors import UsageError

if TYPE_CHECKING:
    from giltrace.analysis.compare.check import Rule


def _limit(option: str, text: str, metavar: str, parser: Any) -> Any:
    return typer.Option(option, metavar=metavar, help=text, parser=parser, show_default=False)


def check(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="The recording.", show_default=False)],
    max_wait: Annotated[int | None, _limit("--max-wait", "Longest wait of any thread.", "TIME", parse_duration)] = None,
    max_wait_p99: Annotated[
        int | None, _limit("--max-wait-p99", "99th percentile of the waits of a role.", "TIME", parse_duration)
    ] = None,
    max_wait_share: Annotated[
        float | None, _limit("--max-wait-share", "Share of a role's life spent waiting.", "SHARE", parse_share)
    ] = None,
    max_hold: Annotated[int | None, _limit("--max-hold", "Longest hold.", "TIME", parse_duration)] = None,
    max_overstay: Annotated[
        int | None, _limit("--max-overstay", "Longest hold past a switch request.", "TIME", parse_duration)
    ] = None,
    verdict: Annotated[
        list[str] | None,
        typer.Option("--verdict", metavar="KIND", help="Wanted verdict; repeat to allow several.", show_default=False),
    ] = None,
    verdict_not: Annotated[
        list[str] | None,
        typer.Option("--verdict-not", metavar="KIND", help="Verdict that fails; repeatable.", show_default=False),
    ] = None,
    max_lost: Annotated[
        int | None, typer.Option("--max-lost", min=0, metavar="N", help="Lost events.", show_default=False)
    ] = None,
    window: Window = None,
    after: After = None,
    process: Processes = None,
    thread: Threads = None,
    role: Roles = None,
    own: Own = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Check a recording against limits: a line per rule, exit status 0 if all pass and 1 if one fails.

    \b
    giltrace check out/app --max-wait-p99 10ms --max-wait-share 20% --thread 'io-*'
    giltrace check out/app --verdict-not convoy --verdict-not hog --max-lost 0

    A TIME has a unit (5us, 10ms, 1.5s), a SHARE is 20% or 0.2. At least one rule is needed. Exit status 2 means that
    nothing was checked: the command line or the recording is at fault.

    A role is all threads of a process whose names differ in their number only. --thread and --role narrow waits, holds
    and shares; a verdict is one of a whole process, in the window if there is one. Lost events are the recording's.
    """
    from giltrace.analysis.compare.check import check as run
    from giltrace.analysis.selection import Selection, select
    from giltrace.cli.loading import load
    from giltrace.recording.locate import locate
    from giltrace.reports.check import as_json as json_of
    from giltrace.reports.check import lines

    if own:
        raise UsageError("--own is not for check", "no rule asks whose code a line is; report and compare take it")
    selection = Selection.of(window=window, after=after, process=process, thread=thread, role=role)
    limits: dict[str, float | None] = {
        "max-wait": max_wait,
        "max-wait-p99": max_wait_p99,
        "max-wait-share": max_wait_share,
        "max-hold": max_hold,
        "max-overstay": max_overstay,
        "max-lost": max_lost,
    }
    rules = _rules(limits, verdict or [], verdict_not or [])
    folder = locate(name)
    (timeline,) = select([load(folder)], selection)
    result = run(timeline, rules)
    print_if_read(json_of(result, str(folder)) if as_json else "\n".join(lines(result)))
    if not result.passed:
        raise typer.Exit(1)


def _rules(limits: dict[str, float | None], verdict: list[str], verdict_not: list[str]) -> list[Rule]:
    """The rules that were given: any verdict of `verdict` will do, each of `verdict_not` is a rule."""
    from giltrace.analysis.compare.check import Rule

    rules = [Rule(rule, limit) for rule, limit in limits.items() if limit is not None]
    rules += [Rule("verdict", tuple(verdict))] if verdict else []
    return rules + [Rule("verdict-not", (kind,)) for kind in verdict_not]
