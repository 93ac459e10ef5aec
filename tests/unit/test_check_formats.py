"""The forms of `giltrace check` for continuous integration: what their readers take for commands, markup and ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from giltrace.analysis.compare.check import SCHEMA, CheckResult, Outcome, Rule, check
from giltrace.analysis.site import Site
from giltrace.errors import RecordingError
from giltrace.reports.check import github, junit, markdown, text
from giltrace.reports.check import json as json_of
from giltrace.reports.check.checked import Checked
from giltrace.reports.markdown import MOST_BYTES
from tests.unit.analysis_stacks import own_site, with_stacks
from tests.unit.gil_events import MS, Script, timeline

#: A name that means something to every reader of these forms.
NASTY = "a|b`c`<script>alert(1)</script>&amp;]]>\x1b[31m\n::error::\x00 ##[error]x,y:z%0A @all :x: https://evil.example"


def failed(rule: str = "max-wait", where: str = "io-0", culprit: Site | None = None) -> Outcome:
    return Outcome(rule, False, 12 * MS, 5 * MS, "ns", where, culprit)


def passed(rule: str = "max-hold") -> Outcome:
    return Outcome(rule, True, MS, 5 * MS, "ns", "io-0")


def checked(name: str, *outcomes: Outcome, lost: int = 0) -> Checked:
    whole = all(outcome.passed for outcome in outcomes)
    return Checked(name, CheckResult(SCHEMA, whole, outcomes, lost))


GONE = Checked("gone", None, RecordingError("there is no recording gone", "name one"))


def commands_in(lines: Iterator[str]) -> list[tuple[str, dict[str, str], str]]:
    """Read lines as the runner does: each command, its properties and its text, unescaped."""

    def plain(value: str, *escapes: str) -> str:
        for escape in (*escapes, "%0D", "%0A", "%25"):
            value = value.replace(escape, chr(int(escape[1:], 16)))
        return value

    found = []
    for line in "\n".join(lines).split("\n"):
        command = re.fullmatch(r"::(\w+)(?: ([^:]*))?::(.*)", line)
        if command:
            pairs = (one.split("=", 1) for one in command[2].split(","))
            found.append((command[1], {key: plain(value, "%3A", "%2C") for key, value in pairs}, plain(command[3])))
        else:
            assert not line.startswith("::")
            assert "##[" not in line
    return found


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    return tmp_path


def test_an_annotation_is_at_the_users_line(workspace: Path) -> None:
    site = own_site("cpu-*", "count", f"{workspace}/src/app, v2: 100%.py", 12)
    ((command, properties, told),) = commands_in(github.lines([checked("out/a.giltrace", failed(culprit=site))]))
    assert command == "error"
    assert properties == {"file": "src/app, v2: 100%.py", "line": "12", "title": "giltrace: max-wait"}
    assert told == "out/a.giltrace: 12.0 ms > 5.00 ms (io-0), by cpu-*: count (app, v2: 100%.py:12)"


@pytest.mark.parametrize(
    "site",
    [None, Site("cpu-*", "sort", "/usr/lib/python3/json.py", 3), own_site("cpu-*", "f", "/elsewhere/app.py", 3),
     own_site("cpu-*", "f", "<string>", 3)],
)  # fmt: skip
def test_what_is_not_in_the_workspace_has_no_file(workspace: Path, site: Site | None) -> None:
    ((_, properties, _),) = commands_in(github.lines([checked("a", failed(culprit=site))]))
    assert properties == {"title": "giltrace: max-wait"}


def test_a_file_is_found_by_way_of_links_and_by_a_relative_name(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(workspace)
    (workspace / "app.py").touch()
    monkeypatch.chdir(workspace)
    for file in (f"{link}/app.py", "app.py", f"{workspace}/src/../app.py"):
        assert github.in_workspace(file, workspace) == "app.py"
        assert github.in_workspace(file, link) == "app.py"
    assert github.in_workspace(f"{workspace}/../other.py", workspace) is None


def test_names_cannot_give_the_runner_commands(workspace: Path) -> None:
    site = own_site(NASTY, NASTY, f"{workspace}/{NASTY}".replace("\0", ""), 1)
    one = checked(NASTY, failed(where=NASTY, culprit=site), passed())
    found = commands_in(github.lines([one, Checked(NASTY, None, RecordingError(NASTY, NASTY))]))
    assert [command for command, _, _ in found] == ["error", "error"]
    assert set(found[0][1]) == {"file", "line", "title"}


def test_what_is_missing_is_a_warning_and_an_error_is_one(workspace: Path) -> None:
    found = commands_in(github.lines([checked("a", passed(), lost=3), GONE]))
    assert [(command, told.split("\n")[0]) for command, _, told in found] == [
        ("warning", "a: 3 events were lost, so these figures may be too low (--max-lost 0 makes that fail)"),
        ("error", "there is no recording gone"),
    ]


#: What may stand in what, and the attributes: those that must be there, and the others; as Jenkins' junit-10.xsd.
SUITE = {"name", "tests", "failures", "errors"}
SCHEMA_OF = {
    "testsuites": ({"testsuite"}, set[str](), {"name", "time", "tests", "failures", "errors"}),
    "testsuite": ({"properties", "testcase", "system-out"}, SUITE, {"time", "skipped", "timestamp", "hostname"}),
    "testcase": ({"failure", "error", "skipped", "system-out"}, {"name"}, {"time", "classname"}),
    "failure": (set[str](), set[str](), {"type", "message"}),
    "error": (set[str](), set[str](), {"type", "message"}),
    "system-out": (set[str](), set[str](), set[str]()),
}


def valid(element: ElementTree.Element) -> None:
    children, needed, allowed = SCHEMA_OF[element.tag]
    assert needed <= set(element.attrib) <= needed | allowed
    for child in element:
        assert child.tag in children
        valid(child)


def test_junit_has_a_case_per_rule_and_recording() -> None:
    site = own_site("cpu-*", "count", "/srv/app.py", 12)
    written = "\n".join(junit.lines([checked("out/a.giltrace", failed(culprit=site), passed(), lost=1), GONE]))
    root = ElementTree.fromstring(written.encode())
    valid(root)
    assert (root.attrib["tests"], root.attrib["failures"], root.attrib["errors"]) == ("3", "1", "1")
    assert [(case.attrib["classname"], case.attrib["name"]) for case in root.iter("testcase")] == [
        ("giltrace.out/a", "max-wait 5.00 ms"),
        ("giltrace.out/a", "max-hold 5.00 ms"),
        ("giltrace.gone", "can be checked"),
    ]
    (failure,) = root.iter("failure")
    assert failure.attrib["message"].startswith("12.0 ms > 5.00 ms (io-0)")
    assert failure.text == "count (/srv/app.py:12)"
    assert [suite.attrib["failures"] for suite in root] == ["1", "0"]


def test_junit_is_xml_whatever_the_names() -> None:
    one = checked(NASTY, failed(where=NASTY, culprit=own_site(NASTY, NASTY, NASTY, 1)))
    written = "\n".join(junit.lines([one, Checked(NASTY, None, RecordingError(NASTY, "\ud800"))]))
    assert re.findall(r"[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff\n]", written) == []
    root = ElementTree.fromstring(written.encode())
    valid(root)
    assert "<script>alert(1)</script>&amp;]]>\\x1b[31m" in root[0].attrib["name"]


def cells(table: str) -> list[list[str]]:
    """The text of the cells of the tables in Markdown, row by row, as a reader sees it; no HTML but for code."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(table)
    rows: list[list[str]] = []
    for token in tokens[: max(at for at, token in enumerate(tokens) if token.type == "table_close")]:
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline" and rows:
            for child in token.children or []:
                assert child.type in ("text", "html_inline", "strong_open", "strong_close", "text_special"), child
                assert child.type != "html_inline" or child.content in ("<code>", "</code>")
            shown = [one.content for one in token.children or [] if one.type in ("text", "text_special")]
            rows[-1].append("".join(shown))
    return rows


def test_markdown_shows_what_failed_first() -> None:
    site = own_site("cpu-*", "count", "/srv/app.py", 12)
    told = list(markdown.lines([checked("a", passed(), failed(culprit=site)), GONE]))
    assert told[0] == "### giltrace check: 1 of 2 rules failed, 1 recording could not be checked"
    assert cells("\n".join(told)) == [
        ["", "recording", "rule", "measured", "limit", "whose", "by"],
        ["FAIL", "a", "max-wait", "12.0 ms", "5.00 ms", "io-0", "cpu-*: count (app.py:12)"],
        ["pass", "a", "max-hold", "1.00 ms", "5.00 ms", "io-0", ""],
    ]
    assert told[-1] == "* <code>gone</code>: there is no recording gone"


def test_names_are_no_markdown() -> None:
    site = own_site(NASTY, NASTY, NASTY, 1)
    told = "\n".join(markdown.lines([checked(NASTY, failed(where=NASTY, culprit=site))]))
    (_, row) = cells(told)
    assert row[5].startswith("a|b`c`<script>alert(1)</script>&amp;]]>\\x1b[31m ::error::")
    assert len(row) == 7
    assert "://" not in told
    assert "@" not in told


def test_markdown_fits_into_a_steps_summary() -> None:
    many = [checked(f"recording-{number}", *[failed(where=NASTY)] * 20) for number in range(500)]
    told = "\n".join(markdown.lines(many))
    assert MOST_BYTES // 4 < len(told.encode()) < MOST_BYTES
    assert re.search(r"^\d+ more rows$", told, re.M)


def test_lines_of_several_recordings_are_named() -> None:
    assert list(text.lines([checked("a", passed()), GONE, checked("b", failed())])) == [
        "a: PASS max-hold: 1.00 ms <= 5.00 ms (io-0)",
        "b: FAIL max-wait: 12.0 ms > 5.00 ms (io-0)",
    ]


def test_one_json_document_has_them_all() -> None:
    told = json.loads("\n".join(json_of.lines([checked("a", passed(), lost=2), GONE, checked("b", failed(), lost=1)])))
    assert (told["passed"], told["recording"], told["lost"]) == (False, None, 3)
    assert [(rule["recording"], rule["passed"]) for rule in told["rules"]] == [("a", True), ("b", False)]
    assert [(one["recording"], one["passed"]) for one in told["recordings"]] == [
        ("a", True), ("gone", False), ("b", False)
    ]  # fmt: skip
    assert told["recordings"][1]["error"] == {"message": "there is no recording gone", "remedy": "name one"}
    assert json.loads("\n".join(json_of.lines([checked("a", passed())])))["passed"]


LINES = [
    [("wait", "/srv/io.py", 3)],
    [("dumps", "/usr/lib/python3.11/json/__init__.py", 9), ("work", "/srv/app.py", 7)],
]


@pytest.mark.parametrize("rule", ["max-wait", "max-wait-p99", "max-wait-share", "max-hold", "max-overstay"])
def test_what_fails_is_told_with_the_own_line_that_is_to_blame(rule: str) -> None:
    script = Script().hold(0, 100 * MS, 0).hold(100 * MS, 101 * MS, 1, asked=MS)
    built = timeline(script, end=102 * MS)
    process = with_stacks(built.processes[0], LINES, hold={0: 1}, wait={1: 0})
    built = built.__class__(**{**built.__dict__, "processes": (process,)})
    for limit, at in ((0, ("work", "/srv/app.py", 7)), (10**12, None)):
        (outcome,) = check(built, [Rule(rule, limit)]).outcomes
        site = outcome.culprit
        assert (site and (site.own_function, site.own_file, site.own_line)) == at
    (outcome,) = check(built, [Rule("verdict", ("idle",))]).outcomes
    assert outcome.culprit is not None
    assert outcome.culprit.own_file == "/srv/app.py"
