"""What pages quote of a report is worded as reports are today: held to what two samples print, but for figures."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from giltrace.analysis.findings import servers
from giltrace.analysis.report import analyse
from giltrace.analysis.summary import summarise
from giltrace.reports.summary import print_summary
from giltrace.reports.terminal import print_report
from giltrace.timeline.load import load
from traces.regenerate import unpack

ROOT = Path(__file__).resolve().parents[2]
#: Pages whose text blocks are excerpts of what `record` and `report` say first, each line whole or ended by "...".
PAGES = ("README.md", "docs/recipes.md")
#: Samples with the verdicts that the pages show.
SAMPLES = ("convoy", "cpu_bound", "io_bound")

_TEXT = re.compile(r"^```text\n(.*?)^```", re.M | re.S)
#: Line by line: a line of the program with the role before it, a name, a figure with its unit, and what follows one.
_MASKS = (
    (re.compile(r"^# *#  \S.*: .* \(\S+\)$"), "# ROLE: FUNCTION (LINE)"),
    (re.compile(r"^\S.*: .* \(\S+:#?\d*\) +# +# +#$"), "ROLE: FUNCTION (LINE) # # #"),
    (re.compile(r"^for \S.*: .* \(\S+\)$"), "for ROLE: FUNCTION (FILE)"),
    (re.compile(r"'[^']*'"), "NAME"),
    (re.compile(r"\b(thread|request|step|wait)s?\b"), r"\1s"),
)
_FIGURE = re.compile(r"(?<![\w.])\d[\d,.]*\d?(?: ?(?:ns|us|ms|s)\b|%)?")


def quoted() -> list[tuple[str, str]]:
    """Each line that the pages quote, with its page."""
    texts = [(page, body) for page in PAGES for body in _TEXT.findall((ROOT / page).read_text(encoding="utf-8"))]
    return [(page, line) for page, body in texts for line in body.splitlines() if line.strip()]


def masked(line: str) -> str:
    line = _FIGURE.sub("#", line.strip())
    for pattern, instead in _MASKS:
        line = pattern.sub(instead, line)
    return line


def printed(name: str, folder: Path) -> set[str]:
    """The lines of a sample's summary and report, each whole."""
    stream, timeline = io.StringIO(), load(unpack(name, folder))
    print_summary(summarise(timeline), Console(file=stream, width=1000))
    print_report(analyse(timeline), Console(file=stream, width=1000))
    return {masked(line) for line in stream.getvalue().splitlines()}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What is said of the samples, and would be if the servers that the pages advise about had run them."""
    pages = "".join(line for _, line in quoted())
    advised = {told for _, told in servers._SERVERS if f"({told})" in pages}
    assert len(advised) >= 3
    lines = set[str]()
    with pytest.MonkeyPatch.context() as patched:
        for told in ("", *sorted(advised)):
            patched.setattr(servers, "_SERVERS", (("/", told),))
            for name in SAMPLES:
                lines |= printed(name, tmp_path_factory.mktemp("sample"))
    return lines


@pytest.mark.parametrize(("page", "line"), quoted())
def test_it_is_worded_as_today(page: str, line: str, said: set[str]) -> None:
    begun = masked(line.removesuffix("...").removesuffix("…"))
    assert any(one.startswith(begun) if line.endswith("...") else one == begun for one in said), begun


@pytest.mark.parametrize(
    "stale",
    [
        "Convoy: thread 'MainThread' made 188 short steps, waiting 6.13 ms (median) before each: 43.7% of its life.",
        "Threads waited 859 ms over 3 threads; meanwhile these lines had the GIL:",
        "607 ms  70.7%  loader: load train.py:14",
    ],
)
def test_another_wording_is_seen(stale: str, said: set[str]) -> None:
    assert masked(stale) not in said
