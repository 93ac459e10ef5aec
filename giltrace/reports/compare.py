"""Two recordings side by side on a terminal, as JSON or as Markdown: 80 columns and no colour are enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from giltrace.analysis.compare.compare import LEAST_SHARE, Comparison, CulpritChange, Figure, RoleChange, Side, Unit
from giltrace.analysis.compare.headline import cost
from giltrace.analysis.durations import duration, percent
from giltrace.analysis.site import Site
from giltrace.reports.markdown import MOST_BYTES, code, escaped, table
from giltrace.reports.names import site_name
from giltrace.text import json_text, plural, visible

#: What each of three tables may take of a step's summary.
_ROOM = MOST_BYTES // 4
_NO_CHANGE = "no change beyond noise"
_NAMES = {
    "held_share": "held",
    "waited_share": "waited",
    "waits_per_s": "waits per s",
    "wait_p50_ns": "wait p50",
    "wait_p99_ns": "wait p99",
    "cost_share": "made others wait",
}


def print_comparison(found: Comparison, names: tuple[str, str], console: Console, *, everything: bool = False) -> None:
    """Print the comparison in one line and what changed beyond noise, or with `everything` all figures."""
    _line(Text(found.headline, style="bold"), console)
    for word, name, side in zip(("before", "after "), names, (found.before, found.after), strict=True):
        _line(Text(f"{word}  {visible(name)}: {_about(side)}"), console)
    console.print()
    for title, rows in _parts(found, everything):
        _print_part(title, rows, console, everything)


def as_json(found: Comparison, names: tuple[str, str]) -> str:
    """The comparison as a JSON document; times in ns, shares of 1."""
    told = asdict(found)
    told["before"]["recording"], told["after"]["recording"] = names
    judged = {"headline": found.headline, "changed": found.changed, "worse": found.worse}
    return json_text({**told, **judged}, indent=1)


def markdown(found: Comparison, names: tuple[str, str], *, everything: bool = False) -> Iterator[str]:
    """Yield the same as lines of Markdown, for a step's summary or a comment."""
    yield f"### giltrace compare: {escaped(found.headline)}"
    yield ""
    for word, name, side in zip(("before", "after"), names, (found.before, found.after), strict=True):
        yield f"* {word}: {code(name)}, {escaped(_about(side))}"
    yield ""
    lost = [(one.change, one.cause, _site(one.victim), _site(one.culprit), cost(one)) for one in found.findings]
    if lost:
        yield from table(("", "lost to", "by", "to", " cost"), lost, _ROOM)
        yield ""
    for title, rows in _parts(found, everything):
        cells = (
            (code(name) if at == 0 else "", *map(escaped, row))
            for name, figures in rows
            for at, row in enumerate(_lines(figures, everything))
        )
        yield from table((title, "", " before", " after", "change"), cells, _ROOM)
        yield ""


_Rows = Sequence[tuple[str, tuple[Figure, ...]]]


def _parts(found: Comparison, everything: bool) -> Iterator[tuple[str, _Rows]]:
    """The two parts, threads and culprits: of each what has a name and figures; nothing of one that is empty."""
    culprits = [one for one in found.culprits if everything or _matters(one)]
    parts: tuple[tuple[str, _Rows], ...] = (
        ("threads", [(_role(one), one.figures) for one in found.roles]),
        ("culprits", [(_culprit(one), one.figures) for one in culprits]),
    )
    yield from (part for part in parts if part[1])


def _site(site: Site | None) -> str:
    return code(site_name(site)) if site is not None else ""


def _line(text: Text, console: Console) -> None:
    console.print(text, soft_wrap=True)


def _about(side: Side) -> str:
    told = ", ".join(dict.fromkeys(side.verdicts)) or "no process"
    lost = f", {plural(side.lost_events, 'lost event')}" if side.lost_events else ""
    stacks = f", {side.lost_stacks} lost stacks" if side.lost_stacks else ""
    part = f" ({'; '.join(side.part)})" if side.part else ""
    return f"{duration(side.duration_ns)}{part}, {told}{lost}{stacks}"


def _print_part(title: str, rows: _Rows, console: Console, everything: bool) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(title, overflow="fold", max_width=34)
    table.add_column("")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right" if heading != "change" else "left", no_wrap=heading != "change")
    for name, figures in rows:
        lines = list(_lines(figures, everything))
        for at, cells in enumerate(lines):
            table.add_row(Text(name if at == 0 else ""), *(Text(cell) for cell in cells))
    console.print(table)
    console.print()


def _lines(figures: tuple[Figure, ...], everything: bool) -> Iterator[tuple[str, str, str, str]]:
    one_sided = all(f.before is None for f in figures) or all(f.after is None for f in figures)
    shown = [f for f in figures if everything or one_sided or f.change in ("higher", "lower")]
    for figure in shown:
        told = _change(figure)
        yield _NAMES[figure.name], _value(figure.before, figure.unit), _value(figure.after, figure.unit), told
    if not shown:
        unknown = sum(f.change == "unknown" and f.before is not None and f.after is not None for f in figures)
        yield "", "", "", _NO_CHANGE + (f" ({unknown} too few to tell)" if unknown else "")


def _change(figure: Figure) -> str:
    if figure.before is None or figure.after is None:
        return "none" if figure.before is figure.after else "only after" if figure.before is None else "only before"
    if figure.change in ("same", "unknown"):
        return _NO_CHANGE if figure.change == "same" else "too little to tell"
    if figure.unit == "share":
        return f"{figure.change} by {abs(figure.after - figure.before) * 100:.1f} points"
    if min(figure.before, figure.after) <= 0:
        return f"{figure.change}, {'from' if figure.change == 'higher' else 'to'} none"
    factor = max(figure.after, figure.before) / min(figure.after, figure.before)
    return f"{figure.change} by a factor of {factor:.2f}" if factor < 10 else f"{figure.change} {factor:.0f} times"


def _value(value: float | None, unit: Unit) -> str:
    if value is None:
        return "-"
    return duration(value) if unit == "ns" else percent(value) if unit == "share" else f"{value:.4g}"


def _role(role: RoleChange) -> str:
    if role.threads_before == role.threads_after:
        return f"{role.role} ({role.threads_before})" if role.threads_before > 1 else role.role
    return f"{role.role} ({role.threads_before} -> {role.threads_after})"


def _matters(culprit: CulpritChange) -> bool:
    """Whether it cost enough for a change to count, in either recording."""
    return any(max(figure.before or 0, figure.after or 0) >= LEAST_SHARE for figure in culprit.figures)


def _culprit(culprit: CulpritChange) -> str:
    where = f" in {culprit.function} ({culprit.file})" if culprit.function else ""
    return f"{culprit.thread}{where}"
