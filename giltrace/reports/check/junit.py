"""The outcome of `giltrace check` as a JUnit report: a suite per recording, a test case per rule.

Only what all readers of such files know is used: what surefire writes, as Jenkins and GitLab have it in their schemas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from giltrace.analysis.compare.check import Outcome
from giltrace.analysis.site import frame_text
from giltrace.reports.check.checked import Checked, label, notes, sentence
from giltrace.text import visible

#: What each part of a name ends in, which readers take for the end of a package.
_SUFFIX = ".giltrace"


def lines(checked: Sequence[Checked]) -> Iterator[str]:
    """Yield one document, in which every recording is named."""
    failures, errors = sum(one.failed for one in checked), sum(one.error is not None for one in checked)
    tests = sum(len(one.outcomes) for one in checked) + errors
    root = Element("testsuites", {"name": "giltrace check", **_counts(tests, failures, errors)})
    for one in checked:
        _suite(root, one)
    ElementTree.indent(root)
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield ElementTree.tostring(root, encoding="unicode")


def _suite(root: Element, one: Checked) -> None:
    name = visible(one.name)
    error = one.error is not None
    counts = _counts(len(one.outcomes) + error, one.failed, int(error))
    suite = SubElement(root, "testsuite", {"name": name, **counts, "skipped": "0", "time": "0"})
    of = f"giltrace.{name.removesuffix(_SUFFIX)}"
    for outcome in one.outcomes:
        case = SubElement(suite, "testcase", classname=of, name=visible(label(outcome)), time="0")
        if not outcome.passed:
            failure = SubElement(case, "failure", type=outcome.rule, message=visible(sentence(outcome)))
            failure.text = _text(_place(outcome))
    if one.error is not None:
        case = SubElement(suite, "testcase", classname=of, name="can be checked", time="0")
        failed = SubElement(case, "error", type=type(one.error).__name__, message=visible(one.error.message))
        failed.text = _text(one.error.remedy)
    told = [*one.result.part, *notes(one.result)] if one.result is not None else []
    if told:
        SubElement(suite, "system-out").text = _text("\n".join(told))


def _counts(tests: int, failures: int, errors: int) -> dict[str, str]:
    return {"tests": str(tests), "failures": str(failures), "errors": str(errors)}


def _place(outcome: Outcome) -> str:
    site = outcome.culprit
    if site is None or not site.function:
        return ""
    return frame_text(site.own_frame)


def _text(text: str) -> str | None:
    # What does not show has no place in XML 1.0: not even its escapes.
    return visible(text, keep="\n") or None
