"""`giltrace check`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from giltrace.analysis.kinds import KINDS
from giltrace.cli.completion.candidates import files, one_of, recordings
from giltrace.cli.config import KEYS, settings
from giltrace.cli.options import After, Own, Processes, Roles, Threads, Window, chosen
from giltrace.cli.progress import working
from giltrace.cli.stdout import print_if_read
from giltrace.cli.telling import tell
from giltrace.cli.values import parse_duration, parse_share
from giltrace.errors import GiltraceError

if TYPE_CHECKING:
    from giltrace.analysis.compare.check import Rule
    from giltrace.analysis.selection import Selection
    from giltrace.reports.check.checked import Checked


class Format(str, Enum):
    """How the outcome is printed: each is a module in `giltrace.reports.check`."""

    text = "text"
    json = "json"
    github = "github"
    junit = "junit"
    markdown = "markdown"


def _limit(
    option: str, text: str, metavar: str, parser: Any = None, least: int | None = None, completion: Any = None
) -> Any:
    return typer.Option(
        option,
        metavar=metavar,
        help=text,
        parser=parser,
        min=least,
        show_default=False,
        autocompletion=completion,
    )


_MaxWait = Annotated[int | None, _limit("--max-wait", "Longest wait of any thread.", "TIME", parse_duration)]
_P99 = "99th percentile of the waits of a role."
_MaxWaitP99 = Annotated[int | None, _limit("--max-wait-p99", _P99, "TIME", parse_duration)]
_OF_LIFE = "Share of a role's life spent waiting."
_MaxWaitShare = Annotated[float | None, _limit("--max-wait-share", _OF_LIFE, "SHARE", parse_share)]
_MaxHold = Annotated[int | None, _limit("--max-hold", "Longest hold.", "TIME", parse_duration)]
_PAST = "Longest hold past a switch request."
_MaxOverstay = Annotated[int | None, _limit("--max-overstay", _PAST, "TIME", parse_duration)]
_MaxLost = Annotated[int | None, _limit("--max-lost", "Lost events.", "N", least=0)]
_WANTED = "Wanted verdict; repeat to allow several."
_Verdict = Annotated[list[str] | None, _limit("--verdict", _WANTED, "KIND", completion=one_of(*KINDS))]
_UNWANTED = "Verdict that fails; repeatable."
_VerdictNot = Annotated[list[str] | None, _limit("--verdict-not", _UNWANTED, "KIND", completion=one_of(*KINDS))]
_Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Rules of this TOML file's [tool.giltrace.check]. [default: the nearest pyproject.toml with such]",
        show_default=False,
        autocompletion=files,
    ),
]
_Format = Annotated[
    Format | None, typer.Option("--format", help="How to print it. [default: text]", show_default=False)
]


def check(
    names: Annotated[
        list[Path],
        typer.Argument(
            metavar="NAME...",
            help="The recordings, or patterns for them.",
            show_default=False,
            autocompletion=recordings,
        ),
    ],
    max_wait: _MaxWait = None,
    max_wait_p99: _MaxWaitP99 = None,
    max_wait_share: _MaxWaitShare = None,
    max_hold: _MaxHold = None,
    max_overstay: _MaxOverstay = None,
    max_lost: _MaxLost = None,
    verdict: _Verdict = None,
    verdict_not: _VerdictNot = None,
    window: Window = None,
    after: After = None,
    process: Processes = None,
    thread: Threads = None,
    role: Roles = None,
    own: Own = None,
    config: _Config = None,
    form: _Format = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Check recordings against limits: a line per rule, exit status 0 if all pass and 1 if one fails.

    \b
    giltrace check out/app --max-wait-p99 10ms --thread 'io-*'
    giltrace check out/app --verdict-not convoy --verdict-not hog --max-lost 0
    giltrace check 'out/*' --format github   by the rules in pyproject.toml
    giltrace check 'out/*' --format junit > gil.xml   a test report
    giltrace check 'out/*' --format markdown >> $GITHUB_STEP_SUMMARY

    \b
    [tool.giltrace.check]            in pyproject.toml here or above; options
    max-wait-p99 = "10ms"            on the command line win over its keys,
    verdict-not = ["convoy", "hog"]  which have their names

    A TIME has a unit (5us, 10ms, 1.5s), a SHARE is 20% or 0.2. At least one rule is needed. Exit status 2 means that
    something could not be checked: the command line, the file of rules or a recording is at fault. Of several
    recordings the worst decides; those that can be checked are.

    A role is all threads of a process whose names differ in their number only. --thread and --role narrow waits, holds
    and shares; a verdict is one of a whole process, in the window if there is one. Lost events are the recording's.
    A rule that fails names the line that is to blame, one of your own code (--own says what is).
    """
    limits = (max_wait, max_wait_p99, max_wait_share, max_hold, max_overstay, max_lost, verdict, verdict_not)
    given = dict(zip(KEYS, (*limits, window, after, process, thread, role, own), strict=True))
    _run(names, _over(settings(config), given), chosen(form, Format, as_json=as_json))


def _run(names: Sequence[Path], asked: dict[str, Any], form: Format) -> None:
    from giltrace.analysis.compare.check import refuse_wrong
    from giltrace.analysis.selection import Selection

    writer = _writer(form)
    rules = _rules(asked)
    refuse_wrong(rules)
    part = ("window", "after", "process", "thread", "role", "own")
    with working("checking"):
        checked = list(_check_all(names, Selection.of(**{key: asked.get(key) for key in part}), rules))
        lines = list(writer(checked))
    if lines:
        print_if_read("\n".join(lines))
    for one in checked:
        if one.error is not None:
            tell(one.error, f"{one.name}: " if len(checked) > 1 and one.name not in one.error.message else "")
    if any(one.error is not None or one.failed for one in checked):
        raise typer.Exit(2 if any(one.error is not None for one in checked) else 1)


def _over(kept: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What was `given` on the command line, over what is `kept` in a file."""
    given = {key: value for key, value in given.items() if value is not None}
    if {"window", "after"} & set(given):
        # Two ways to say the same.
        kept = {key: value for key, value in kept.items() if key not in ("window", "after")}
    return {**kept, **given}


def _rules(asked: dict[str, Any]) -> list[Rule]:
    """The rules that were given: any verdict of `verdict` will do, each of `verdict-not` is a rule."""
    from giltrace.analysis.compare.check import LOST, VERDICT, VERDICT_NOT, Rule
    from giltrace.analysis.compare.limits import LIMITS

    rules = [Rule(rule, asked[rule]) for rule in (*LIMITS, LOST) if rule in asked]
    rules += [Rule(VERDICT, tuple(asked[VERDICT]))] if asked.get(VERDICT) else []
    return rules + [Rule(VERDICT_NOT, (kind,)) for kind in asked.get(VERDICT_NOT, [])]


def _check_all(names: Sequence[Path], selection: Selection, rules: Sequence[Rule]) -> Iterator[Checked]:
    """Check each recording once; one that cannot be is told with its error."""
    from giltrace.recording.locate import fitting
    from giltrace.reports.check.checked import Checked

    done = set()
    for name in names:
        try:
            folders = fitting(name)
        except GiltraceError as error:
            yield Checked(str(name), None, error)
            continue
        for folder in folders:
            place = os.path.realpath(folder)
            if place not in done:
                done.add(place)
                yield _check(folder, selection, rules)


def _check(folder: Path, selection: Selection, rules: Sequence[Rule]) -> Checked:
    from giltrace.analysis.compare.check import check as run
    from giltrace.analysis.selection import select
    from giltrace.cli.loading import load
    from giltrace.reports.check.checked import Checked

    try:
        with working(f"checking {folder}"):
            (timeline,) = select([load(folder, selection)], selection)
            return Checked(str(folder), run(timeline, rules))
    except GiltraceError as error:
        return Checked(str(folder), None, error)


def _writer(form: Format) -> Callable[[Sequence[Checked]], Iterator[str]]:
    """What yields the lines of a format; only the module of that one is imported."""
    from importlib import import_module

    module = import_module(f"giltrace.reports.check.{form.value}")
    writer: Callable[[Sequence[Checked]], Iterator[str]] = module.lines
    return writer
